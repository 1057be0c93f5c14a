// The page of opencode-gateway: what stands out, conversations, and calls, as they come.
//
// What a client sent is put into the page as text, never as markup. Each list contains one page of
// rows, so that neither memory nor the document grows with the number of calls.

/** How many of the newest items a list keeps. */
const HELD = 100;

/** The least time, in milliseconds, between two requests for the same data. */
const PACE = 1000;

/** The reasons why a call stands out, each with its label and the marks that it covers. */
const REASONS = {
  missed: { label: "No session", marks: ["missing"] },
  moved: { label: "Moved", marks: ["moved"] },
  shared: { label: "Shared", marks: ["shared"] },
  quotes: { label: "Quotes", marks: ["quotes"] },
  malformed: { label: "Doubled or malformed", marks: ["doubled", "malformed"] },
  refused: { label: "Refused", marks: [] },
};

/** What to do about a mark. */
const ADVICE = {
  missing: "Also set x-opencode-session on this call: one id for the whole conversation, "
    + "including its titles, summaries and retries. Go refuses calls without it.",
  moved: "A conversation keeps one id from its first call to its last. Under another id, it may "
    + "reach another provider, where none of its prompt is cached. Only a fork has a new id.",
  shared: "Each conversation needs an id of its own: one id for all of them sends them all to the "
    + "same provider.",
  quotes: "A title or a summary belongs in the session of its conversation. If the text was passed "
    + "on to another conversation, nothing is wrong.",
  doubled: "The gateway reads all the values as one id. If the request already has the header, "
    + "replace it instead of adding another.",
  malformed: "An id has 1 to 128 visible ASCII characters and no space. A UUID works well.",
  process: "Right for a program with one conversation, wrong for a server.",
};

const byId = (id) => document.getElementById(id);
const status = byId("status");

// Values in words

const integer = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const weekday = new Intl.DateTimeFormat("en-GB",
  { weekday: "short", hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

const count = (number, what) =>
  `${integer.format(number)} ${number === 1 ? what : `${what}s`}`;

const standOut = (number) =>
  `${integer.format(number)} ${number === 1 ? "stands" : "stand"} out`;

/** Shown if there is no value. */
const NOTHING = "–";

const percent = (cached, all) => all > 0 ? `${Math.floor(100 * cached / all)} %` : NOTHING;

function money(dollars) {
  if (dollars == null) return NOTHING;
  if (dollars > 0 && dollars < 0.00001) return "<$0.00001";
  // Two significant digits, but at most five decimals.
  const digits = dollars > 0 ? 1 - Math.floor(Math.log10(dollars)) : 2;
  return `$${dollars.toFixed(Math.min(5, Math.max(2, digits)))}`;
}

/** The first id that was shown with each end. */
const ends = new Map();

/** The end of an id, which tells it from others; with its beginning if another has the same end. */
function short(id) {
  if (id.length <= 12) return id;
  const end = `…${id.slice(-8)}`;
  if (!ends.has(end)) {
    if (ends.size >= 10_000) ends.clear();
    ends.set(end, id);
  }
  const first = ends.get(end);
  if (first === id) return end;
  const begin = id.slice(0, 4);
  return first.startsWith(begin) ? id : `${begin}${end}`;
}

const cut = (text, length) => text.length > length ? `${text.slice(0, length)}…` : text;

const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1);

const isRefused = (call) => call.status >= 400 || call.error != null;

/** How far a call is, or how it ended, in words. */
const STATES = {
  waiting: "waiting for an answer",
  streaming: "the answer is coming",
  left: "the client left before the end",
  cut: "cut off",
};

const answer = (call) => {
  const told = [call.status, call.error].filter(Boolean).join(" ");
  return [told, STATES[call.state]].filter(Boolean).join(", ");
};

/** A duration in milliseconds, or nothing. */
function duration(milliseconds) {
  if (milliseconds == null) return NOTHING;
  if (milliseconds < 1000) return `${milliseconds} ms`;
  const seconds = milliseconds / 1000;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds / 60)} min`;
}

/** The client's name, or else what its user agent begins with. */
const clientOf = (call) => call.client ?? call.user_agent?.split(" ")[0] ?? NOTHING;

/** The remarks on a call, with ids as `id` writes them; those that make it stand out come first. */
function remarks(call, id = (whole) => whole) {
  const found = call.marks.map(({ name, reason, from, allowed, proof }) => ({
    proof,
    reason: allowed ? null
      : Object.keys(REASONS).find((key) => REASONS[key].marks.includes(name)),
    label: name === "missing" ? "no session" : name,
    words: sentence(from ? reason.replace(from, () => id(from)) : reason)
      + (allowed ? ", which is allowed" : ""),
    advice: allowed ? null : ADVICE[name],
  }));
  if (call.failure) found.push({ words: `As the gateway was told: ${call.failure}` });
  if (isRefused(call) && call.stands_out) {
    const words = `Refused: ${answer(call)}`;
    found.push({ reason: "refused", label: "refused", words, advice: call.error_message });
  }
  return found.sort((a, b) => Number(!a.reason) - Number(!b.reason));
}


// Elements

/** Makes an element with attributes and children, without those that are null or false. */
function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  const isThere = (value) => value != null && value !== false;
  for (const [name, value] of Object.entries(attributes)) {
    if (isThere(value)) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(isThere));
  return element;
}

/** Makes an element equal to a fresh one, and keeps equal parts, so that the focus stays. */
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, [...fresh.childNodes]);
}

function morphChildren(old, fresh) {
  fresh.forEach((child, index) => {
    const current = old.childNodes[index];
    if (current) morph(current, child);
    else old.append(child);
  });
  while (old.childNodes.length > fresh.length) old.lastChild.remove();
}

function announce(words) {
  status.textContent = words;
}

const callLink = (number, ...words) => h("a", { href: `#/call/${number}` }, ...words);

