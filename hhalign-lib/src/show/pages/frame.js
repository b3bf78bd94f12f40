// Shows a live page in a notebook's output, or the last state seen if the page cannot be reached.
({ id, name, address, height }) => {
  const root = document.getElementById(id);
  if (!root) return;
  const last = root.querySelector('[data-last]');
  const why = root.querySelector('[data-why]');
  const key = `hhalign last state of ${name}`;
  const stored = () => {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null; // A browser may forbid it; then the state at the cell's end is shown.
    }
  };
  const dark = document.body.dataset.jpThemeLight === 'false';
  // Stored HTML is shown in a sandboxed frame: scripts in it must not reach the notebook or kernel.
  const show = ({ html, height: pixels }) => {
    const still = document.createElement('iframe');
    still.setAttribute('sandbox', '');
    still.title = `Last state of ${name}`;
    const shown = Math.min(Number(pixels) || height, 1200);
    still.style.cssText = `width:100%;height:${shown}px;border:0;display:block`;
    const body = `<body style="margin:0;background:none">${html}</body>`;
    still.srcdoc = `<!doctype html><html class="hh-${dark ? 'dark' : 'light'}">${body}</html>`;
    last.replaceChildren(still);
  };
  const unreachable = (text) => {
    const seen = stored();
    if (seen) show(seen);
    last.hidden = false;
    why.hidden = false;
    why.textContent = text;
  };
  const here = new URL(address);
  if (location.protocol === 'https:' && here.protocol === 'http:') {
    unreachable(
      'This notebook was loaded over https, so the live page cannot be reached. ' +
        'Set HHALIGN_LIVE_BASE to its address behind your proxy and restart the kernel. ' +
        'This is the last state seen here.',
    );
    return;
  }
  const probe = new Image();
  probe.onload = () => {
    const frame = document.createElement('iframe');
    frame.src = `${address}?theme=${dark ? 'dark' : 'light'}`;
    frame.title = `Live page of ${name}`;
    frame.style.cssText = `width:100%;height:${height}px;border:0;display:block`;
    root.prepend(frame);
    last.hidden = true;
    why.hidden = true;
    addEventListener('message', (event) => {
      if (
        event.origin !== here.origin ||
        event.source !== frame.contentWindow ||
        event.data?.hhalign !== name
      )
        return;
      if (event.data.height > 0) frame.style.height = `${Math.min(event.data.height + 8, 1200)}px`;
      try {
        if (event.data.html)
          localStorage.setItem(
            key,
            JSON.stringify({ html: String(event.data.html), height: event.data.height }),
          );
      } catch {
        // Full or forbidden: only the picture after the kernel's end is lost.
      }
    });
  };
  probe.onerror = () =>
    unreachable(
      'The live page cannot be reached: its kernel has ended, or runs behind a proxy ' +
        '(then set HHALIGN_LIVE_BASE). This is the last state seen here.',
    );
  probe.src = `${address}alive.svg?${Date.now()}`;
}
