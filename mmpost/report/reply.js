"use strict";
/* One reply in detail: media with their marks, prompt, tokens, scores and columns. */

/* How to draw a mark of each shape, in coordinates from 0 to 1000 of the medium's sides. Other shapes are shown as text. */
const DRAW = {
  box: ([x1, y1, x2, y2]) => svg("rect", { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) }),
  point: ([x, y]) => svg("path", { class: "point", d: `M${x} ${y}h0` }),
  span: ([start, end]) => svg("rect", { class: "span", x: start, y: 0, width: end - start, height: 1000 }),
};

/* More marks than this are drawn thinner. */
const DENSE = 20;

const VIEW = { others: false, gold: true, color: "" };

const numberOf = (reply, name) => reply.c[DATA.numbers.indexOf(name)] ?? null;
const scoreOf = (reply, name) => reply.s[DATA.scores.indexOf(name)] ?? null;
const originOf = (reply) => DATA.origins[reply.o];
const groupOf = (reply) => DATA.groups[reply.g];
const promptOf = (reply) => DATA.prompts[groupOf(reply).prompt];
const mediaOf = (parts) => parts.filter((p) => p.modality !== "text");

/* The marks of a medium. Labels are tooltips: drawn, they would hide what is marked. */
function marked(list, medium, name) {
  const drawable = list.filter((m) => m[2] === medium && DRAW[m[0]]);
  const dense = drawable.length > DENSE ? " dense" : "";
  return drawable.map(([shape, at, , label]) => {
    const drawn = svg("g", { class: `mark ${name}${dense}${label ? " labelled" : ""}` }, DRAW[shape](at.map((v) => v * 1000)));
    drawn.append(svg("title", {}, `${name}: ${shape} ${label}`));
    return drawn;
  });
}

function mediumFigure(part, index, layers) {
  const image = DATA.images[part.image];
  const sizes = Object.entries(part.sizes || {}).map(([k, v]) => `${k} ${fmt(v)}`).join(", ");
  const caption = el("figcaption", {}, `${part.modality}  ${sizes}`);
  caption.title = visible(part.name || "");
  if (!image) return el("figure", { className: "medium" }, el("div", { className: "gone" }, `no preview of this ${part.modality}`), caption);
  const shown = el("img", { src: image, alt: part.modality });
  const place = () => {
    const grow = Math.max(1, Math.min(4, 400 / shown.naturalWidth, 400 / shown.naturalHeight));
    shown.style.width = `${Math.round(shown.naturalWidth * grow)}px`;
    shown.classList.toggle("small", shown.naturalWidth < 150);
  };
  if (shown.complete) place();
  shown.addEventListener("load", place);
  const over = svg("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", class: "over" });
  for (const [list, name] of layers) over.append(...marked(list || [], index, name));
  return el("figure", { className: "medium" }, el("div", { className: "stage" }, shown, over), caption);
}

function legend(reply, siblings, again) {
  const any = groupOf(reply).marks.length || siblings.some((r) => (r.m || []).length);
  if (!any) return null;
  const line = el("div", { className: "legend" });
  line.append(
    chip("gold", VIEW.gold, (on) => { VIEW.gold = on; again(); }),
    el("span", { className: "key predicted" }, "this reply"),
  );
  if (siblings.length > 1) line.append(chip("rest of the group", VIEW.others, (on) => { VIEW.others = on; again(); }));
  line.firstChild.classList.add("goldchip");
  const words = (reply.m || []).filter((m) => !DRAW[m[0]]).map((m) => `${m[0]} ${m[1].map(fmt).join(" ")} ${m[3]}`);
  if (words.length) line.append(el("span", {}, words.join("; ")));
  return line;
}

const TRAINED = "loss mask";

/* What tokens can be colored by: columns with a value per token, the advantage of the reply, and the loss mask. */
function colorings(reply) {
  const names = Object.keys(reply.t || {}).filter((n) => reply.t[n].length === (reply.p || []).length);
  if (numberOf(reply, "advantage") !== null && !names.includes("advantage")) names.unshift("advantage");
  return [...names, TRAINED];
}

