// A blind choice between two replies. The judgements go to this page's server or, offline, stay in
// this browser.
'use strict';
(() => {
  const PREFERENCES = ['A', 'B', 'tie'];
  const KEYS = {
    1: 'A',
    a: 'A',
    arrowleft: 'A',
    2: 'B',
    b: 'B',
    arrowright: 'B',
    0: 'tie',
    t: 'tie',
    '=': 'tie',
  };
  const NAME = /^[A-Za-z0-9_-]{1,40}$/;
  const FILE = 'pairwise_preferences_for_annotation.csv';
  const PREFIX = 'hhalign-annotate:';
  const AWAY = 'The server cannot be reached. This page keeps trying.';
  const CLICK_HERE = 'Click in this frame to use the keys.';
  const $ = (id) => document.getElementById(id);
  const offline = JSON.parse($('offline').textContent);
  const framed = window !== window.top;
  const local = storage('localStorage');
  const tab = storage('sessionStorage');

  let items = [];
  let mark = ''; // identifies this set of pairs
  let annotator = '';
  let judged = new Map(); // id -> preference of this annotator; a new map at each change
  let history = []; // for undo: {index, before}
  let at = 0;
  let screen = 'start';
  let unsaved = false; // offline: judged since the last CSV
  let trouble = null; // {text, away}: why a read or a write failed
  let [sending, timer, wait] = [false, 0, 1];

  // ---- browser storage ----
  /** Returns a browser storage, or memory if that is forbidden (in a sandboxed frame) or full. */
  function storage(name) {
    const memory = {};
    const self = {
      lasting: true,
      get(key, otherwise) {
        try {
          if (self.lasting) return JSON.parse(window[name].getItem(PREFIX + key)) ?? otherwise;
        } catch {
          /* not our value: treated as missing */
        }
        return memory[key] ?? otherwise;
      },
      set(key, value) {
        memory[key] = value;
        try {
          if (self.lasting) window[name].setItem(PREFIX + key, JSON.stringify(value));
        } catch {
          self.lasting = false;
        }
      },
    };
    self.set('probe', 1);
    return self;
  }

  /** Judgements by "annotator/id": all of them offline, otherwise those not yet on the server. */
  const kept = () => local.get(`${mark}:judgements`, {});

  /** Updates the stored entries, so that two tabs do not overwrite each other. */
  function keep(entry, preference) {
    const entries = { ...kept(), [entry]: preference };
    if (preference === undefined) delete entries[entry];
    local.set(`${mark}:judgements`, entries);
  }

  /** Hashes the texts (FNV-1a): pair ids repeat from set to set, so judgements refer to texts. */
  function fingerprint(list) {
    let hash = 0x811c9dc5;
    for (const c of JSON.stringify(list.map(({ id, prompt, a, b }) => [id, prompt, a, b]))) {
      hash = Math.imul(hash ^ c.codePointAt(0), 0x01000193) >>> 0;
    }
    return `${list.length}-${hash.toString(16)}`;
  }

  // ---- the server ----
  class Away extends Error {}

  async function request(path, body) {
    const options = { cache: 'no-store', signal: AbortSignal.timeout(15000) };
    const headers = { 'Content-Type': 'application/json' };
    if (body)
      Object.assign(options, {
        method: 'POST',
        headers,
        body: JSON.stringify(body),
        keepalive: true,
      });
    const reply = await fetch(path, options).catch(() => {
      throw new Away();
    });
    const data = await reply.json().catch(() => null);
    // A proxy answers for a server that is gone.
    if ([502, 503, 504].includes(reply.status)) throw new Away();
    if (!reply.ok) throw new Error(data?.error ?? `it answered ${reply.status}`);
    if (data === null) throw new Error('its answer is not JSON');
    return data;
  }

  /** Sends judgements that are not stored yet, one at a time; retries later if some are left. */
  async function send() {
    if (offline || sending) return;
    clearTimeout(timer);
    sending = true;
    const refused = new Map();
    const left = () =>
      Object.entries(kept()).find(([entry, preference]) => refused.get(entry) !== preference);
    try {
      // After a failure, the server may have returned with other pairs under the same ids.
      if (trouble?.away && fingerprint((await request('items')).items) !== mark) {
        throw new Error(
          'it now shows other pairs than those you judged. Save the CSV, then reload',
        );
      }
      for (let next = left(); next; next = left()) {
        const [entry, preference] = next;
        const slash = entry.indexOf('/');
        try {
          await request('judge', {
            annotator: entry.slice(0, slash),
            id: entry.slice(slash + 1),
            preference,
          });
          if (kept()[entry] === preference) keep(entry, undefined);
          wait = 1;
        } catch (error) {
          if (error instanceof Away) throw error;
          refused.set(entry, preference); // a refused one does not block the others
          trouble = { text: `The server refused a judgement: ${error.message}.`, away: false };
        }
        update();
      }
      if (!refused.size) trouble = null;
    } catch (error) {
      trouble = {
        text: error instanceof Away ? AWAY : `The server cannot be used: ${error.message}.`,
        away: true,
      };
    }
    sending = false;
    if (trouble) {
      timer = setTimeout(send, wait * 1000);
      wait = Math.min(2 * wait, 15);
    }
    update();
  }

  /** Returns what an annotator has judged so far. */
  async function earlier(name) {
    const before = kept(); // read first: one may be stored before the answer arrives
    const stored = offline ? {} : await request(`judgements?annotator=${encodeURIComponent(name)}`);
    const mine = { ...before, ...kept() };
    const preferences = items.map(({ id }) => [id, mine[`${name}/${id}`] ?? stored[id]]);
    return new Map(preferences.filter(([, p]) => PREFERENCES.includes(p)));
  }

  /** Reads judgements that the same person made in another tab. */
  async function refresh() {
    const seen = judged;
    const fresh = screen !== 'start' && !sending && (await earlier(annotator).catch(() => null));
    if (!fresh || judged !== seen) return; // judged here before the answer arrived
    judged = fresh;
    update();
  }

  // ---- judging and moving ----
  function store(index, preference) {
    const { id } = items[index];
    judged = new Map(judged).set(id, preference);
    if (!preference) judged.delete(id);
    unsaved = Boolean(offline);
    keep(`${annotator}/${id}`, offline && !preference ? undefined : preference);
    send();
  }

  function judge(preference) {
    const before = judged.get(items[at].id) ?? '';
    if (preference !== before) {
      history.push({ index: at, before });
      store(at, preference);
    }
    // A second look goes through the pairs in order; otherwise judged pairs are skipped.
    if (before && at + 1 < items.length) go(at + 1);
    else goUnjudged();
  }

  function undo() {
    const last = history.pop();
    if (!last) return;
    store(last.index, last.before);
    go(last.index);
    $('note').textContent =
      `Pair ${last.index + 1} is ${last.before ? `${last.before} again` : 'open again'}.`;
  }

  /** Returns the first pair without a judgement, from `from` on and round; -1 if there is none. */
  function unjudged(from) {
    const order = items.map((_, i) => (from + i) % items.length);
    return order.find((index) => !judged.has(items[index].id)) ?? -1;
  }

  function goUnjudged(focus = true) {
    const index = unjudged(at + 1);
    if (index >= 0) return go(index, focus);
    at = items.length - 1;
    return show('done', focus);
  }

  function forward() {
    if (at + 1 < items.length) go(at + 1);
    else if (unjudged(0) < 0) show('done');
  }

  const back = () => (screen === 'done' ? go(at) : at > 0 && go(at - 1));

  function go(index, focus = true) {
    at = index;
    const { prompt, a, b } = items[index];
    $('prompt').replaceChildren(...turns(prompt));
    for (const [id, text] of [
      ['a', a],
      ['b', b],
    ]) {
      $(id).textContent = text.trim() || '(an empty reply)';
      $(id).classList.toggle('soft', !text.trim());
    }
    $('heading').textContent = `Pair ${index + 1} of ${items.length}`;
    $('note').textContent = '';
    show('pair', focus);
    for (const id of ['a', 'b']) $(id).scrollTop = 0;
    $('prompt').scrollTop = $('prompt').scrollHeight; // the replies answer the last turn
  }

  /** Returns a dialogue as paragraphs, with speakers in bold. */
  function turns(text) {
    const parts = text.split(/(?:^|\n\n)(Human|Assistant): ?/);
    const paragraphs = [];
    for (let i = 0; i < parts.length; i += 2) {
      const p = document.createElement('p');
      if (i > 0)
        p.append(
          Object.assign(document.createElement('strong'), { textContent: `${parts[i - 1]}: ` }),
        );
      p.append(parts[i].trim());
      if (p.textContent) paragraphs.push(p);
    }
    return paragraphs;
  }

  // ---- the screens ----
  const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;

  function show(name, focus = true) {
    screen = name;
    for (const id of ['start', 'pair', 'done']) $(id).hidden = id !== name;
    $('session').hidden = name === 'start';
    const guideSlot = document.querySelector(`#${name} .guide-here`);
    if (guideSlot && !guideSlot.contains($('guide'))) {
      guideSlot.append($('guide'));
      $('guide').open = name === 'start';
    }
    update();
    // Only after an action here: a frame must not take the notebook's focus when it loads.
    if (focus)
      $({ start: 'name', pair: 'heading', done: 'thanks' }[name]).focus({ preventScroll: framed });
  }

  function update() {
    const [all, done] = [items.length, judged.size];
    const open = offline ? 0 : Object.keys(kept()).length;
    const current = screen === 'pair' ? items[at].id : '';
    Object.assign(document.body.dataset, { judged: done, total: all, current, unsent: open });

    say('progress', `${done} of ${all} judged`);
    $('bar').max = Math.max(all, 1);
    $('bar').value = done;
    $('who').textContent = $('who').title = annotator;
    const next = unjudged(at + 1);
    $('jump').disabled = next < 0 || (screen === 'pair' && next === at);
    $('previous').disabled = at === 0;
    $('next').disabled = at + 1 >= all && next >= 0;
    for (const id of ['undo', 'undo-done']) $(id).disabled = history.length === 0;

    const choice = judged.get(current);
    for (const button of document.querySelectorAll('[data-choice]')) {
      button.setAttribute('aria-pressed', String(button.dataset.choice === choice));
    }
    for (const side of ['A', 'B']) $(`card-${side}`).classList.toggle('chosen', choice === side);
    for (const p of PREFERENCES)
      $(`count-${p}`).textContent = [...judged.values()].filter((v) => v === p).length;
    $('thanks').textContent = `Thank you, ${annotator}.`;
    $('done-text').textContent = `You have judged ${done} of ${plural(all, 'pair')}.`;
    const saved = open ? `${open} not stored yet` : done ? 'All stored' : '';
    for (const id of ['saved', 'done-saved']) $(id).textContent = saved;

    const where = local.lasting ? 'in this browser' : 'only while this page is open';
    let problem = '';
    if (trouble) {
      problem = mark
        ? `${trouble.text} ${plural(open, 'judgement')} not stored yet, but kept ${where}.`
        : trouble.text;
    } else if (offline && !local.lasting) {
      problem =
        'This browser does not let the page store anything: ' +
        'a reload loses your judgements. Save the CSV first.';
    }
    say('problem-text', problem);
    $('problem').hidden = !problem;
    $('retry').hidden = !trouble;
    $('save-problem').hidden = screen === 'start';
  }

  /** Screen readers read a live region at every write, so only real changes are written. */
  function say(id, text) {
    if ($(id).textContent !== text) $(id).textContent = text;
  }

  // ---- the annotator ----
  const known = () => local.get('names', []).filter((name) => NAME.test(name));

  function askName(focus) {
    annotator = '';
    judged = new Map();
    tab.set(`${mark}:annotator`, '');
    const option = (value) => Object.assign(document.createElement('option'), { value });
    $('names').replaceChildren(...known().map(option));
    $('name').value = known()[0] ?? '';
    show('start', focus);
    if (focus) $('name').select();
  }

  async function begin(name, focus = true) {
    let problem = NAME.test(name)
      ? ''
      : 'Please use only letters a to z, digits, - and _, at most 40.';
    $('begin').disabled = true;
    try {
      if (!problem) judged = await earlier(name);
    } catch (error) {
      problem =
        error instanceof Away
          ? 'The server cannot be reached to read your earlier judgements. ' +
            'Please press Start again in a moment.'
          : `The server refused: ${error.message}.`;
    }
    $('begin').disabled = false;
    $('name-error').textContent = problem;
    $('name').setAttribute('aria-invalid', String(Boolean(problem)));
    if (problem) return focus && $('name').focus();
    annotator = name;
    history = [];
    local.set('names', [name, ...known().filter((n) => n !== name)].slice(0, 20));
    tab.set(`${mark}:annotator`, name);
    at = -1; // so that the search begins at the first pair
    return goUnjudged(focus);
  }

  function saveCsv() {
    const quote = (text) =>
      /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    const rows = items.map(({ id, prompt, a, b }) => [id, prompt, a, b, judged.get(id) ?? '']);
    const lines = [['id', 'prompt', 'response_a', 'response_b', 'preference'], ...rows];
    const text = lines.map((cells) => `${cells.map(quote).join(',')}\r\n`).join('');
    const href = URL.createObjectURL(new Blob([text], { type: 'text/csv;charset=utf-8' }));
    Object.assign(document.createElement('a'), { href, download: FILE }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60000);
    unsaved = false;
    for (const id of ['note', 'done-note']) $(id).textContent = `Saved as ${FILE}.`;
  }

  async function open() {
    clearTimeout(timer);
    try {
      const data = offline ?? (await request('items'));
      items = data.items;
      mark = (offline?.key ?? '') + fingerprint(items);
      document.title = data.title || document.title;
      $('title').textContent = $('title').title = document.title;
    } catch (error) {
      trouble = {
        text: error instanceof Away ? AWAY : `The pairs cannot be read: ${error.message}.`,
        away: true,
      };
      timer = setTimeout(open, 5000);
      return update();
    }
    trouble = null;
    $('begin').disabled = items.length === 0;
    if (!items.length) $('name-error').textContent = 'There are no pairs to judge.';
    const resumed = tab.get(`${mark}:annotator`, '');
    askName(!framed && !resumed);
    send();
    return items.length && NAME.test(resumed) && begin(resumed, !framed);
  }

  // ---- input ----
  document.addEventListener('keydown', (event) => {
    if (event.target === $('name') && event.key === 'Enter' && !$('begin').disabled)
      begin($('name').value.trim());
    if (screen === 'start' || event.target === $('name')) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const key = event.key.toLowerCase();
    const once = (act) => event.repeat || act(); // a key that is held down judges one pair
    if (screen === 'pair' && Object.hasOwn(KEYS, key)) once(() => judge(KEYS[key]));
    else if (key === 'u' || key === 'backspace') once(undo);
    else if (key === 'n' && screen === 'pair') forward();
    else if (key === 'p') back();
    else return;
    event.preventDefault();
  });
  for (const button of document.querySelectorAll('[data-choice]')) {
    // The second click of a double click would judge the next pair unread.
    button.addEventListener('click', (event) => event.detail > 1 || judge(button.dataset.choice));
  }
  const clicks = {
    begin: () => begin($('name').value.trim()),
    switch: () => askName(true),
    jump: () => goUnjudged(),
    next: forward,
    previous: back,
    undo,
    'undo-done': undo,
    again: () => go(0),
    retry: () => (mark ? send() : open()),
    'save-top': saveCsv,
    'save-problem': saveCsv,
    'save-done': saveCsv,
  };
  for (const [id, act] of Object.entries(clicks)) $(id).addEventListener('click', act);

  window.addEventListener('online', () => mark && send());
  window.addEventListener('focus', () => {
    if ($('note').textContent === CLICK_HERE) $('note').textContent = '';
    refresh();
  });
  window.addEventListener('blur', () => {
    if (framed) $('note').textContent = CLICK_HERE;
  });
  window.addEventListener('beforeunload', (event) => {
    if (!local.lasting && (unsaved || Number(document.body.dataset.unsent))) event.preventDefault();
  });

  const theme = new URLSearchParams(location.search).get('theme');
  if (theme === 'dark' || theme === 'light') document.documentElement.dataset.theme = theme;
  document.body.classList.toggle('offline', Boolean(offline));
  $('own-tab').hidden = !framed || !location.protocol.startsWith('http');
  $('own-tab').href = location.href;
  open().then(() => framed && !document.hasFocus() && ($('note').textContent = CLICK_HERE));
})();
