// Small charts for notebook outputs and pages: lines and bars as SVG, many points on a canvas.
// A function that adds to one global object, since several outputs of a notebook may inline it.
(() => {
  'use strict';
  const hhalign = (globalThis.hhalign ??= {});

  // Each variable has a fallback value, so that a chart also shows without the style sheet.
  const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9'].map(
    (hex, i) => `var(--hh-c${i + 1},${hex})`,
  );
  const DASHES = ['', '8 3', '2 3', '8 3 2 3', '5 2'];
  const INK = 'var(--hh-ink,currentColor)';
  const GRID = 'var(--hh-grid,#88888840)';
  const ROW = 16;
  // A curve with more points than this is drawn as segments with mean and range.
  const MAX_POINTS = 320;

  const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

  /** Formats a number with `digits` significant digits, no trailing zeros and a true minus sign. */
  function number(value, digits = 3) {
    if (!Number.isFinite(value)) return '–';
    const size = Math.abs(value);
    const plain = size === 0 || (size >= 1e-4 && size < 1e6);
    const text = plain
      ? String(size >= 10 ** digits ? Math.round(value) : Number(value.toPrecision(digits)))
      : value.toExponential(digits - 1);
    return text.replace('e+', 'e').replace(/-/g, '−');
  }

  /** Formats a share as per cent with one decimal. */
  const percent = (share) => (Number.isFinite(share) ? `${(share * 100).toFixed(1)}%` : '–');

  let measure;
  function textWidth(text) {
    measure ??= document.createElement('canvas').getContext('2d');
    measure.font = '12px system-ui, sans-serif';
    // Fonts differ from page to page, so a margin prevents clipped labels.
    return measure.measureText(text).width * 1.08 + 1;
  }

  /** Returns the finite range of values with a margin, also if there are none or all are equal. */
  function range(values, margin = 0.05) {
    let [low, high] = [Infinity, -Infinity];
    for (const v of values) {
      if (!Number.isFinite(v)) continue;
      if (v < low) low = v;
      if (v > high) high = v;
    }
    if (low > high) return [0, 1];
    // Values that differ by rounding only are shown as one level.
    const pad =
      high - low > Math.abs(low) * 1e-3 ? (high - low) * margin : Math.abs(low) * 0.05 || 0.5;
    return [low - pad, high + pad];
  }

  function tickText(value, step, format) {
    if (format === 'percent')
      return `${(value * 100).toFixed(Math.max(0, -Math.floor(Math.log10(step * 100) + 1e-9)))}%`;
    const size = Math.abs(value);
    let text;
    if (size >= 1e9 || (step < 1e-6 && value !== 0)) text = value.toExponential(1);
    else if (size >= 1e6) text = `${Number((value / 1e6).toPrecision(4))}M`;
    else if (size >= 1e4) text = `${Number((value / 1e3).toPrecision(4))}k`;
    else text = value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    return text.replace(/-/g, '−');
  }

  /** Returns round tick positions and their texts. `format` is undefined, 'whole' or 'percent'. */
  function ticks([low, high], count, format) {
    const raw = (high - low) / Math.max(1, count);
    const power = 10 ** Math.floor(Math.log10(raw));
    let step = [1, 2, 5, 10].find((m) => m * power >= raw * 0.999) * power;
    if (format === 'whole') step = Math.max(1, step);
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) {
      found.push({ at: k * step, text: tickText(k * step, step, format) });
    }
    return found;
  }

  /** Divides a long curve into segments [x, mean, lowest, highest], which keep every spike. */
  function segments(points, count = 140) {
    return Array.from({ length: count }, (_, k) => {
      const part = points.slice(
        Math.floor((k * points.length) / count),
        Math.floor(((k + 1) * points.length) / count),
      );
      const ys = part.map((p) => p[1]);
      const middle = (k) => part.reduce((sum, p) => sum + p[k], 0) / part.length;
      return [middle(0), middle(1), Math.min(...ys), Math.max(...ys)];
    });
  }

  /** Returns axes, grid, marks, texts and scales. The plot gets the space that the texts leave. */
  function frame(spec) {
    const width = Math.max(220, Math.round(spec.width));
    const yTicks = ticks(spec.yRange, Math.max(3, Math.round(spec.height / 40)), spec.yFormat);
    const left = Math.ceil(Math.max(24, ...yTicks.map((t) => textWidth(t.text)))) + 7;
    const rough = ticks(spec.xRange, (width - left) / 64, spec.xFormat);
    const right = Math.ceil(Math.max(8, ...rough.map((t) => textWidth(t.text) / 2))) + 3;
    const plotWidth = width - left - right;
    const sx = (v) => ((v - spec.xRange[0]) / (spec.xRange[1] - spec.xRange[0])) * plotWidth;
    const xTicks = ticks(spec.xRange, plotWidth / 64, spec.xFormat);

    const marks = placeMarks(spec.marks ?? [], sx, plotWidth);
    const rows = Math.max(0, ...marks.map((m) => m.row + 1));
    const top = ROW + 7 + rows * ROW + (spec.above ? ROW : 0);
    const strip = spec.strip ? 34 : 0;
    const bottom = strip + 19 + 17 + (spec.below ? ROW : 0);
    const plotHeight = spec.height;
    const height = top + plotHeight + bottom;
    const sy = (v) =>
      plotHeight - ((v - spec.yRange[0]) / (spec.yRange[1] - spec.yRange[0])) * plotHeight;

    const parts = [];
    const text = (x, y, anchor, words) =>
      parts.push(
        `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" ` +
          `style="fill:${INK}" font-size="12">${escape(words)}</text>`,
      );
    const rule = (x1, y1, x2, y2, style) =>
      parts.push(
        `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" ` +
          `x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" style="${style}"/>`,
      );
    const base = top + plotHeight;
    text(0, 11, 'start', spec.y ?? '');
    for (const t of yTicks) {
      rule(left, top + sy(t.at), left + plotWidth, top + sy(t.at), `stroke:${GRID}`);
      text(left - 6, top + sy(t.at) + 4, 'end', t.text);
    }
    rule(left, base, left + plotWidth, base, `stroke:${INK}`);
    rule(left, top, left, base, `stroke:${INK}`);
    for (const t of xTicks) {
      rule(left + sx(t.at), base + strip, left + sx(t.at), base + strip + 4, `stroke:${INK}`);
      text(left + sx(t.at), base + strip + 17, 'middle', t.text);
    }
    text(left + plotWidth / 2, base + strip + 33, 'middle', spec.x ?? '');
    for (const m of marks) {
      const rowTop = ROW + 7 + Math.max(0, m.row) * ROW;
      const lineTop = m.row < 0 || m.crossed ? top : rowTop;
      rule(
        left + m.px,
        lineTop,
        left + m.px,
        base,
        `stroke:${INK};stroke-width:1.2;stroke-dasharray:1 3`,
      );
      if (m.row >= 0) text(left + m.start, rowTop + 11, 'start', m.text);
    }
    for (const [words, y] of [
      [spec.above, top - 5],
      [spec.below, height - 3],
    ]) {
      if (!words) continue;
      text(left, y, 'start', words[0]);
      text(left + plotWidth, y, 'end', words[1]);
    }
    return { width, height, left, top, plotWidth, plotHeight, strip, base, sx, sy, parts };
  }

  // Puts the texts of neighbouring marks into separate rows; without a free row a text is left out.
  function placeMarks(marks, sx, plotWidth) {
    const rows = [-Infinity, -Infinity, -Infinity];
    const inside = marks
      .map((m) => ({ text: m.text, px: sx(m.x) }))
      .filter((m) => m.px >= -1 && m.px <= plotWidth + 1);
    return inside
      .sort((p, q) => p.px - q.px)
      .map((m) => {
        const wide = textWidth(m.text);
        // The text is on the right of its line, or on the left, or wherever it fits.
        const start =
          m.px + 4 + wide <= plotWidth
            ? m.px + 4
            : m.px - 4 - wide >= 0
              ? m.px - 4 - wide
              : Math.max(0, plotWidth - wide);
        const row = m.text ? rows.findIndex((taken) => start >= taken) : -1;
        if (row >= 0) rows[row] = start + wide + 8;
        return { ...m, start, row, crossed: start < m.px && start + wide > m.px };
      });
  }

  const svg = (f, label, body) =>
    `<svg role="img" aria-label="${escape(label)}" viewBox="0 0 ${f.width} ${f.height}" ` +
    `width="${f.width}" height="${f.height}" ` +
    'style="max-width:100%;height:auto;font-variant-numeric:tabular-nums">' +
    `${f.parts.join('')}${body}</svg>`;

  // Clips to the plot by a nested svg: a clip path needs an id, which two outputs might share.
  const clipped = (f, body) =>
    `<svg x="${f.left}" y="${f.top}" width="${f.plotWidth}" height="${f.plotHeight}" ` +
    `viewBox="0 0 ${f.plotWidth} ${f.plotHeight}">${body}</svg>`;

  const MARKERS = [
    (x, y) => `M${x - 3.2} ${y}a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z`,
    (x, y) => `M${x - 3} ${y - 3}h6v6h-6z`,
    (x, y) => `M${x} ${y - 4}l4 7h-8z`,
    (x, y) => `M${x} ${y - 4.2}l4.2 4.2l-4.2 4.2l-4.2 -4.2z`,
  ];

  /** Returns the path through points in pixels, broken at missing values. */
  function path(points) {
    let d = '';
    let open = false;
    for (const [x, y] of points) {
      const known = Number.isFinite(x) && Number.isFinite(y);
      if (known)
        d += `${open ? 'L' : 'M'}${x.toFixed(1)} ${Math.max(-1e4, Math.min(1e4, y)).toFixed(1)}`;
      open = known;
    }
    return d;
  }

  function seriesShape(series, i, points) {
    const colour = COLOURS[(series.colour ?? i) % COLOURS.length];
    const dash = series.dash ?? DASHES[i % DASHES.length];
    const dashes = dash ? `;stroke-dasharray:${dash}` : '';
    const stroke = `stroke:${colour};stroke-width:${series.thin ? 1.4 : 2}${dashes}`;
    const line =
      series.join === false
        ? ''
        : `<path d="${path(points)}" style="fill:none;${stroke}"/>`;
    // A single point has no visible line; too many markers would hide theirs.
    const every = series.join === false ? 1 : Math.ceil(points.length / 25);
    const dots =
      series.markers || series.join === false || points.length === 1
        ? points.filter((_, k) => k % every === 0)
        : [];
    const marker = MARKERS[i % MARKERS.length];
    const d = dots
      .filter((p) => Number.isFinite(p[1]))
      .map(([x, y]) => marker(Number(x.toFixed(1)), Number(y.toFixed(1))))
      .join('');
    return line + (d ? `<path d="${d}" style="fill:${colour}"/>` : '');
  }

  function plotted(series, i, f) {
    const scaled = (p) => [f.sx(p[0]), f.sy(p[1])];
    if (series.points.length <= MAX_POINTS || series.markers)
      return seriesShape(series, i, series.points.map(scaled));
    const parts = segments(series.points);
    const around = [
      ...parts.map((p) => scaled([p[0], p[3]])),
      ...parts.map((p) => scaled([p[0], p[2]])).reverse(),
    ];
    const colour = COLOURS[(series.colour ?? i) % COLOURS.length];
    const band = `<path d="${path(around)}z" style="fill:${colour};fill-opacity:.28"/>`;
    return band + seriesShape(series, i, parts.map(scaled));
  }

  const key = (shape, name) =>
    '<span class="hh-key" style="margin-right:14px">' +
    '<svg width="26" height="12" viewBox="0 0 26 12" aria-hidden="true" ' +
    `style="display:inline-block">${shape}</svg>${escape(name)}</span>`;
  const levelLine = (x2, y) =>
    `<line x1="0" x2="${x2}" y1="${y}" y2="${y}" ` +
    `style="stroke:${INK};stroke-width:1.2;stroke-dasharray:5 4"/>`;

  /** Puts title, legend and picture into `el`. The legend is above the plot, where no data is. */
  function show(el, spec, legend, picture) {
    const html =
      `<figcaption>${escape(spec.title ?? '')}</figcaption>` +
      `<div class="hh-legend" aria-hidden="true">${legend.join('')}</div>`;
    el.classList.add('hh-chart');
    el.innerHTML = html + picture;
  }

  const widthOf = (el, spec) => spec.width || el.clientWidth || 460;

  /**
   * Draws curves over one x axis.
   * spec: { title, x, y, series: [{ name, points: [[x, y]], markers, thin, dash, join, colour }],
   *   level: { y, text }, marks: [{ x, text }], strip: { values, name },
   *   xRange, yRange, xFormat, yFormat, width, height, label }
   */
  hhalign.lineChart = (el, spec) => {
    const all = spec.series.filter((s) => s.points.length);
    const values = (k) => all.flatMap((s) => s.points.map((p) => p[k]));
    const level = spec.level ? [spec.level.y] : [];
    const full = {
      height: 190,
      xRange: range(values(0), 0.03),
      yRange: range([...values(1), ...level], 0.08),
      ...spec,
      width: widthOf(el, spec),
    };
    const f = frame(full);
    const indexOf = (series) => spec.series.indexOf(series);
    const shapes = all.map((series) => plotted(series, indexOf(series), f)).join('');
    const empty = all.length
      ? ''
      : `<text x="${f.plotWidth / 2}" y="${f.plotHeight / 2}" text-anchor="middle" ` +
        `style="fill:${INK}" font-size="12">no measurements yet</text>`;
    const picture =
      clipped(f, (spec.level ? levelLine(f.plotWidth, f.sy(spec.level.y)) : '') + shapes + empty) +
      stripShape(f, full);
    const legend = all.map((series) => {
      const shape =
        series.join === false
          ? [[13, 6]]
          : series.markers
            ? [
                [4, 6],
                [22, 6],
              ]
            : [
                [0, 6],
                [26, 6],
              ];
      const long = series.points.length > MAX_POINTS && !series.markers;
      return key(
        seriesShape(series, indexOf(series), shape),
        long ? `${series.name}: mean and range` : series.name,
      );
    });
    if (spec.level) legend.push(key(levelLine(26, 6), spec.level.text));
    if (spec.strip)
      legend.push(
        key(
          `<path d="M0 12V8h6V4h7V1h6v6h7v5z" style="fill:${INK};fill-opacity:.55"/>`,
          spec.strip.name,
        ),
      );
    show(el, spec, legend, svg(f, spec.label ?? describe(spec, all), picture));
  };

  function describe(spec, all) {
    const texts = all.map((s) => {
      const [first, last] = [s.points[0], s.points[s.points.length - 1]];
      const from = s.points.length > 1 ? `${number(first[1])} at ${number(first[0], 6)} to ` : '';
      const to = `${number(last[1])} at ${number(last[0], 6)}`;
      return `${s.name}: ${s.points.length} points, ${from}${to}`;
    });
    const level = spec.level ? ` Dashed level at ${number(spec.level.y)}: ${spec.level.text}.` : '';
    const marks = spec.marks?.length
      ? ` Marks: ${spec.marks.map((m) => `${m.text} at ${number(m.x, 6)}`).join('; ')}.`
      : '';
    const points = texts.join('. ') || 'No points yet';
    return `${spec.title}, ${spec.y} against ${spec.x}. ${points}.${level}${marks}`;
  }

  /** Counts the values in each of `bins` bins; the end bins include all values beyond the ends. */
  function counts(values, [low, high], bins) {
    const found = new Float64Array(bins);
    const scale = bins / (high - low);
    for (const v of values)
      if (!Number.isNaN(v)) found[Math.max(0, Math.min(bins - 1, Math.floor((v - low) * scale)))]++;
    return found;
  }

  const steps = (heights, width, base) =>
    [...heights]
      .map((h, i) =>
        h > 0
          ? `M${(i * width).toFixed(1)} ${base.toFixed(1)}v${(-h).toFixed(1)}` +
            `h${Math.max(1, width - 1).toFixed(1)}v${h.toFixed(1)}z`
          : '',
      )
      .join('');

  // Returns the distribution of the data, below the curve and on its x axis.
  function stripShape(f, spec) {
    if (!spec.strip) return '';
    const found = counts(
      spec.strip.values,
      spec.xRange,
      Math.min(120, Math.floor(f.plotWidth / 3)),
    );
    const most = Math.max(1, ...found);
    const d = steps(
      found.map((c) => (c ? Math.max(1.5, (c / most) * 27) : 0)),
      f.plotWidth / found.length,
      0,
    );
    const low = f.base + f.strip;
    const [left, right] = [f.left, f.left + f.plotWidth];
    return (
      `<path transform="translate(${left} ${low})" d="${d}" ` +
      `style="fill:${INK};fill-opacity:.55"/>` +
      `<line x1="${left}" x2="${right}" y1="${low}" y2="${low}" style="stroke:${INK}"/>`
    );
  }

  /**
   * Draws a histogram: shares of the values in bins.
   * spec: { title, x, y, values, range, bins, marks, colour, name, width, height, label }
   */
  hhalign.histogram = (el, spec) => {
    const bins = spec.bins ?? 48;
    const xRange = spec.range ?? range(spec.values, 0.02);
    const found = counts(spec.values, xRange, bins).map((c) => c / Math.max(1, spec.values.length));
    const top = Math.max(...found) || 1;
    const full = {
      height: 190,
      yFormat: 'percent',
      ...spec,
      xRange,
      yRange: [0, top * 1.06],
      width: widthOf(el, spec),
    };
    const f = frame(full);
    const d = steps(
      found.map((c) => f.plotHeight - f.sy(c)),
      f.plotWidth / bins,
      f.plotHeight,
    );
    const colour = COLOURS[spec.colour ?? 0];
    const legend = spec.name
      ? [key(`<path d="M3 1h20v10h-20z" style="fill:${colour};fill-opacity:.8"/>`, spec.name)]
      : [];
    show(
      el,
      spec,
      legend,
      svg(
        f,
        spec.label ?? spec.title,
        clipped(f, `<path d="${d}" style="fill:${colour};fill-opacity:.8"/>`),
      ),
    );
  };

  /**
   * Draws many points on a canvas below axes with quadrant lines at 0.
   * spec: { title, x, y, xs, ys, name, diagonal: text, width, height, label,
   *   corners: [upper left, upper right, lower left, lower right], strong: { pick(i), name } }
   */
  hhalign.scatter = (el, spec) => {
    const full = {
      height: 270,
      xRange: range([...range(spec.xs, 0), 0]),
      yRange: range([...range(spec.ys, 0), 0]),
      ...spec,
      above: spec.corners?.slice(0, 2),
      below: spec.corners?.slice(2),
      width: widthOf(el, spec),
    };
    const f = frame(full);
    const axis = `stroke:${INK};stroke-width:1.2`;
    const lines = [
      `<line x1="${f.sx(0)}" x2="${f.sx(0)}" y1="0" y2="${f.plotHeight}" style="${axis}"/>`,
      `<line x1="0" x2="${f.plotWidth}" y1="${f.sy(0)}" y2="${f.sy(0)}" style="${axis}"/>`,
    ];
    const legend = [key(`<path d="M11 4h4v4h-4z" style="fill:${COLOURS[0]}"/>`, spec.name)];
    if (spec.strong)
      legend.push(
        key(
          `<path d="M9 2l8 8M17 2l-8 8" style="stroke:${COLOURS[1]};stroke-width:2"/>`,
          spec.strong.name,
        ),
      );
    if (spec.diagonal) {
      const ends = full.xRange.map((v) => [f.sx(v), f.sy(v)]);
      lines.push(
        `<path d="${path(ends)}" style="stroke:${INK};stroke-width:1.2;stroke-dasharray:5 4"/>`,
      );
      legend.push(key(levelLine(26, 6), spec.diagonal));
    }
    const picture = svg(f, spec.label ?? spec.title, clipped(f, lines.join('')));
    const canvas = el.querySelector('canvas') ?? document.createElement('canvas');
    show(
      el,
      spec,
      legend,
      `<div class="hh-layers">${picture}</div>`,
    );
    el.querySelector('.hh-layers').prepend(canvas);
    paint(canvas, f, full, getComputedStyle(el));
  };

  function paint(canvas, f, spec, style) {
    const ratio = globalThis.devicePixelRatio || 1;
    canvas.setAttribute('aria-hidden', 'true');
    canvas.width = Math.round(f.plotWidth * ratio);
    canvas.height = Math.round(f.plotHeight * ratio);
    canvas.style.cssText =
      `left:${f.left}px;top:${f.top}px;` + `width:${f.plotWidth}px;height:${f.plotHeight}px`;
    const context = canvas.getContext('2d');
    context.scale(ratio, ratio);
    const colour = (i, fallback) => style.getPropertyValue(`--hh-c${i}`).trim() || fallback;
    const { xs, ys, strong } = spec;
    const [ax, bx] = [f.sx(1) - f.sx(0), f.sx(0)];
    const [ay, by] = [f.sy(1) - f.sy(0), f.sy(0)];
    const side = xs.length > 2000 ? 2 : 3;
    context.fillStyle = colour(1, '#0072b2');
    context.globalAlpha = xs.length > 2000 ? 0.6 : 0.75;
    for (let i = 0; i < xs.length; i++) {
      if (!strong?.pick(i))
        context.fillRect(ax * xs[i] + bx - side / 2, ay * ys[i] + by - side / 2, side, side);
    }
    if (!strong) return;
    context.globalAlpha = 0.9;
    context.strokeStyle = colour(2, '#d55e00');
    context.lineWidth = 1.2;
    context.beginPath();
    for (let i = 0; i < xs.length; i++) {
      if (!strong.pick(i)) continue;
      const [x, y] = [ax * xs[i] + bx, ay * ys[i] + by];
      context.moveTo(x - 2, y - 2);
      context.lineTo(x + 2, y + 2);
      context.moveTo(x + 2, y - 2);
      context.lineTo(x - 2, y + 2);
    }
    context.stroke();
  }

  /** Calls `draw` when the width of `el` or the page's colours change, until `el` is removed. */
  hhalign.follow = (el, draw) => {
    let width = el.clientWidth;
    const changed = () => {
      if (el.isConnected) draw();
    };
    new ResizeObserver(() => {
      if (el.clientWidth !== width) {
        width = el.clientWidth;
        changed();
      }
    }).observe(el);
    const themes = new MutationObserver(() =>
      el.isConnected ? setTimeout(changed, 300) : themes.disconnect(),
    );
    themes.observe(document.body, {
      attributeFilter: ['data-jp-theme-light', 'data-jp-theme-name'],
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
  };

  /** Applies ?theme=dark or ?theme=light to one of our own pages. */
  hhalign.pageTheme = () => {
    const theme = new URLSearchParams(location.search).get('theme');
    if (theme === 'dark' || theme === 'light')
      document.documentElement.classList.add(`hh-${theme}`);
  };

  Object.assign(hhalign, { escape, number, percent, range });
})();
