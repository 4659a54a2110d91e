"use strict";
/* The list of replies: filters, sorting, and a virtual list that only holds the visible rows. */
const ROW = 58;
const FILTERS = { step: "all", origin: "all", score: "reward", low: "", high: "", text: "", sort: "", down: "1" };
let MATCHES = [];
let SELECTED = null;

const GROUPS = new Map();
DATA.replies.forEach((r, k) => {
  r.k = k;
  if (!GROUPS.has(r.g)) GROUPS.set(r.g, []);
  GROUPS.get(r.g).push(r);
});

const valueOf = (reply, name) => {
  if (name === "length") return (reply.i || []).length;
  return DATA.numbers.includes(name) ? numberOf(reply, name) : scoreOf(reply, name);
};

function measures() {
  const first = ["reward", "advantage"].filter((n) => DATA.numbers.includes(n));
  const rest = [...DATA.scores, ...DATA.numbers].filter((n) => !first.includes(n));
  return [...first, ...new Set(rest), "length"];
}

/* The text to search: the reply, the text of its prompt and its uid in lower case; computed once. */
function searched(reply) {
  reply.z ??= `${reply.x}\n${promptOf(reply).map((p) => p.text || "").join("\n")}\n${groupOf(reply).uid}`.toLowerCase();
  return reply.z;
}

function search() {
  const step = FILTERS.step === "all" ? null : Number(FILTERS.step);
  const low = FILTERS.low === "" ? -Infinity : Number(FILTERS.low);
  const high = FILTERS.high === "" ? Infinity : Number(FILTERS.high);
  const bounded = FILTERS.low !== "" || FILTERS.high !== "";
  const text = FILTERS.text.toLowerCase();
  MATCHES = DATA.replies.filter((r) => {
    if (step !== null && groupOf(r).step !== step) return false;
    if (FILTERS.origin !== "all" && originOf(r) !== FILTERS.origin) return false;
    if (bounded) {
      const value = valueOf(r, FILTERS.score);
      if (value === null || value < low || value > high) return false;
    }
    return !text || searched(r).includes(text);
  });
  if (FILTERS.sort) {
    const sign = FILTERS.down === "1" ? -1 : 1;
    const key = new Map(MATCHES.map((r) => [r, valueOf(r, FILTERS.sort)]));
    MATCHES.sort((a, b) => {
      const [one, two] = [key.get(a), key.get(b)];
      if (one === null || two === null) return (one === null) - (two === null) || a.k - b.k;
      return sign * (one - two) || a.k - b.k;
    });
  }
}

function refresh() {
  search();
  byId("count").textContent = `${MATCHES.length.toLocaleString("en")} of ${DATA.replies.length.toLocaleString("en")}` +
    (DATA.left_out ? `; ${DATA.left_out} logged steps are not shown` : "");
  byId("rows").style.height = `${MATCHES.length * ROW}px`;
  byId("list").scrollTop = 0;
  drawRows();
  if (MATCHES.length) pick(MATCHES[0]);
  else byId("detail").replaceChildren(el("p", { className: "dim" }, "No reply matches these filters."));
}

