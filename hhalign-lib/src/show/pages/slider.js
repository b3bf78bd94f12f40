// A slider over replies that were sampled at several values of beta.
(root, { prompts, stops, trained }) => {
  if (!root) return;
  const make = (tag, attributes = {}, text = '') => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  const id = `${root.id}-range`;
  const nearest = stops.reduce(
    (best, stop, i) =>
      Math.abs(Math.log(stop.beta / trained)) < Math.abs(Math.log(stops[best].beta / trained))
        ? i
        : best,
    0,
  );
  const label = make('label', { for: id, style: 'display:block;font-weight:600;padding:4px 12px' });
  const range = make('input', {
    id,
    type: 'range',
    min: 0,
    max: stops.length - 1,
    step: 1,
    value: nearest,
    style: 'width:min(32em,90%);margin:0 12px',
  });
  const rows = prompts.map((prompt) => {
    const row = make('div', { style: 'margin:8px 12px' });
    const reply = make('div', {
      style:
        'border:1px solid #8888;border-radius:6px;padding:8px 12px;' +
        'white-space:pre-wrap;min-height:3em',
    });
    row.append(
      make(
        'div',
        {
          style:
            'white-space:pre-wrap;border-left:3px solid #888;padding:2px 10px;' +
            'margin:4px 0;opacity:.85',
        },
        prompt,
      ),
      reply,
    );
    return { row, reply };
  });
  const show = () => {
    const stop = stops[range.value];
    const own = stop.beta === trained ? ': the trained policy' : '';
    const lambda = stop.lambda.toFixed(2);
    label.textContent = `Decoded as if trained at β = ${stop.beta} (λ = ${lambda})${own}`;
    range.setAttribute('aria-valuetext', `beta ${stop.beta}`);
    rows.forEach(({ reply }, i) => (reply.textContent = stop.replies[i]));
  };
  range.addEventListener('input', show);
  const note =
    `The policy was trained at β = ${trained}. ` +
    'Other values mix its logits with the reference’s at every token (DeRa): ' +
    'an approximation without training. A smaller β moves further from the reference.';
  root.replaceChildren(
    label,
    range,
    ...rows.map((r) => r.row),
    make('div', { style: 'opacity:.8;padding:4px 12px;max-width:60em' }, note),
  );
  show();
}