const conversationLink = (id, ...words) => h("a", { href: `#/conversation/${id}` }, ...words);

const copyButton = (text, what) => h("button",
  { type: "button", class: "copy", "data-copy": text, "aria-label": `Copy ${what}` }, "Copy");

/** The end of an id, after a spot whose colour is the same wherever the id appears. */
function idMark(id) {
  if (!id) return NOTHING;
  let hash = 0;
  for (const unit of id) hash = (hash * 31 + unit.codePointAt(0)) | 0;
  const spot = svg("svg", { class: "spot", viewBox: "0 0 8 8", "aria-hidden": "true" },
    svg("circle", { cx: 4, cy: 4, r: 4, fill: `hsl(${(hash >>> 0) % 360} 55% 50%)` }));
  return h("span", { class: "id", title: cut(id, 200) }, spot, short(id));
}

/** A number with its unit, for where no column heading names it. */
const counted = (number, unit) => [
  integer.format(number), h("span", { class: "unit" }, ` ${unit}${number === 1 ? "" : "s"}`),
];

/** The cached share of the latest calls as a line, the oldest on the left. */
function sparkline(shares, width, height) {
  if (!shares.length) return null;
  const latest = shares.at(-1);
  const percents = [latest, Math.min(...shares), Math.max(...shares)]
    .map((share) => Math.floor(100 * share));
  const step = shares.length > 1 ? (width - 4) / (shares.length - 1) : 0;
  const y = (share) => (height - 2 - share * (height - 4)).toFixed(1);
  const points = shares.map((share, index) => `${(2 + index * step).toFixed(1)},${y(share)}`);
  return svg("svg",
    {
      class: "sparkline", viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `Cached share of the latest ${count(shares.length, "call")}: `
        + `${percents[0]} % now, from ${percents[1]} % to ${percents[2]} %`,
    },
    svg("line", { x1: 2, x2: width - 2, y1: height - 2, y2: height - 2, class: "ground" }),
    svg("polyline", { points: points.join(" ") }),
    svg("circle", { cx: points.at(-1).split(",")[0], cy: y(latest), r: 2 }));
}

function time(at) {
  const when = new Date(at);
  const isToday = when.toDateString() === new Date().toDateString();
  return h("time", { datetime: when.toISOString(), title: date.format(when) },
    isToday ? clock.format(when) : weekday.format(when));
}

/** What stands out in a call, as short labels; its status already shows that it was refused. */
const tags = (call) => remarks(call)
  .filter(({ reason }, index) => reason && (reason !== "refused" || index === 0))
  .map(({ reason, label }) => h("span", { class: `tag ${reason}` }, label));

const answerMark = (call) =>
  h("span", {
    class: isRefused(call) && call.stands_out ? "status bad" : "status",
    title: answer(call) || false,
  }, [
    call.state === "waiting" ? null : call.status,
    ["waiting", "streaming", "left", "cut"].includes(call.state) && call.state,
  ].filter(Boolean).join(" "));

/** What a call asks, or the path of one that asks nothing or that no gateway has. */
const callWords = (call) => {
  const path = `${call.method} ${call.path}`;
  if (call.status === 404) return path;
  return call.prompt ?? (call.kind === "call" ? call.system : null) ?? path;
};

// Requests

class Gone extends Error {}

async function get(path, signal) {
  const response = await fetch(path, { signal, headers: { accept: "application/json" } });
  if (response.status === 404) throw new Gone(await response.text());
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return response.json();
}

/** A request that runs now or soon, but once at a time, and again after a failure. */
class Paced {
  #run;
  #timer;
  #running = false;
  #again = false;

  constructor(run) {
    this.#run = run;
  }

  now() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    this.#again = false;
    this.#run()
      .catch(() => this.soon())
      .finally(() => {
        this.#running = false;
        if (this.#again) this.now();
      });
  }

  soon() {
    this.#timer ??= setTimeout(() => this.now(), PACE);
  }
}

// Lists

/** A table of the newest items, or a page of older ones. */
class List {
  items = new Map();
  more = false;
  /** Where each page after the first begins. */
  pages = [];
  words = "";
  reason = null;
  #rows = new Map();
  /** The keys of the items that came since the list was drawn. */
  #fresh = new Set();
  /** The key of the row that Tab leads to; the arrow keys lead to the others. */
  #current;
  #drawing = false;
  #request = new AbortController();
  #refresh = new Paced(() => this.fetch());

