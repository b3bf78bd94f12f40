// Puts a live page into a notebook's output where it can be reached, and the last state that was seen where it cannot.
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
      return null; // A browser may forbid it; the state of the cell's end is shown then.
    }
  };
  const dark = document.body.dataset.jpThemeLight === 'false';
  // What a page once sent is shown in a frame in which nothing can run: this page is the notebook's own, and its kernel's.
  const show = ({ html, height: pixels }) => {
    const still = document.createElement('iframe');
    still.setAttribute('sandbox', '');
    still.title = `Last state of ${name}`;
    still.style.cssText = `width:100%;height:${Math.min(Number(pixels) || height, 1200)}px;border:0;display:block`;
    still.srcdoc = `<!doctype html><html class="hh-${dark ? 'dark' : 'light'}"><body style="margin:0;background:none">${html}</body></html>`;
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
      'This notebook was loaded over https, from where the live page cannot be reached: set HHALIGN_LIVE_BASE to its ' +
        'address behind your proxy and restart the kernel. This is the last state that was seen here.'
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
      if (event.origin !== here.origin || event.source !== frame.contentWindow || event.data?.hhalign !== name) return;
      if (event.data.height > 0) frame.style.height = `${Math.min(event.data.height + 8, 1200)}px`;
      try {
        if (event.data.html) localStorage.setItem(key, JSON.stringify({ html: String(event.data.html), height: event.data.height }));
      } catch {
        // Full or forbidden: nothing is lost but the picture after the kernel's end.
      }
    });
  };
  probe.onerror = () =>
    unreachable(
      'The live page cannot be reached: its kernel has ended, or runs behind a proxy (then set HHALIGN_LIVE_BASE). ' +
        'This is the last state that was seen here.'
    );
  probe.src = `${address}alive.svg?${Date.now()}`;
}