function drawRows() {
  const list = byId("list");
  const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const to = Math.min(MATCHES.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  const rows = [];
  for (let i = from; i < to; i++) rows.push(row(MATCHES[i], i));
  byId("rows").replaceChildren(...rows);
}

function row(reply, i) {
  const first = mediaOf(promptOf(reply)).find((p) => DATA.images[p.image]);
  const thumb = first ? el("img", { src: DATA.images[first.image], alt: "" }) : el("span", { className: "nothumb" });
  const advantage = numberOf(reply, "advantage");
  const tag = el("span", { className: "tag" }, advantage === null ? "" : signed(advantage));
  tag.style.background = diverging(advantage, LARGEST.advantage);
  const reward = numberOf(reply, "reward");
  const top = el("div", { className: "line" }, badge(reply), el("b", {}, reward === null ? "" : fmt(reward)), tag,
    el("span", { className: "dim right" }, `step ${groupOf(reply).step}`));
  const one = el("div", { className: reply === SELECTED ? "row now" : "row", role: "option", onclick: () => { pick(reply); drawRows(); } },
    thumb, el("div", { className: "words" }, top, el("div", { className: "snippet" }, reply.x || "(empty)")));
  one.style.top = `${i * ROW}px`;
  one.title = visible(groupOf(reply).uid);
  return one;
}

function pick(reply) {
  SELECTED = reply;
  drawReply(reply, GROUPS.get(reply.g), (other) => { pick(other); drawRows(); });
  byId("rows").querySelectorAll(".now").forEach((n) => n.classList.remove("now"));
}

function move(by) {
  const at = Math.max(0, Math.min(MATCHES.length - 1, MATCHES.indexOf(SELECTED) + by));
  if (!MATCHES.length) return;
  const list = byId("list");
  if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
  if ((at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW - list.clientHeight;
  pick(MATCHES[at]);
  drawRows();
}

let waiting = 0;
function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(refresh, 120);
}

function goToStep(step) {
  if (!DATA.steps.length) return;
  const nearest = DATA.steps.reduce((best, s) => (Math.abs(s - step) < Math.abs(best - step) ? s : best), DATA.steps[0]);
  const select = document.querySelector('[aria-label="step"]');
  select.value = String(nearest);
  FILTERS.step = select.value;
  refresh();
  byId("samples").scrollIntoView({ behavior: "smooth" });
}

function reset() {
  Object.assign(FILTERS, { step: "all", origin: "all", score: measures()[0], low: "", high: "", text: "", sort: "", down: "1" });
  const shown = { step: "step", origin: "origin", where: "score", from: "low", to: "high", text: "text", "sort by": "sort", order: "down" };
  for (const [label, name] of Object.entries(shown)) document.querySelector(`#filters [aria-label="${label}"]`).value = FILTERS[name];
  refresh();
}

function drawSamples() {
  if (!DATA.replies.length) return;
  byId("samples").hidden = false;
  const set = (name) => (value) => { FILTERS[name] = value; refresh(); };
  const type = (name) => (value) => { FILTERS[name] = value; soon(); };
  const names = measures().map((n) => [n, n]);
  FILTERS.score = names[0][0];
  FILTERS.step = String(DATA.steps[DATA.steps.length - 1]);
  const turn = (by) => () => {
    const at = FILTERS.step === "all" ? DATA.steps.length - 1 : DATA.steps.indexOf(Number(FILTERS.step)) + by;
    const select = document.querySelector('[aria-label="step"]');
    select.value = FILTERS.step = String(DATA.steps[Math.max(0, Math.min(DATA.steps.length - 1, at))]);
    refresh();
  };
  byId("filters").append(
    choice("step", [["all", "all"], ...DATA.steps.map((s) => [s, s])], set("step"), FILTERS.step),
    el("button", { type: "button", title: "previous step", onclick: turn(-1) }, "\u2039"),
    el("button", { type: "button", title: "next step", onclick: turn(1) }, "\u203a"),
    choice("origin", [["all", "all"], ...DATA.origins.map((o) => [o, o])], set("origin")),
    choice("where", names, set("score"), FILTERS.score),
    entry("from", "number", "4.5em", type("low")),
    entry("to", "number", "4.5em", type("high")),
    entry("text", "search", "11em", type("text")),
    choice("sort by", [["", "log order"], ...names], set("sort"), ""),
    choice("order", [["1", "highest first"], ["0", "lowest first"]], set("down"), "1"),
    el("button", { type: "button", onclick: reset }, "reset"),
  );
  const list = byId("list");
  list.addEventListener("scroll", () => requestAnimationFrame(drawRows), { passive: true });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (by) { event.preventDefault(); move(by); }
  });
  window.addEventListener("resize", drawRows);
  refresh();
}