  constructor(id, { path, size, columns, key, order, cells, arrange, nothing }) {
    Object.assign(this, { path, size, key, order, cells, nothing });
    this.arrange = arrange ?? ((items) => items.map((item) => ({ item, depth: 0 })));
    this.section = byId(id);
    this.heading = this.section.querySelector("h2");
    this.columns = columns;
    this.body = h("tbody", { role: "rowgroup" });
    const heads = columns.map(([name, label]) =>
      h("th", { role: "columnheader", scope: "col", class: name }, label));
    this.table = h("table", { role: "table", "aria-labelledby": this.heading.id },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)), this.body);
    this.none = h("p", { class: "none" });
    this.newer = h("button", { type: "button" }, "Newer");
    this.older = h("button", { type: "button" }, "Older");
    this.place = h("span", { class: "place" });
    this.pager = h("nav", { class: "pager", "aria-label": `Pages of ${this.heading.textContent}` },
      this.newer, this.place, this.older);
    this.section.append(this.table, this.none, this.pager);
    this.newer.addEventListener("click", () => this.turn(-1));
    this.older.addEventListener("click", () => this.turn(1));
    this.body.addEventListener("focusin", ({ target }) => {
      [this.#current] = [...this.#rows].find(([, row]) => row.element.contains(target)) ?? [];
      this.#setTabStop();
    });
  }

  /** Whether it shows the newest items, unfiltered. */
  get isLive() {
    return !this.pages.length && !this.isFiltered;
  }

  get isFiltered() {
    return Boolean(this.words || this.reason);
  }

  /** Takes the newest items from the program's whole state. */
  load(items, more) {
    if (!this.isLive) return this.#refresh.now();
    this.take(items, more);
  }

  take(items, more) {
    this.items = new Map(items.map((item) => [this.key(item), item]));
    this.more = more;
    this.draw();
  }

  /** Takes items that are new or have changed; `belongs` says which of them this list shows. */
  change(items, belongs = () => true) {
    for (const item of items) {
      const key = this.key(item);
      const isHere = this.items.has(key);
      if (!belongs(item)) this.items.delete(key);
      else if (isHere || this.isLive) this.items.set(key, item);
      if (!isHere && this.isLive) this.#fresh.add(key);
    }
    for (const item of this.#sorted().slice(HELD)) {
      this.items.delete(this.key(item));
      this.#fresh.delete(this.key(item));
      this.more = true;
    }
    if (this.isFiltered && !this.pages.length) this.#refresh.soon();
    this.draw();
  }

  /** Filters by words and by reason, and goes to the newest page. */
  async filter(words, reason = this.reason) {
    this.words = words;
    this.reason = reason;
    this.pages = [];
    await this.#fetchOrRetry();
  }

  async turn(by) {
    if (by > 0) this.pages.push(this.order(this.page().at(-1)));
    else this.pages.pop();
    await this.#fetchOrRetry();
    this.#drawNow();
    (this.pages.length ? this.newer : this.older).focus();
    this.heading.scrollIntoView({ block: "start" });
  }

  #fetchOrRetry() {
    return this.fetch().catch(() => this.#refresh.soon());
  }

  async fetch() {
    this.#request.abort();
    this.#request = new AbortController();
    const query = new URLSearchParams({ limit: this.isLive ? HELD : this.size });
    if (this.pages.length) query.set("before", this.pages.at(-1));
    if (this.words) query.set("q", this.words);
    if (this.path.standouts) query.set("stands_out", this.reason ?? "1");
    try {
      const answer = await get(`/api/${this.path.of}?${query}`, this.#request.signal);
      this.take(answer[this.path.of], answer.more);
      // It may have missed a change in the meantime.
      if (this.isLive) state.soon();
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }

  #sorted() {
    return [...this.items.values()].sort((a, b) => this.order(b) - this.order(a));
  }

  /** The items of this page, the newest first. */
  page() {
    return this.#sorted().slice(0, this.size);
  }

  /** Draws before the next frame. */
  draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#drawNow();
    });
  }

  #drawNow() {
    const page = this.page();
    const shown = this.arrange(page);
    // The row with the focus stays, even if newer ones push it off the page.
    const focused = [...this.#rows].find(([, row]) => row.element.contains(document.activeElement));
    if (focused && !page.some((item) => this.key(item) === focused[0])) {
      shown.push({ item: this.items.get(focused[0]) ?? focused[1].item, depth: 0 });
    }

    const keys = new Set(shown.map(({ item }) => this.key(item)));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    let next = this.body.firstChild;
    for (const { item, depth } of shown) {
      const key = this.key(item);
      const row = this.#rows.get(key) ?? { element: null };
      if (row.item !== item || row.depth !== depth) this.#drawRow(row, key, item, depth);
      if (row.element === next) next = next.nextSibling;
      else place(this.body, row.element, next);
    }

    this.#fresh.clear();
    this.#setTabStop();

    const count = shown.length;
    this.table.hidden = !count;
    this.none.hidden = Boolean(count);
    this.none.textContent = count ? "" : this.nothing(this);
    const more = this.more || this.items.size > this.size;
    this.pager.hidden = !more && !this.pages.length;
    this.older.disabled = !more;
    this.newer.disabled = !this.pages.length;
    this.place.textContent = this.pages.length ? `page ${this.pages.length + 1}` : "newest";
  }

  #setTabStop() {
    const current = this.#rows.get(this.#current)?.element ?? this.body.firstChild;
    for (const { element } of this.#rows.values()) {
      element.querySelector("a").tabIndex = element === current ? 0 : -1;
    }
  }

  #drawRow(row, key, item, depth) {
    const cells = this.cells(item, depth).map((children, index) => {
      const [name] = this.columns[index];
      const names = children === NOTHING ? `${name} nothing` : name;
      return h("td", { role: "cell", class: names }, children);
    });
    const names = [depth > 0 && "nested", this.#fresh.has(key) && "new"];
    const element = h("tr", { role: "row", class: names.filter(Boolean).join(" ") || null }, cells);
    if (row.element) morph(row.element, element);
    else row.element = element;
    Object.assign(row, { item, depth });
    this.#rows.set(key, row);
  }
}

