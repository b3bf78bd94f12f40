// The page of a training run: follows the server's events, draws, and passes a still picture to the
// notebook around it.
(() => {
  'use strict';
  const hhalign = (globalThis.hhalign ??= {});

  const FINAL = ['finished', 'stopped', 'failed'];
  const PHASES = {
    preparing: [
      'preparing',
      '<circle cx="7" cy="7" r="5" fill="none" stroke="currentColor" stroke-width="2" ' +
        'stroke-dasharray="3 2"/>',
    ],
    training: ['training', '<path d="M3 1l10 6l-10 6z" fill="currentColor"/>'],
    paused: ['paused', '<path d="M2 1h4v12h-4zM8 1h4v12h-4z" fill="currentColor"/>'],
    finished: [
      'finished',
      '<path d="M1 7l4 5l8-10" fill="none" stroke="currentColor" stroke-width="2.4"/>',
    ],
    stopped: ['stopped', '<path d="M2 2h10v10h-10z" fill="currentColor"/>'],
    failed: [
      'failed',
      '<path d="M2 2l10 10M12 2l-10 10" stroke="currentColor" stroke-width="2.6"/>',
    ],
  };

  const line = (metric, name, colour, look) => ({ metric, name, colour, ...look });
  const noisy = { thin: true, dash: '' };
  const CHARTS = {
    sft: [
      {
        title: 'Loss',
        y: 'loss per token',
        series: [
          line('loss', 'training batch', 0, noisy),
          line('eval_loss', 'held out', 1, { markers: true }),
        ],
      },
      {
        title: 'Token accuracy',
        y: 'share of tokens',
        format: 'percent',
        series: [line('mean_token_accuracy', 'training batch', 0, noisy)],
      },
    ],
    reward: [
      {
        title: 'Loss',
        y: 'loss per pair',
        level: { y: Math.LN2, text: 'chance' },
        series: [
          line('loss', 'training batch', 0, noisy),
          line('eval_loss', 'held out', 1, { markers: true }),
        ],
      },
      {
        title: 'Accuracy',
        y: 'share of pairs',
        format: 'percent',
        level: { y: 0.5, text: 'chance' },
        series: [
          line('accuracy', 'training batch', 0, noisy),
          line('eval_accuracy', 'held out', 1, { markers: true }),
        ],
      },
      {
        title: 'Margin',
        y: 'r(chosen) - r(rejected)',
        level: { y: 0, text: 'no difference' },
        series: [
          line('margin', 'training batch', 0, noisy),
          line('eval_margin', 'held out', 1, { markers: true }),
        ],
      },
    ],
    dpo: [
      {
        title: 'Loss',
        y: 'loss per pair',
        level: 'first',
        series: [
          line('loss', 'training batch', 0, noisy),
          line('eval_loss', 'held out', 1, { markers: true }),
        ],
      },
      {
        title: 'Reward accuracy',
        y: 'share of pairs',
        format: 'percent',
        level: { y: 0.5, text: 'chance' },
        series: [
          line('rewards/accuracies', 'training batch', 0, noisy),
          line('eval_rewards/accuracies', 'held out', 1, { markers: true }),
        ],
      },
      {
        title: 'Held-out rewards',
        y: 'mean reward',
        level: { y: 0, text: 'policy = reference' },
        series: [
          line('eval_rewards/chosen', 'chosen', 2, { markers: true }),
          line('eval_rewards/rejected', 'rejected', 1, { markers: true }),
          line('eval_rewards/margins', 'margin', 3, { markers: true }),
        ],
      },
    ],
  };

  /** Formats a duration: "3 min 20 s". */
  function duration(seconds) {
    const s = Math.max(0, Math.round(seconds));
    const two = (n) => String(n).padStart(2, '0');
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
    return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  }

  /** Runs the page. All addresses are relative to the page, so there are no arguments. */
  hhalign.livePage = () => {
    hhalign.pageTheme();
    const part = (id) => document.getElementById(id);
    const charts = part('charts');
    let state = null;
    let asked = null;
    let source = null;
    let retry = 1000;

    /** Takes a state, or the new part of one. Returns false if records before it are missing. */
    function take(news) {
      const known = state && state.id === news.id ? state.records : [];
      if (news.from > known.length) return false;
      state = { ...news, records: [...known.slice(0, news.from), ...news.records] };
      if (asked === state.phase || FINAL.includes(state.phase)) asked = null;
      part('lost').hidden = true;
      document.body.dataset.points = state.records.length;
      document.body.dataset.phase = state.phase;
      if (FINAL.includes(state.phase)) source?.close();
      later();
      return true;
    }

    // A timer, not animation frames: those stop while the page is out of view, and the still
    // picture must stay current.
    let timer = null;
    let drawn = -Infinity;
    function later() {
      timer ??= setTimeout(
        () => {
          timer = null;
          drawn = performance.now();
          draw();
        },
        Math.max(0, 150 - (performance.now() - drawn)),
      );
    }

    function draw() {
      if (!state) return;
      drawHead();
      const specs = CHARTS[state.kind] ?? [];
      while (charts.children.length > specs.length) charts.lastChild.remove();
      while (charts.children.length < specs.length) {
        charts.append(
          Object.assign(document.createElement('div'), {
            className: 'hh-cell',
            innerHTML: '<figure class="hh-chart"></figure>',
          }),
        );
      }
      const width = charts.firstChild?.clientWidth;
      specs.forEach((spec, i) => drawChart(charts.children[i].firstChild, spec, width));
      post();
    }

    function drawHead() {
      const [phase, icon] = PHASES[state.phase] ?? [state.phase, ''];
      const size = 'width="14" height="14" viewBox="0 0 14 14"';
      const words = `<svg ${size} aria-hidden="true">${icon}</svg>${hhalign.escape(phase)}`;
      // Written only on a change, since screen readers read a status aloud whenever it is written.
      if (part('phase').dataset.shown !== phase) part('phase').innerHTML = words;
      part('phase').dataset.shown = phase;
      part('name').textContent = state.name;
      document.title = `${state.name}: ${phase}`;
      part('steps').textContent =
        `step ${state.step.toLocaleString('en')} of ${state.max_steps.toLocaleString('en')}`;
      part('speed').textContent =
        state.tokens_per_s > 0
          ? `${Math.round(state.tokens_per_s).toLocaleString('en')} tokens/s`
          : '';
      const over = FINAL.includes(state.phase);
      const running = state.seconds > 0 ? `${duration(state.seconds)}${over ? '' : ' so far'}` : '';
      const left =
        over || state.seconds_left === null ? '' : `about ${duration(state.seconds_left)} left`;
      part('left').textContent = [running, left].filter(Boolean).join(', ');
      part('bar').setAttribute('aria-valuemax', state.max_steps);
      part('bar').setAttribute('aria-valuenow', state.step);
      part('bar').firstElementChild.style.width =
        `${Math.min(100, (100 * state.step) / Math.max(1, state.max_steps))}%`;
      part('error').textContent = state.error;
      part('error').hidden = !state.error;
      part('note').textContent = state.note;
      const out = !part('lost').hidden;
      part('actions').hidden = over;
      part('pause').textContent =
        asked === 'paused'
          ? 'Pausing …'
          : asked === 'training'
            ? 'Resuming …'
            : state.phase === 'paused'
              ? 'Resume'
              : 'Pause';
      part('pause').disabled =
        out || asked !== null || !['training', 'paused'].includes(state.phase);
      part('stop').textContent = asked === 'stopped' ? 'Stopping …' : 'Stop';
      part('stop').disabled = out || asked === 'stopped' || !part('ask').hidden;
      part('stop-yes').disabled = out;
    }

    // Before the first step policy and reference agree; the value there depends on the loss
    // (ln 2 for the sigmoid loss).
    function levelOf(spec) {
      if (spec.level !== 'first') return spec.level;
      const first = state.records.find((r) => r.step === 0 && Number.isFinite(r.metrics.eval_loss));
      return first && { y: first.metrics.eval_loss, text: 'policy = reference' };
    }

    function drawChart(figure, spec, width) {
      const series = spec.series.map(({ metric, ...look }) => ({
        ...look,
        points: state.records
          .filter((r) => Number.isFinite(r.metrics[metric]))
          .map((r) => [r.step, r.metrics[metric]]),
      }));
      const steps = state.records.map((r) => r.step);
      const marks = state.marks.map((m) => ({ x: m.step, text: m.text }));
      hhalign.lineChart(figure, {
        title: spec.title,
        x: 'step',
        y: spec.y,
        yFormat: spec.format,
        xFormat: 'whole',
        series,
        marks,
        level: levelOf(spec),
        width,
        xRange: hhalign.range(
          [0, ...steps, ...marks.map((m) => m.x), ...(steps.length ? [] : [state.max_steps])],
          0.02,
        ),
      });
    }

    // Sends the current header and charts to the page around this frame; they outlive the server.
    function post() {
      const head = part('head').cloneNode(true);
      for (const e of [head, ...head.children])
        ['id', 'role'].forEach((name) => e.removeAttribute(name));
      const error = `<p class="hh-notice">${hhalign.escape(state.error)}</p>`;
      const html = [
        `<style>${part('hhalign-style').textContent}</style><div class="hhalign">${head.outerHTML}`,
        part('error').hidden ? '' : error,
        `<div class="hh-grid">${charts.innerHTML}</div>`,
        `<p class="hh-small">${hhalign.escape(state.note)}</p></div>`,
      ].join('');
      // scrollHeight is at least the frame's height, so a frame sized by it could not shrink.
      const height = Math.ceil(document.documentElement.getBoundingClientRect().height);
      window.parent.postMessage({ hhalign: state.id, html, height }, '*');
    }

    async function load() {
      const reply = await fetch('state', { cache: 'no-store' });
      if (!reply.ok) throw new Error(`state: ${reply.status}`);
      const whole = await reply.json();
      // A later event may have arrived before this answer.
      const older =
        whole.records.length < (state?.records.length ?? 0) || FINAL.includes(state?.phase);
      if (source && state?.id === whole.id && older) return;
      state = null;
      take({ ...whole, from: 0 });
    }

    function lose() {
      source?.close();
      source = null;
      if (state && FINAL.includes(state.phase)) return;
      asked = null;
      part('lost').hidden = false;
      later();
      setTimeout(connect, retry);
      retry = Math.min(retry * 1.6, 10000);
    }

    async function connect() {
      try {
        await load();
      } catch {
        lose();
        return;
      }
      retry = 1000;
      if (FINAL.includes(state.phase)) return;
      source = new EventSource('events');
      // A source that retries by itself would not fetch missed events, so we reconnect.
      source.onerror = lose;
      // Changes between the answer and the first event would be missed.
      source.onopen = () => load().catch(lose);
      source.onmessage = (event) => {
        if (!take(JSON.parse(event.data))) load().catch(lose);
      };
    }

    async function request(path, phase) {
      asked = phase;
      draw();
      // The server answers before the training acts; a button must not wait forever.
      setTimeout(() => {
        if (asked === phase) asked = null;
        draw();
      }, 15000);
      try {
        const reply = await fetch(path, { method: 'POST' });
        if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
      } catch {
        asked = null;
        draw();
      }
    }

    function ask(open) {
      part('ask').hidden = !open;
      draw();
      part(open ? 'stop-no' : 'stop').focus();
    }

    part('pause').addEventListener('click', () =>
      state.phase === 'paused' ? request('resume', 'training') : request('pause', 'paused'),
    );
    part('stop').addEventListener('click', () => ask(true));
    part('stop-no').addEventListener('click', () => ask(false));
    part('stop-yes').addEventListener('click', () => {
      part('ask').hidden = true;
      request('stop', 'stopped');
    });
    part('ask').addEventListener('keydown', (event) => {
      if (event.key === 'Escape') ask(false);
    });
    hhalign.follow(document.body, later);
    connect();
  };
})();
