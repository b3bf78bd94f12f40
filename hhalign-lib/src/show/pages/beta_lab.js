// The beta lab: scores fixed weights again with another beta or another loss. Needs chart.js.
(() => {
  'use strict';
  const hhalign = (globalThis.hhalign ??= {});

  // The same limits as in loss/preference.rs: both must give the same numbers.
  const MAX_EXPONENT = 80;
  const cappedExp = (x) => Math.exp(Math.max(-MAX_EXPONENT * 8, Math.min(MAX_EXPONENT, x)));
  const cappedExpGrad = (x) => (x < -MAX_EXPONENT * 8 || x > MAX_EXPONENT ? 0 : Math.exp(x));
  const logOneMinusExp = (x) => Math.log(1 - Math.exp(Math.max(-1e4, Math.min(-1e-6, x))));
  const logOneMinusExpGrad = (x) => (x < -1e4 || x > -1e-6 ? 0 : 1 / (1 - Math.exp(-x)));
  const ls = (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
  const sigma = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
  const bump = (x) => sigma(x) * sigma(-x);
  const smoothed = (x, eps) => -(1 - eps) * ls(x) - eps * ls(-x);
  const smoothedGrad = (x, eps) => -(1 - eps) * sigma(-x) + eps * sigma(x);
  const pairLogOdds = ({ pc, pr, lw, ll }) =>
    pc / lw - pr / ll - (logOneMinusExp(pc / lw) - logOneMinusExp(pr / ll));

  const perToken = (p) => p.a / p.lw - p.b / p.ll;
  const margin = (p) => p.x;
  const smoothedTarget = (p) => Math.log((1 - p.label_smoothing) / p.label_smoothing);

  // A loss: its value and its derivative with respect to log π(chosen), for one pair p with
  // a, b, lw, ll, pc, pr, beta, half = 1/(2 beta), x = beta (a - b), and the loss's own settings.
  // `uses` is 'D', 'ab' (a and b separately), 'tokens' (per token), 'policy' and 'rates' (no
  // reference; summed, per token) or 'sorted' (the batch). `score` is the value in the histogram,
  // `target` the score that the loss aims for.
  const pairLoss = (uses, value, grad, { score = margin, target } = {}) => ({
    uses,
    value,
    grad,
    score,
    target,
  });
  const logisticLoss = (uses, score, grad) =>
    pairLoss(
      uses,
      (p) => -ls(score(p)),
      (p) => -sigma(-score(p)) * grad(p),
      { score },
    );

  const LOSSES = {
    sigmoid: logisticLoss('D', margin, (p) => p.beta),
    cdpo: pairLoss(
      'D',
      (p) => smoothed(p.x, p.label_smoothing),
      (p) => p.beta * smoothedGrad(p.x, p.label_smoothing),
      { target: smoothedTarget },
    ),
    robust: pairLoss(
      'D',
      ({ x, label_smoothing: eps }) => (-(1 - eps) * ls(x) + eps * ls(-x)) / (1 - 2 * eps),
      ({ x, beta, label_smoothing: eps }) =>
        (-beta * ((1 - eps) * sigma(-x) + eps * sigma(x))) / (1 - 2 * eps),
    ),
    hinge: pairLoss(
      'D',
      (p) => Math.max(0, 1 - p.x),
      (p) => (p.x < 1 ? -p.beta : 0),
      { target: () => 1 },
    ),
    ipo: pairLoss(
      'D',
      (p) => (p.a - p.b - p.half) ** 2,
      (p) => 2 * (p.a - p.b - p.half),
      { target: () => 0.5 },
    ),
    ipo_per_token: pairLoss(
      'tokens',
      (p) => (perToken(p) - p.half) ** 2,
      (p) => (2 * (perToken(p) - p.half)) / p.lw,
      {
        score: (p) => p.beta * perToken(p),
        target: () => 0.5,
      },
    ),
    exo_pair: pairLoss(
      'D',
      ({ x, label_smoothing: eps }) =>
        sigma(x) * (ls(x) - Math.log(1 - eps)) + sigma(-x) * (ls(-x) - Math.log(eps)),
      (p) => p.beta * bump(p.x) * (p.x - smoothedTarget(p)),
      { target: smoothedTarget },
    ),
    nca_pair: pairLoss(
      'ab',
      (p) => -ls(p.beta * p.a) - (ls(-p.beta * p.a) + ls(-p.beta * p.b)) / 2,
      (p) => p.beta * (sigma(p.beta * p.a) / 2 - sigma(-p.beta * p.a)),
    ),
    bco_pair: pairLoss(
      'ab',
      (p) => -ls(p.beta * p.a) - ls(-p.beta * p.b),
      (p) => -p.beta * sigma(-p.beta * p.a),
    ),
    sppo_hard: pairLoss(
      'ab',
      (p) => (p.a - p.half) ** 2 + (p.b + p.half) ** 2,
      (p) => 2 * (p.a - p.half),
      { target: () => 1 },
    ),
    aot: { uses: 'sorted' },
    aot_unpaired: { uses: 'sorted' },
    apo_zero: pairLoss(
      'ab',
      (p) => sigma(p.beta * p.b) - sigma(p.beta * p.a) + 1,
      (p) => -p.beta * bump(p.beta * p.a),
    ),
    apo_down: pairLoss(
      'ab',
      (p) => sigma(p.beta * p.a) - sigma(p.x) + 1,
      (p) => p.beta * (bump(p.beta * p.a) - bump(p.x)),
    ),
    // e^(-x) m is computed as e^(-x + ls(x/τ)), as in Rust: e^(-x) alone overflows where m is zero.
    discopop: pairLoss(
      'D',
      ({ x, tau }) => -ls(x) * sigma(-x / tau) + Math.exp(ls(x / tau) - x),
      ({ x, tau, beta }) => {
        const logistic = -sigma(-x) * sigma(-x / tau) + (ls(x) * bump(x / tau)) / tau;
        return beta * (logistic + Math.exp(ls(x / tau) - x) * (sigma(-x / tau) / tau - 1));
      },
    ),
    sigmoid_norm: logisticLoss(
      'tokens',
      (p) => p.beta * perToken(p),
      (p) => p.beta / p.lw,
    ),
    forward_kl: logisticLoss(
      'ab',
      (p) => p.beta * (cappedExp(-p.b) - cappedExp(-p.a)),
      (p) => p.beta * cappedExpGrad(-p.a),
    ),
    js_divergence: logisticLoss(
      'ab',
      (p) => p.beta * (ls(p.a) - ls(p.b)),
      (p) => p.beta * sigma(-p.a),
    ),
    alpha_divergence: logisticLoss(
      'ab',
      ({ a, b, beta, alpha }) =>
        (cappedExp((alpha - 1) * a) - cappedExp((alpha - 1) * b)) * (beta / (alpha - 1)),
      ({ a, beta, alpha }) => beta * cappedExpGrad((alpha - 1) * a),
    ),
    simpo: logisticLoss(
      'rates',
      (p) => p.beta * (p.pc / p.lw - p.pr / p.ll) - p.gamma,
      (p) => p.beta / p.lw,
    ),
    cpo: pairLoss(
      'policy',
      (p) => -ls(p.beta * (p.pc - p.pr)) - (p.alpha * p.pc) / p.lw,
      (p) => -p.beta * sigma(-p.beta * (p.pc - p.pr)) - p.alpha / p.lw,
      { score: (p) => p.beta * (p.pc - p.pr) },
    ),
    orpo: pairLoss(
      'rates',
      (p) => -p.pc / p.lw - p.lambda * ls(pairLogOdds(p)),
      (p) =>
        (-1 - p.lambda * sigma(-pairLogOdds(p)) * (1 - logOneMinusExpGrad(p.pc / p.lw))) / p.lw,
      { score: (p) => pairLogOdds(p) },
    ),
    kto: pairLoss(
      'ab',
      (p) => 1 - (sigma(p.beta * (p.a - p.kl)) + sigma(p.beta * (p.kl - p.b))) / 2,
      (p) => -0.5 * p.beta * bump(p.beta * (p.a - p.kl)),
    ),
  };

  const ascendingOrder = (values) =>
    Uint32Array.from(values.keys()).sort((i, j) => values[i] - values[j]);

  // The difference at each rank of the two sorted sides, and the pair of the chosen reply at that
  // rank. Beta does not change it, and the numbers of one `data` are fixed, so it is cached.
  const ranked = new WeakMap();
  function atRank(name, data) {
    if (!ranked.has(data)) ranked.set(data, {});
    return (ranked.get(data)[name] ??= rank(name, data));
  }

  function rank(name, { a, b, pc, pr }) {
    if (name === 'aot_unpaired') {
      const order = ascendingOrder(a);
      const other = Float64Array.from(b).sort();
      return { order, difference: Float64Array.from(order, (pair, k) => a[pair] - other[k]) };
    }
    const policy = Float64Array.from(a, (_, i) => pc[i] - pr[i]);
    const reference = policy.map((m, i) => m - a[i] + b[i]).sort();
    const order = ascendingOrder(policy);
    return {
      order,
      difference: Float64Array.from(order, (pair, k) => policy[pair] - reference[k]),
    };
  }

  const lossOf = (name) => {
    if (!Object.hasOwn(LOSSES, name)) throw new Error(`unknown loss: ${name}`);
    return LOSSES[name];
  };

  /** Returns losses (AOT: by rank), |dL/dlog π(chosen)| of each pair, and scores (AOT: by rank). */
  function evaluate(name, settings, beta, data) {
    const n = data.a.length;
    const [losses, weights, scores] = [
      new Float64Array(n),
      new Float64Array(n),
      new Float64Array(n),
    ];
    const rule = lossOf(name);
    if (rule.uses === 'sorted') {
      const { order, difference } = atRank(name, data);
      for (let k = 0; k < n; k++) {
        scores[k] = beta * difference[k];
        losses[k] = smoothed(scores[k], settings.label_smoothing);
        weights[order[k]] = Math.abs(beta * smoothedGrad(scores[k], settings.label_smoothing));
      }
      return { losses, weights, scores };
    }
    const p = { ...settings, beta, half: 0.5 / beta };
    for (let i = 0; i < n; i++) {
      fill(p, data.a[i], data.b[i], data.pc[i], data.pr[i], data.lw[i], data.ll[i]);
      losses[i] = rule.value(p);
      weights[i] = Math.abs(rule.grad(p));
      scores[i] = rule.score(p);
    }
    return { losses, weights, scores };
  }

  // Fills one object: an object for each pair would be 10,000 at each move of a slider.
  function fill(p, a, b, pc, pr, lw, ll) {
    [p.a, p.b, p.x] = [a, b, p.beta * (a - b)];
    [p.pc, p.pr, p.lw, p.ll] = [pc, pr, lw, ll];
  }

  /** Returns the loss of each pair in the order of `PreferenceLoss::losses`; for AOT, by rank. */
  hhalign.losses = (name, settings, beta, data) => evaluate(name, settings, beta, data).losses;
  /** Returns |dL/dlog π(chosen)| of each pair, in order, before the mean over the batch. */
  hhalign.gradientWeights = (name, settings, beta, data) =>
    evaluate(name, settings, beta, data).weights;

  // Returns the loss as a function of one number; NOTES explains the conventions to the reader.
  function curve(name, settings, beta, view) {
    const rule = lossOf(name);
    const p = { ...settings, beta, half: 0.5 / beta };
    return (d) => {
      if (rule.uses === 'sorted') return smoothed(beta * d, settings.label_smoothing);
      const [w, l] =
        rule.uses === 'rates' ? [view.rate + d / 2, view.rate - d / 2] : [view.chosenRate, 0];
      const pc = Math.min(0, w) * view.lw;
      fill(
        p,
        d / 2,
        -d / 2,
        pc,
        rule.uses === 'rates' ? Math.min(0, l) * view.ll : pc - d,
        view.lw,
        view.ll,
      );
      return rule.value(p);
    };
  }

  const NOTES = {
    D: () => 'This loss depends on a pair only through D.',
    ab: () =>
      'This loss depends on a and b separately. The curve assumes a = D/2 and b = −D/2; ' +
      'the squares are means over the actual pairs near each D.',
    tokens: (v) =>
      'This loss divides by the lengths. ' +
      'The curve assumes a = D/2, b = −D/2 and the mean lengths ' +
      `(${v.lw.toFixed(1)} and ${v.ll.toFixed(1)} tokens); ` +
      'the squares are means over the actual pairs near each D.',
    policy: (v) =>
      'This loss has no reference model. ' +
      'The curve assumes the mean log π per token of the chosen ' +
      `replies (${hhalign.number(v.chosenRate)}); the squares are means over the actual pairs.`,
    rates: (v) =>
      'This loss has no reference model and divides by the lengths. The curve assumes the mean ' +
      `log π per token of all replies (${hhalign.number(v.rate)}); ` +
      'the squares are means over the actual pairs.',
    sorted: () =>
      'AOT compares sorted values: the k-th smallest of one side with the k-th smallest of the ' +
      'other, with all pairs in one batch. Each difference belongs to a rank, not to a pair.',
  };
  // The value in the histogram and the x axis of the loss curve, by loss or by what the loss uses.
  const SCORE = {
    tokens: 'β · margin per token',
    sorted: 'β · difference at each rank',
    simpo: 'β · margin of log π per token − γ',
    cpo: 'β · margin of log π',
    orpo: 'log odds ratio',
    forward_kl: 'β (e^−b − e^−a)',
    js_divergence: 'β (ls(a) − ls(b))',
    alpha_divergence: 'β · difference of the scores of a and b',
  };
  const AXIS = {
    policy: ['the margin of log π', 'log π(chosen) − log π(rejected)'],
    rates: ['the margin of log π per token', 'log π(chosen)/Lw − log π(rejected)/Ll'],
    sorted: ['the difference at each rank', 'difference at equal rank'],
  };
  const SETTING = { tau: 'τ', gamma: 'γ', alpha: 'α', lambda: 'λ', kl: 'z', label_smoothing: 'ε' };

  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const share = (n, test) => {
    let found = 0;
    for (let i = 0; i < n; i++) found += test(i);
    return found / n;
  };
  const quantile = (sorted, q) =>
    sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  // Returns every k-th value, sorted; that suffices for the ends of an axis.
  function sample(values) {
    const step = Math.ceil(values.length / 2000);
    return Float64Array.from(
      { length: Math.ceil(values.length / step) },
      (_, i) => values[i * step],
    ).sort();
  }

  // Returns everything that does not depend on the controls.
  function overview(data) {
    const { a, b, pc, pr, lw, ll } = data;
    const [chosenRate, rejectedRate] = [
      mean(pc.map((v, i) => v / lw[i])),
      mean(pr.map((v, i) => v / ll[i])),
    ];
    const n = a.length;
    const d = Float64Array.from(a, (v, i) => v - b[i]);
    const corner = (left, up) => share(n, (i) => a[i] < 0 === left && b[i] >= 0 === up);
    return {
      n,
      d,
      policy: Float64Array.from(pc, (v, i) => v - pr[i]),
      lw: mean(lw),
      ll: mean(ll),
      rate: (chosenRate + rejectedRate) / 2,
      chosenRate,
      rates: Float64Array.from(pc, (v, i) => v / lw[i] - pr[i] / ll[i]),
      accuracy: share(n, (i) => (d[i] > 0 ? 1 : d[i] === 0 ? 0.5 : 0)),
      fell: share(n, (i) => a[i] < 0),
      fellYetAhead: share(n, (i) => a[i] < 0 && d[i] > 0),
      corners: [
        [true, true],
        [false, true],
        [true, false],
        [false, false],
      ].map(
        ([left, up]) =>
          `a ${left ? '<' : '≥'} 0, b ${up ? '≥' : '<'} 0: ${hhalign.percent(corner(left, up))}`,
      ),
    };
  }

  // The axis grows in round steps, so that a change of beta moves the bars and not only the ticks.
  function roundSpan(values) {
    const reach = quantile(sample(values.map(Math.abs)), 0.99) * 1.02 || 1;
    const power = 10 ** Math.floor(Math.log10(reach));
    const span = [1, 2, 5, 10].find((m) => m * power >= reach) * power;
    return [-span, span];
  }

  const levelName = (v) =>
    Math.abs(v - Math.LN2) < 1e-9
      ? 'ln 2'
      : Math.abs(v - 2 * Math.LN2) < 1e-9
        ? '2 ln 2'
        : hhalign.number(v, 4);

  let labs = 0;

  /** Fills `root` with the lab; `hhalign::lab` writes `data`. */
  hhalign.betaLab = (root, data) => {
    root.classList.add('hhalign');
    // Otherwise JupyterLab would treat arrow keys on a slider as moves between cells.
    root.dataset.lmSuppressShortcuts = 'true';
    const known = data.losses.filter((l) => Object.hasOwn(LOSSES, l.name));
    if (!data.a.length || !known.length) {
      root.textContent = 'There are no pairs to score.';
      return;
    }
    const view = overview(data);
    const state = { beta: data.beta, loss: known[0], smoothing: 0 };
    const [low, high] = [Math.min(0.01, data.beta), Math.max(5, data.beta)].map(Math.log10);
    const id = `hh-lab-${labs++}-${Math.random().toString(36).slice(2, 8)}`;
    root.innerHTML = `
      <p class="hh-warning">This re-scores <b>fixed weights</b> at another β.
        It is not the curve of a model trained at that β.</p>
      <div class="hh-controls">
        <div class="hh-control">
          <label><span class="hh-name"><span>β</span><span data-is="beta"></span></span>
            <input type="range" aria-label="beta" data-is="slider"
              min="${low}" max="${high}" step="0.001"></label>
          <div class="hh-row"><button type="button" data-is="trained">As trained</button>
            <span class="hh-small">β ${hhalign.number(data.beta)},
              ${hhalign.escape(data.loss)}</span></div>
        </div>
        <div class="hh-control">
          <label><span class="hh-name"><span>Label smoothing ε</span>
              <span data-is="epsilon"></span></span>
            <input type="range" aria-label="label smoothing" data-is="smoothing"
              min="0" max="0.49" step="0.001" aria-describedby="${id}"></label>
          <p class="hh-small" id="${id}" data-is="reason"></p>
        </div>
        <div class="hh-control">
          <label><span class="hh-name">Loss</span><select data-is="loss">${known
            .map(
              (l) =>
                `<option value="${hhalign.escape(l.name)}">${hhalign.escape(l.title)}</option>`,
            )
            .join('')}</select></label>
        </div>
      </div>
      <p class="hh-formula" data-is="formula"></p>
      <div class="hh-numbers" data-is="numbers"></div>
      <div class="hh-grid hh-two">${['curve', 'margins', 'weights', 'pairs']
        .map(
          (c) =>
            `<div class="hh-cell"><figure class="hh-chart" data-is="${c}"></figure>` +
            `<p class="hh-small" data-is="${c}Note"></p></div>`,
        )
        .join('')}</div>
      <p class="hh-small">${hhalign.escape(data.note)}</p>`;
    const part = Object.fromEntries(
      [...root.querySelectorAll('[data-is]')].map((e) => [e.dataset.is, e]),
    );

    const chooseLoss = (loss) => {
      state.loss = loss;
      const own = loss.settings.label_smoothing;
      state.smoothing = own ?? 0;
      part.loss.value = loss.name;
      part.smoothing.disabled = own === undefined;
      // EXO takes the logarithm of ε.
      part.smoothing.min = loss.name === 'exo_pair' ? 0.001 : 0;
      part.smoothing.value = state.smoothing;
      part.reason.textContent =
        own === undefined
          ? 'This loss assumes that every label is right; cdpo, robust, exo_pair and aot have an ε.'
          : 'The share of labels assumed to be flipped.';
    };
    const chooseBeta = (beta) => {
      state.beta = beta;
      part.slider.value = Math.log10(beta);
    };

    const redraw = () => {
      const start = performance.now();
      draw(part, data, view, state);
      root.dataset.redrawMs = (performance.now() - start).toFixed(2);
    };
    let waiting = false;
    const schedule = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        redraw();
      });
    };
    const on = (name, event, act) =>
      part[name].addEventListener(event, () => {
        act();
        schedule();
      });
    on('slider', 'input', () => (state.beta = 10 ** Number(part.slider.value)));
    on('smoothing', 'input', () => (state.smoothing = Number(part.smoothing.value)));
    on('loss', 'change', () => chooseLoss(known.find((l) => l.name === part.loss.value)));
    const asTrained = () => {
      chooseBeta(data.beta);
      chooseLoss(known.find((l) => l.name === data.loss) ?? known[0]);
    };
    on('trained', 'click', asTrained);
    asTrained();
    redraw();
    hhalign.follow(root, schedule);
  };

  function draw(part, data, view, { beta, loss, smoothing }) {
    const { number, percent, escape } = hhalign;
    const settings =
      'label_smoothing' in loss.settings
        ? { ...loss.settings, label_smoothing: smoothing }
        : loss.settings;
    // Reads all widths before it writes anything: otherwise every chart would force a new layout.
    const width = Object.fromEntries(
      ['curve', 'margins', 'weights', 'pairs'].map((c) => [c, part[c].clientWidth]),
    );
    const { uses, target: targetOf } = lossOf(loss.name);
    const { losses, weights, scores } = evaluate(loss.name, settings, beta, data);
    const descending = weights.slice().sort().reverse();
    const tenth = Math.ceil(view.n / 10);
    const total = weights.reduce((sum, w) => sum + w, 0);

    part.beta.textContent = number(beta);
    part.slider.setAttribute('aria-valuetext', `beta ${number(beta)}`);
    part.epsilon.textContent = part.smoothing.disabled ? 'none' : number(smoothing);
    const values = Object.entries(settings)
      .map(([k, v]) => `${SETTING[k] ?? k} = ${number(v)}`)
      .join(', ');
    part.formula.textContent = `${loss.formula}${values ? `, ${values}` : ''}`;
    part.numbers.innerHTML = [
      [number(mean(losses), 5), `mean loss (${escape(loss.name)}, β ${number(beta)})`],
      [
        percent(view.accuracy),
        'reward accuracy: D\u00a0>\u00a00, ties one half. ' +
          'It is the same at every β, since the weights are fixed',
      ],
      [
        percent(view.fell),
        'of the chosen replies are less likely than under the reference (a\u00a0&lt;\u00a00)',
      ],
      [number(total / view.n), 'mean gradient weight |\u2060∂loss\u2060/\u2060∂log π(chosen)|'],
      [view.n.toLocaleString('en'), 'pairs'],
    ]
      .map(([value, text]) => `<div class="hh-number"><b>${value}</b><span>${text}</span></div>`)
      .join('');

    drawCurve(part, view, { uses, loss, settings, beta, losses, scores, width: width.curve });
    const target = targetOf?.({ ...settings, beta });
    drawMargins(part, { name: loss.name, uses, scores, target, width: width.margins });
    drawWeights(part, view, { weights, descending, tenth, total, width: width.weights });
    drawPairs(part, data, view, { weights, threshold: descending[tenth - 1], width: width.pairs });
  }

  function drawCurve(part, view, { uses, loss, settings, beta, losses, scores, width }) {
    const xs = uses === 'sorted' ? scores.map((v) => v / beta) : (view[uses] ?? view.d);
    const [over, x] = AXIS[uses] ?? ['D', 'D = a − b'];
    const sorted = sample(xs);
    const xRange = hhalign.range([quantile(sorted, 0.005), quantile(sorted, 0.995), 0]);
    const at = curve(loss.name, settings, beta, view);
    const points = Array.from({ length: 161 }, (_, i) => {
      const d = xRange[0] + ((xRange[1] - xRange[0]) * i) / 160;
      return [d, at(d)];
    });
    const series = [{ name: 'loss', points }];
    // Exponential scores put the curve's ends far above any pair, so the axis follows the pairs.
    let tops = points.map((p) => p[1]);
    if (uses !== 'D' && uses !== 'sorted') {
      const squares = binMeans(xs, losses, xRange, 24);
      series.push({ name: 'mean of the pairs', points: squares, join: false });
      const floor = Math.min(...tops);
      const cap = floor + 3 * (quantile(sample(losses), 0.98) - floor);
      tops = [...tops, ...squares.map((point) => point[1])].filter((y) => y <= cap);
    }
    const level =
      uses === 'policy' || uses === 'rates'
        ? undefined
        : { y: at(0), text: `policy = reference: ${levelName(at(0))}` };
    hhalign.lineChart(part.curve, {
      title: `The loss over ${over}`,
      x,
      y: 'loss',
      series,
      level,
      xRange,
      width,
      yRange: hhalign.range([...tops, ...(level ? [level.y] : [])], 0.08),
      strip: {
        values: xs,
        name: uses === 'sorted' ? 'where the ranks are' : 'where the pairs are',
      },
    });
    part.curveNote.textContent = NOTES[uses](view);
  }

  function binMeans(xs, ys, [low, high], bins) {
    const [sums, found] = [new Float64Array(bins), new Float64Array(bins)];
    for (let i = 0; i < xs.length; i++) {
      const bin = Math.floor(((xs[i] - low) / (high - low)) * bins);
      if (bin < 0 || bin >= bins) continue;
      sums[bin] += ys[i];
      found[bin]++;
    }
    return [...sums.keys()]
      .filter((k) => found[k])
      .map((k) => [low + ((k + 0.5) * (high - low)) / bins, sums[k] / found[k]]);
  }

  function drawMargins(part, { name, uses, scores, target, width }) {
    const range = roundSpan(scores);
    const inside = target > range[0] && target < range[1];
    const x = SCORE[name] ?? SCORE[uses] ?? 'βD';
    const above = hhalign.percent(share(scores.length, (i) => scores[i] > 0));
    hhalign.histogram(part.margins, {
      title: 'Reward margins',
      height: 224,
      x,
      y: 'share of the pairs',
      values: scores,
      range,
      width,
      name: uses === 'sorted' ? 'ranks' : 'pairs',
      colour: 2,
      marks: [
        { x: 0, text: '' },
        ...(inside ? [{ x: target, text: `target ${hhalign.number(target)}` }] : []),
      ],
      label: `Histogram of ${x}: ${above} of the values are above 0.`,
    });
    const aim = !Number.isFinite(target)
      ? 'This loss has no target margin.'
      : `The target margin is ${hhalign.number(target)}${inside ? '' : ', outside this plot'}.`;
    part.marginsNote.textContent =
      'Left of the dotted line at 0 the rejected side is ahead. ' +
      `${aim} The end bars include all values beyond them.`;
  }

  function drawWeights(part, view, { weights, descending, tenth, total, width }) {
    // Points are denser at the ends, where the curve is steep.
    const bend = (t) => t * t * (3 - 2 * t);
    const points = Array.from({ length: 150 }, (_, k) => [
      bend(k / 149),
      quantile(descending, bend(k / 149)),
    ]);
    const carried =
      total > 0 ? descending.subarray(0, tenth).reduce((sum, w) => sum + w, 0) / total : 0;
    hhalign.lineChart(part.weights, {
      title: 'Which pairs have the largest gradient',
      height: 270,
      x: 'pairs, from the largest weight to the smallest',
      xFormat: 'percent',
      y: '|∂loss/∂log π(chosen)|',
      width,
      series: [{ name: 'weight of a pair', points, colour: 1 }],
      level: { y: total / view.n, text: 'mean' },
      marks: [
        { x: tenth / view.n, text: `top tenth: ${hhalign.percent(carried)} of the total` },
      ],
      xRange: [0, 1],
      yRange: hhalign.range([0, descending[0], descending[0] * 1.04], 0),
    });
    const strongest = largest(weights, 3).map(
      (i) =>
        `${i} (D\u00a0${hhalign.number(view.d[i])}, weight\u00a0${hhalign.number(weights[i])})`,
    );
    part.weightsNote.textContent =
      'Before the mean over the batch. ' +
      `The largest, as pair numbers from 0: ${strongest.join(', ')}.`;
  }

  // Returns the indices of the `count` largest weights, largest first.
  function largest(weights, count) {
    const found = [];
    for (let i = 0; i < weights.length; i++) {
      if (found.length === count && weights[i] <= weights[found[count - 1]]) continue;
      const rank = found.findIndex((j) => weights[i] > weights[j]);
      found.splice(rank < 0 ? found.length : rank, 0, i);
      found.length = Math.min(found.length, count);
    }
    return found;
  }

  function drawPairs(part, data, view, { weights, threshold, width }) {
    // If many pairs have the same weight, as with the hinge loss, no tenth of them is marked.
    const isMarked = threshold > 0 && share(view.n, (i) => weights[i] >= threshold) <= 0.2;
    hhalign.scatter(part.pairs, {
      title: 'How the replies moved',
      x: 'a = log π − log ref of the chosen reply',
      y: 'b = log π − log ref of the rejected reply',
      xs: data.a,
      ys: data.b,
      name: 'pair',
      corners: view.corners,
      width,
      diagonal: 'D = 0',
      strong: isMarked
        ? { pick: (i) => weights[i] >= threshold, name: 'top tenth by gradient weight' }
        : undefined,
      label: `Every pair by a and b. ${view.corners.join('; ')}.`,
    });
    const [fell, ahead] = [hhalign.percent(view.fell), hhalign.percent(view.fellYetAhead)];
    part.pairsNote.textContent =
      `In ${fell} of the pairs the chosen reply is less likely than under the reference. ` +
      `In ${ahead} it is, and D is still positive, since the rejected reply fell further.` +
      (isMarked ? '' : ' Too many pairs have the same weight to mark the top tenth.');
  }
})();