/** Moves an element before another one, and keeps its focus. */
function place(parent, element, next) {
  if (element.isConnected && parent.moveBefore) return parent.moveBefore(element, next);
  const active = element.contains(document.activeElement) && document.activeElement;
  parent.insertBefore(element, next);
  if (active) active.focus({ preventScroll: true });
}

const noMatch = (what, words) => `No ${what} matches “${words}”.`;

const standouts = new List("standouts", {
  path: { of: "calls", standouts: true },
  size: 8,
  key: (call) => call.number,
  order: (call) => call.number,
  columns: [
    ["number", "Call"], ["time", "Time"], ["why", "Reason"], ["session", "Session"],
    ["client", "Client"], ["answer", "Status"],
  ],
  cells: (call) => [
    callLink(call.number, `#${call.number}`),
    time(call.at),
    [
      remarks(call, short).slice(0, 1)
        .map(({ reason, words }) => h("strong", { class: reason }, words)),
      h("span", { class: "words" }, call.name),
    ],
    idMark(call.session),
    clientOf(call),
    answerMark(call),
  ],
  nothing: ({ words, reason }) => {
    if (words) return noMatch("call that stands out", words);
    if (reason) return "No call stands out for this reason.";
    return `Nothing stands out in ${count(totals.calls, "call")}.`;
  },
});

const conversations = new List("conversations", {
  path: { of: "conversations" },
  size: 12,
  key: (conversation) => conversation.id,
  order: (conversation) => conversation.last,
  columns: [
    ["title", "Conversation"], ["session", "Session"], ["client", "Client"], ["calls", "Calls"],
    ["turns", "Turns"], ["cached", "Cached"], ["cost", "Cost"], ["time", "Latest"],
  ],
  arrange: nest,
  cells: (conversation, depth) => [
    [
      depth > 0 && h("span", { class: "branch", role: "img",
        "aria-label": conversation.quotes ? "helper:" : "subagent:" }, "↳"),
      conversation.stand_out > 0
        && h("span", { class: "tag" }, standOut(conversation.stand_out)),
      conversation.missed > 0
        && h("span", { class: "tag" }, `${integer.format(conversation.missed)} missed`),
      conversationLink(conversation.id, conversation.title ?? "no prompt"),
      conversation.parent && !depth
        && h("span", { class: "faint" }, `subagent of ${short(conversation.parent)}`),
      conversation.changes > 0 && whereabouts(conversation),
    ],
    idMark(conversation.stretches.at(-1)?.session ?? conversation.session),
    conversation.client ?? NOTHING,
    counted(conversation.calls, "call"),
    conversation.turns > 0 ? counted(conversation.turns, "turn") : NOTHING,
    conversation.prompt_tokens === 0 ? NOTHING : [
      sparkline(conversation.shares, 72, 20),
      h("span", { class: "share" },
        percent(conversation.cached_tokens, conversation.prompt_tokens)),
    ],
    money(conversation.cost),
    time(conversation.at),
  ],
  nothing: ({ words }) => words
    ? noMatch("conversation", words)
    : "No call has a session yet.",
});

const calls = new List("calls", {
  path: { of: "calls" },
  size: 50,
  key: (call) => call.number,
  order: (call) => call.number,
  columns: [
    ["number", "Call"], ["time", "Time"], ["what", "Prompt"], ["model", "Model"],
    ["session", "Session"], ["turn", "Turn"], ["cached", "Cached"], ["cost", "Cost"],
    ["took", "Took"], ["answer", "Status"],
  ],
  cells: (call) => [
    callLink(call.number, `#${call.number}`),
    time(call.at),
    [
      tags(call),
      call.kind !== "call" && h("span", { class: "kind" }, call.kind),
      callWords(call),
    ],
    call.model ?? NOTHING,
    [idMark(call.session), call.added && h("span", { class: "kind", title: call.added }, "added")],
    call.turn ? h("span", { class: "id", title: cut(call.turn, 200) }, short(call.turn)) : NOTHING,
    percent(call.cached_tokens, call.prompt_tokens),
    money(call.cost),
    call.ended_after_ms == null ? NOTHING : h("span",
      { title: `first byte after ${duration(call.answered_after_ms)}` },
      duration(call.ended_after_ms)),
    answerMark(call),
  ],
  nothing: ({ words }) => words ? noMatch("call", words) : "No call yet.",
});

const lists = [standouts, conversations, calls];