function tokens(reply, again) {
  const pieces = (reply.p || []).map((i) => DATA.pieces[i]);
  if (!pieces.length) return el("div", { className: "text" }, reply.x || "(empty)");
  const names = colorings(reply);
  if (!names.includes(VIEW.color)) VIEW.color = "";
  const by = VIEW.color || names[0] || "";
  const lists = reply.t || {};
  const values = lists[by] || pieces.map(() => numberOf(reply, by));
  const most = Math.max(...values.map((v) => Math.abs(v || 0)), lists[by] ? 0 : LARGEST[by] || 0);
  const mask = lists.mask || pieces.map(() => numberOf(reply, "mask") ?? 1);
  const line = el("div", { className: "text tokens" });
  pieces.forEach((piece, k) => {
    const one = el("span", {}, piece === "" ? "\u00b7" : piece);
    if (by === TRAINED) one.style.background = mask[k] ? "rgba(36,99,181,.16)" : "transparent";
    else one.style.background = /logp/.test(by) ? surprise(values[k]) : diverging(values[k], most);
    if (!mask[k]) one.className = "untrained";
    const about = [`token ${k + 1}: ${JSON.stringify(piece)}`];
    if (reply.i) about.push(`id ${reply.i[k]}`);
    for (const [name, list] of Object.entries(lists)) if (list[k] !== undefined) about.push(`${name} ${fmt(list[k])}`);
    if (!mask[k]) about.push("masked: no loss");
    one.title = visible(about.join("\n"));
    line.append(one);
  });
  const bar = el("div", { className: "bar tight" }, `${pieces.length} tokens`);
  bar.append(choice("color by", names.map((n) => [n, n]), (n) => { VIEW.color = n; again(); }, by));
  const key = /logp/.test(by) ? "deeper: less likely" : by === TRAINED ? "blue: has loss" : "green: above 0, red: below 0";
  bar.append(el("span", { className: "dim" }, key));
  return el("div", {}, bar, line);
}

/* The largest absolute value of each column over all replies: one color scale for all of them. */
const LARGEST = Object.fromEntries(
  DATA.numbers.map((name, k) => [name, DATA.replies.reduce((most, r) => Math.max(most, Math.abs(r.c[k] || 0)), 0)]),
);

function table(pairs) {
  return el("table", { className: "pairs" }, ...pairs.map(([k, v]) => el("tr", {}, el("th", {}, k), el("td", {}, v))));
}

function siblingsTable(reply, siblings, pick) {
  const names = DATA.scores.filter((n) => siblings.some((r) => scoreOf(r, n) !== null));
  const numbers = ["reward", "advantage"].filter((n) => DATA.numbers.includes(n));
  const head = el("tr", {}, ...["", ...numbers, ...names, "reply"].map((n) => el("th", {}, n)));
  const rows = siblings.map((r) => {
    const row = el("tr", { className: r === reply ? "now" : "", onclick: () => pick(r) });
    row.append(el("td", {}, badge(r)));
    for (const n of numbers) row.append(numeric(n === "advantage" ? signed(numberOf(r, n)) : fmt(numberOf(r, n)), n === "advantage" ? diverging(numberOf(r, n), LARGEST[n]) : ""));
    for (const n of names) row.append(numeric(fmt(scoreOf(r, n)), ""));
    row.append(el("td", { className: "snip" }, r.x));
    return row;
  });
  return el("table", { className: "group" }, el("thead", {}, head), el("tbody", {}, ...rows));
}

function numeric(text, color) {
  const cell = el("td", { className: "num" }, text);
  cell.style.background = color;
  return cell;
}

const badge = (reply) => el("span", { className: `badge ${originOf(reply) === "policy" ? "" : "special"}` }, originOf(reply));

function drawReply(reply, siblings, pick) {
  const again = () => drawReply(reply, siblings, pick);
  const group = groupOf(reply);
  const layers = [];
  if (VIEW.others) for (const r of siblings) if (r !== reply) layers.push([r.m, "other"]);
  layers.push([reply.m, "predicted"]);
  if (VIEW.gold) layers.push([group.marks, "gold"]); // on top and dashed, so that a correct box shows both colors
  const media = mediaOf(promptOf(reply)).map((part, k) => mediumFigure(part, k, layers));
  const prompt = promptOf(reply).filter((p) => p.modality === "text");
  const messages = el("div", { className: "prompt" });
  for (const part of prompt) messages.append(el("div", {}, el("span", { className: "role" }, part.role), part.text));
  const plain = DATA.numbers.filter((n) => numberOf(reply, n) !== null).map((n) => [n, fmt(numberOf(reply, n))]);
  const scores = DATA.scores.filter((n) => scoreOf(reply, n) !== null).map((n) => [n, fmt(scoreOf(reply, n))]);
  const truth = typeof group.truth === "string" ? group.truth : JSON.stringify(group.truth);
  const facts = el("div", { className: "facts" });
  for (const [title, pairs] of [["scores", scores], ["columns", plain]]) {
    if (pairs.length) facts.append(el("div", {}, el("h4", {}, title), table(pairs)));
  }
  const others = siblings.length > 1 ? [el("h4", {}, `all ${siblings.length} replies of the group`), siblingsTable(reply, siblings, pick)] : [];
  byId("detail").replaceChildren(
    el("div", { className: "title" }, badge(reply), el("b", {}, group.uid), el("span", { className: "dim" }, `step ${group.step}`)),
    el("div", { className: "upper" }, el("div", {}, ...media, legend(reply, siblings, again) || ""), facts),
    tokens(reply, again),
    ...mediaOf(reply.q || []).map((part, k) => mediumFigure(part, k, [])),
    ...others,
    el("h4", {}, "prompt"), messages,
    el("h4", {}, "truth"), el("div", { className: "text dim" }, truth ?? "none"),
  );
}