/** Which of a conversation's turns were in which session. */
function whereabouts({ stretches, changes }) {
  const MOST = 3;
  const shown = stretches.slice(0, MOST).map((stretch, index) => [
    index ? ", " : "", `turn ${stretch.turn} in `,
    stretch.session ? idMark(stretch.session) : "none",
  ]);
  const more = changes + 1 - Math.min(MOST, stretches.length);
  return h("span", { class: "moves" }, shown, more > 0 && `, and ${integer.format(more)} more`);
}

/** Puts helpers and subagents below their conversation, if it is on the same page. */
function nest(page) {
  const ids = new Set(page.map(({ id }) => id));
  const children = new Map();
  const roots = [];
  for (const conversation of page) {
    const { under } = conversation;
    if (!ids.has(under)) roots.push(conversation);
    else children.set(under, [...children.get(under) ?? [], conversation]);
  }
  const rows = [];
  const add = (item, depth) => {
    rows.push({ item, depth });
    for (const child of children.get(item.id) ?? []) add(child, depth + 1);
  };
  for (const root of roots) add(root, 0);
  return rows;
}

// What stands out, by reason

const chips = standouts.section.querySelector(".chips");

function drawChips() {
  const chip = (name, label, number) => (number > 0 || standouts.reason === name) && h("button",
    {
      type: "button", class: `chip ${name ?? "all"}`, "data-reason": name ?? "",
      "aria-pressed": String(standouts.reason === name),
    },
    `${label} `, h("span", {}, integer.format(number)));
  const all = [
    chip(null, "All", totals.stand_out),
    ...Object.entries(REASONS).map(([name, { label }]) => chip(name, label, totals[name])),
  ];
  morphChildren(chips, all.filter(Boolean));
  chips.hidden = !totals.stand_out;
}

chips.addEventListener("click", async (event) => {
  const chip = event.target.closest("button");
  if (!chip) return;
  standouts.reason = chip.dataset.reason || null;
  drawChips();
  await standouts.filter(standouts.words);
});

// Totals

let totals = { calls: 0 };
/** The month of the prices, if the costs are the program's own. */
let prices = null;
let paused = false;
let missedWhilePaused = 0;
let announced = null;

function drawTotals() {
  const numbers = [
    ["Calls", integer.format(totals.calls)],
    ["Conversations", integer.format(totals.conversations)],
    ["Stand out", integer.format(totals.stand_out), totals.stand_out > 0 && "bad"],
    ["Cached", percent(totals.cached_tokens, totals.prompt_tokens),
      null, `of ${compact.format(totals.prompt_tokens)} prompt tokens`],
    totals.cost != null && ["Cost", money(totals.cost), null, prices && `prices of ${prices}`],
  ];
  morphChildren(byId("totals"), numbers.filter(Boolean).map(([name, value, mark, more]) =>
    h("div", { class: mark }, h("dt", {}, name),
      h("dd", {}, value, more && h("small", {}, ` ${more}`)))));
  document.body.classList.toggle("free", totals.cost == null);
  document.title = totals.stand_out > 0
    ? `(${integer.format(totals.stand_out)}) opencode-gateway`
    : "opencode-gateway";
  const isEmpty = totals.calls === 0;
  byId("waiting").hidden = !isEmpty;
  for (const id of ["totals", "search", "standouts", "conversations", "calls"]) {
    byId(id).hidden = isEmpty;
  }
  drawChips();
  byId("kept").textContent = totals.dropped > 0
    ? `${count(totals.dropped, "older call")} no longer kept`
      + (totals.dropped_faults > 0
        ? `, ${integer.format(totals.dropped_faults)} of which had a fault.`
        : ". What stands out is kept.")
    : "";
}

/** Announces how many more calls stand out, together and not too often. */
const sayStandouts = (() => {
  let timer;
  return () => {
    timer ??= setTimeout(() => {
      timer = undefined;
      const more = totals.stand_out - announced;
      announced = totals.stand_out;
      if (more > 0) announce(`${standOut(totals.stand_out)}, ${integer.format(more)} of them new.`);
    }, 5 * PACE);
  };
})();

const queue = [];
let loading = false;

const state = new Paced(async () => {
  loading = true;
  queue.length = 0;
  try {
    const whole = await get("/api/state");
    totals = whole.totals;
    prices = whole.prices;
    announced = Math.min(announced ?? Infinity, totals.stand_out);
    drawConnect(whole);
    standouts.load(whole.standouts, whole.more_standouts);
    conversations.load(whole.conversations, whole.more_conversations);
    calls.load(whole.calls, whole.more_calls);
    drawTotals();
    for (const change of queue.splice(0)) take(change);
    detail.refresh();
  } finally {
    loading = false;
  }
});

function take(change) {
  totals = change.totals;
  drawTotals();
  standouts.change(change.calls, (call) => call.stands_out);
  conversations.change(change.conversations);
  calls.change(change.calls);
  detail.change(change);
  // The change contains only the newest.
  if (change.more) state.soon();
  if (totals.stand_out > announced) sayStandouts();
}

function receive(change) {
  if (paused) {
    missedWhilePaused = Math.max(0, change.totals.calls - totals.calls);
    drawPause();
  } else if (!loading) {
    take(change);
  } else if (queue.length < HELD) {
    queue.push(change);
  } else {
    state.now();
  }
}

// The connection

const connection = byId("connection");

function connected(name, words) {
  if (connection.dataset.state === name) return;
  if (name === "lost") announce("The connection is lost. Trying again.");
  else if (connection.dataset.state === "lost") announce("Connected again.");
  connection.dataset.state = name;
  connection.textContent = words;
}

function listen() {
  const events = new EventSource("/api/events");
  events.addEventListener("open", () => {
    connected("live", "live");
    state.now();
  });
  events.addEventListener("change", (event) => receive(JSON.parse(event.data)));
  events.addEventListener("reload", () => {
    if (!paused) state.soon();
  });
  events.addEventListener("error", () => {
    connected("lost", "not connected, trying again…");
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2 * PACE);
  });
}

const pause = byId("pause");

function drawPause() {
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = !paused ? "Pause"
    : missedWhilePaused > 0 ? `Resume, ${count(missedWhilePaused, "new call")}` : "Resume";
}

pause.addEventListener("click", () => {
  paused = !paused;
  missedWhilePaused = 0;
  drawPause();
  if (!paused) state.now();
});

// How to connect a client

/** The name of the client whose setup is shown. */
let setupShown = null;

function drawConnect({ mode, upstream, adds, setups, try: command, totals: { calls } }) {
  byId("mode").textContent = upstream
    ? `forwards calls to ${upstream}${adds ? ", and adds the sessions that they lack" : ""}`
    : "answers on this machine, and calls no model";
  const connect = byId("connect");
  if (connect.hidden) connect.open = calls === 0;
  connect.hidden = false;
  const all = [...setups, { name: "curl", title: "curl", commands: command }];
  const shown = all.find(({ name }) => name === setupShown) ?? all[0];
  const tab = ({ name, title }) => h("button", {
    type: "button", role: "tab", id: `tab-${name}`, "data-setup": name,
    "aria-controls": "setup", "aria-selected": String(name === shown.name),
    tabindex: name === shown.name ? 0 : -1,
  }, title);
  morphChildren(byId("setups"), [
    h("div", { role: "tablist", "aria-label": "Client" }, all.map(tab)),
    h("div", { role: "tabpanel", id: "setup", "aria-labelledby": `tab-${shown.name}` },
      h("p", {}, shown.name === "curl"
        ? "Makes a first call, from a terminal:"
        : `Paste this into a terminal, and start ${shown.title.replace(/ SDKs$/, " programs")} `
          + "there:"),
      h("div", { class: "command" },
        h("pre", { tabindex: 0, "aria-label": "Commands" }, h("code", {}, shown.commands)),
        copyButton(shown.commands, "the commands"))),
    mode === "upstream" && h("p", {}, "OPENCODE_API_KEY is your own key. It is forwarded with each "
      + "call, and is neither shown nor stored."),
    adds && h("p", {}, "A call without a session gets that of the conversation that it continues or "
      + "quotes, or else a new one. Calls with different keys are never compared. What begins with "
      + "the same short words cannot be told apart from its title, and after a restart each "
      + "conversation begins a new session."),
  ].filter(Boolean));
  drawConnect.again = () => drawConnect({ mode, upstream, adds, setups, try: command, totals });
}

byId("setups").addEventListener("click", (event) => {
  const { setup } = event.target.dataset;
  if (setup) showSetup(setup);
});

byId("setups").addEventListener("keydown", (event) => {
  const tabs = [...byId("setups").querySelectorAll("[role=tab]")];
  const at = tabs.indexOf(event.target);
  const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 };
  if (at < 0 || !(event.key in steps)) return;
  event.preventDefault();
  const tab = tabs.at(steps[event.key] % tabs.length);
  showSetup(tab.dataset.setup);
  tab.focus();
});

function showSetup(name) {
  setupShown = name;
  drawConnect.again();
}

// One call, or one conversation

const detail = {
  dialog: byId("detail"),
  article: byId("detail").querySelector("article"),
  kind: null,
  id: null,
  before: null,
  pacer: new Paced(() => detail.fetch()),

  /** Shows the call or conversation that the address names. */
  route() {
    const [, kind, id] = location.hash.match(/^#\/(call|conversation)\/(.+)$/) ?? [];
    if (!kind) return this.dialog.close();
    Object.assign(this, { kind, id: decoded(id), before: null });
    this.article.replaceChildren(h("h2", { id: "detail-heading", tabindex: -1 }, "…"));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    byId("detail-heading").focus();
    this.pacer.now();
  },

  async fetch() {
    const { kind, id, before } = this;
    if (!kind) return;
    let children;
    try {
      children = kind === "call" ? await drawCall(id) : await drawConversation(id, before);
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      children = [heading(kind === "call" ? `Call ${id}` : "Conversation"),
        h("p", { class: "none" }, "It is no longer kept, or has not come yet.")];
    }
    if (kind === this.kind && id === this.id && before === this.before) {
      morphChildren(this.article, children);
    }
  },

  change({ calls, conversations }) {
    const isShown = this.kind === "call"
      ? calls.some(({ number }) => String(number) === this.id)
      : conversations.some(({ id }) => String(id) === this.id);
    if (isShown) this.pacer.soon();
  },

  refresh() {
    if (this.kind) this.pacer.soon();
  },

  older(before) {
    this.before = before;
    this.pacer.now();
  },

  closed() {
    const { kind } = this;
    const { hash } = location;
    Object.assign(this, { kind: null, id: null });
    this.article.replaceChildren();
    if (hash) history.pushState(null, "", location.pathname);
    // The browser returns the focus to the row, unless the row has gone.
    if (document.activeElement === document.body) {
      const link = [...document.querySelectorAll("main a")]
        .find((link) => link.getAttribute("href") === hash);
      (link ?? (kind === "conversation" ? conversations : calls).heading).focus();
    }
  },
};

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const heading = (words) => h("h2", { id: "detail-heading", tabindex: -1 }, words);

/** An entry of a description list, unless the value is empty. */
const fact = (name, value, ...more) => value == null || value === false || value === "" ? [] : [
  h("dt", {}, name), h("dd", {}, value, ...more),
];

const idFact = (name, id, ...more) =>
  fact(name, id && h("span", { class: "id" }, cut(id, 2000)),
    id && copyButton(id, `the ${name.toLowerCase()}`), ...more);

async function drawCall(number) {
  const call = await get(`/api/calls/${encodeURIComponent(number)}`);
  const found = remarks(call);
  const itsConversation = call.conversation != null
    && conversationLink(call.conversation, "its conversation");
  return [
    heading(`Call ${call.number}`),
    h("p", { class: "lead" }, sentence(call.name)),
    found.length > 0 && h("ul", { class: "reasons" }, found.map(({ reason, words, advice, proof }) =>
      h("li", { class: reason }, h("strong", {}, words), advice && h("span", {}, advice),
        proof && why(proof)))),
    h("dl", { class: "facts" },
      call.session
        ? idFact("Session", call.session, itsConversation)
        : fact("Session", "none", itsConversation),
      fact("Added", call.added?.replace(/^session added, /, "")),
      idFact("Turn", call.turn),
      idFact("Parent", call.parent),
      idFact("Project", call.project),
      fact("Client", clientOf(call)),
      fact("Model", [call.model, call.stream && "streamed"].filter(Boolean).join(", ")),
      fact("Provider", call.provider),
      fact("Request", `${call.method} ${call.path}`),
      fact("Time", date.format(new Date(call.at))),
      fact("Status", answer(call)),
      fact("First byte", call.answered_after_ms != null
        && `after ${duration(call.answered_after_ms)}`),
      fact("Duration", call.ended_after_ms != null && duration(call.ended_after_ms)),
      call.prompt_tokens > 0 && fact("Tokens",
        `${integer.format(call.prompt_tokens)} in the prompt, `
        + `${integer.format(call.cached_tokens)} of them cached `
        + `(${percent(call.cached_tokens, call.prompt_tokens)}); `
        + `${integer.format(call.output_tokens)} in the answer`),
      call.cost != null && fact("Cost", money(call.cost)),
      call.continues && [h("dt", {}, "Continues"),
        h("dd", {}, callLink(call.continues, `call ${call.continues}`))]),
    h("h3", {}, count(call.messages, "message")),
    call.system && h("figure", {}, h("figcaption", {}, "System"), h("blockquote", {}, call.system)),
    call.prompt && h("figure", {}, h("figcaption", {}, "What the user typed last"),
      h("blockquote", {}, call.prompt)),
    call.said && h("figure", {}, h("figcaption", {}, "The answer"),
      h("blockquote", {}, call.said)),
    h("h3", {}, count(call.tools.length, "tool")),
    call.tools.length > 0
      && h("ul", { class: "tools" }, call.tools.map((tool) => h("li", {}, tool))),
    h("h3", {}, "Headers"),
    h("dl", { class: "headers" }, Object.entries(call.headers).map(([name, value]) => [
      h("dt", {}, name),
      h("dd", { class: value === "(hidden)" ? "faint" : null }, cut(value, 2000)),
    ])),
    h("p", {}, h("button",
      { type: "button", class: "copy", "data-copy": JSON.stringify(call, null, 2) },
      "Copy as JSON")),
  ].flat().filter(Boolean);
}

/** The two calls that prove a mark, side by side, with the words that do. */
const why = (proof) => h("div", { class: "proof" }, proof.map(({ call, session, what, words }) =>
  h("figure", {},
    h("figcaption", {}, callLink(call, `Call ${call}`), " in ", idMark(session), ` ${what}`),
    h("blockquote", {}, words ?? NOTHING))));

async function drawConversation(id, before) {
  const query = new URLSearchParams({ conversation: id, limit: calls.size });
  if (before) query.set("before", before);
  const [found, page] = await Promise.all([
    get(`/api/conversations?${new URLSearchParams({ conversation: id })}`),
    get(`/api/calls?${query}`),
  ]);
  const conversation = found.conversations.find((other) => String(other.id) === id);
  if (!conversation) throw new Gone();
  const above = found.conversations.find((other) => other.id === conversation.under);
  const beneath = found.conversations.filter(({ under }) => under === conversation.id);
  const agents = beneath.filter(({ quotes }) => !quotes);
  const turns = [];
  for (const call of page.calls) {
    const turn = turns.at(-1);
    if (turn && turn.id === call.turn) turn.calls.push(call);
    else turns.push({ id: call.turn, calls: [call] });
  }
  return [
    heading(conversation.title ?? "Conversation"),
    h("dl", { class: "facts" },
      conversation.changes
        ? fact("Sessions", h("ol", { class: "stretches" }, conversation.stretches.map((stretch) =>
          h("li", {}, `turn ${stretch.turn}, from `, callLink(stretch.call, `call ${stretch.call}`),
            ", in ", stretch.session
              ? [h("span", { class: "id" }, cut(stretch.session, 2000)),
                copyButton(stretch.session, "the session")]
              : "none"))))
        : idFact("Session", conversation.session),
      idFact("Parent", conversation.parent),
      above && fact(conversation.quotes ? "Helper of" : "Subagent of",
        conversationLink(above.id, above.title ?? `the conversation of call ${above.id}`)),
      fact("Client", conversation.client),
      fact("Size", `${count(conversation.calls, "call")}, ${count(conversation.turns, "turn")}`
        + (agents.length ? `, ${count(agents.length, "subagent")}` : "")),
      conversation.stand_out > 0 && fact("Stand out", count(conversation.stand_out, "call")),
      conversation.missed > 0 && fact("Missed",
        `${count(conversation.missed, "call")} without a session`),
      conversation.cost != null && fact("Cost", money(conversation.cost)),
      fact("Cached", `${percent(conversation.cached_tokens, conversation.prompt_tokens)} of `
        + `${count(conversation.prompt_tokens, "prompt token")}`)),
    conversation.shares.length > 1 && h("figure", { class: "chart" },
      h("figcaption", {}, "Cached share of the latest calls"),
      sparkline(conversation.shares, 480, 72)),
    beneath.length > 0 && [
      h("h3", {}, agents.length === beneath.length ? "Subagents" : "Helpers and subagents"),
      h("ul", { class: "agents" }, beneath.map((agent) => h("li", {},
        conversationLink(agent.id, agent.title ?? `call ${agent.id}`), " ",
        h("span", { class: "faint" }, count(agent.calls, "call"))))),
    ],
    h("h3", {}, before ? "Older calls" : "Calls"),
    turns.map((turn) => h("section", { class: "turn" },
      h("h4", {},
        turn.id ? ["Turn ", idMark(turn.id), copyButton(turn.id, "the turn")] : "No turn"),
      h("ol", {}, turn.calls.map((call) => h("li", {},
        callLink(call.number, `#${call.number}`), time(call.at),
        h("span", { class: "what" }, tags(call), conversation.changes > 0 && idMark(call.session), " ",
          call.kind !== "call" && h("span", { class: "kind" }, call.kind), callWords(call)),
        h("span", { class: "cached" }, percent(call.cached_tokens, call.prompt_tokens)),
        answerMark(call)))))),
    (page.more || before) && h("nav", { class: "pager", "aria-label": "Pages of its calls" },
      h("button", { type: "button", "data-before": "", disabled: !before }, "Newest"),
      h("button", { type: "button", disabled: !page.more,
        "data-before": page.calls.at(-1)?.number ?? "" }, "Older")),
  ].flat().filter(Boolean);
}

detail.dialog.addEventListener("close", () => detail.closed());
detail.dialog.addEventListener("click", (event) => {
  const { before } = event.target.dataset;
  if (before !== undefined) detail.older(before || null);
  // A click beside the sheet, on the page that it covers.
  else if (event.target === detail.dialog) detail.dialog.close();
});
addEventListener("hashchange", () => detail.route());

// Search

const words = byId("words");
let typing;

words.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 200);
});

async function search() {
  const sought = words.value.trim();
  await Promise.all(lists.map((list) => list.filter(sought)));
  if (!sought) return announce("All calls are shown.");
  const found = (list, what) => `${list.more ? "more than " : ""}${count(list.items.size, what)}`;
  announce(`${found(conversations, "conversation")} and ${found(calls, "call")} match.`);
}

// Rows

/** A click on a row opens it, unless its text is being selected. */
document.addEventListener("click", (event) => {
  const row = event.target.closest("tbody tr, .turn li");
  if (!row || event.target.closest("a, button") || String(getSelection())) return;
  row.querySelector("a").click();
});

// Keys and copies

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const isTyping = event.target.matches("input");
  if (event.key === "/" && !isTyping && !detail.dialog.open && !byId("search").hidden) {
    event.preventDefault();
    words.focus();
    words.select();
  } else if (event.key === "Escape" && isTyping && words.value) {
    event.preventDefault();
    words.value = "";
    search();
  } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    const links = [...event.target.closest("tbody")?.querySelectorAll("a") ?? []];
    const to = links[links.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
    if (!to || !links.includes(event.target)) return;
    event.preventDefault();
    to.focus();
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const label = button.textContent;
  const isCopied = await copy(button.dataset.copy);
  announce(isCopied ? "Copied." : "The browser did not allow copying.");
  if (!isCopied || label === "Copied") return;
  button.textContent = "Copied";
  setTimeout(() => {
    button.textContent = label;
  }, 1.5 * PACE);
});

/** Copies a text, by a selection if the browser has no clipboard without TLS. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "unseen", readonly: true, "aria-hidden": "true" }, text);
    const active = document.activeElement;
    active.parentElement.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    active.focus();
    return isCopied;
  }
}

listen();
detail.route();
