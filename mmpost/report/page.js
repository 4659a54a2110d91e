"use strict";
function drawHead() {
  const s = DATA.summary;
  const setting = (name) => (DATA.config.match(new RegExp(`^${name}:\\n  name: (.*)$`, "m")) || [])[1];
  document.title = visible(`${DATA.name} \u2013 mmpost`);
  const facts = [
    ["task", setting("task")], ["model", setting("model")], ["steps", s.steps], ["seed", s.seed],
    ["time", s.wall_s === undefined ? undefined : clock(s.wall_s)], ["replies", DATA.replies.length.toLocaleString("en")],
  ].filter((f) => f[1] !== undefined);
  const state = s.status || "running or killed";
  byId("head").append(
    el("h1", {}, DATA.name, el("span", { className: `status ${state === "done" ? "done" : "open"}` }, state)),
    el("div", { className: "factline" }, ...facts.map(([k, v]) => el("span", {}, `${k} `, el("b", {}, String(v))))),
  );
  if (s.reason) byId("head").append(el("p", { className: "reason" }, s.reason));
}

function clock(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function drawEvals() {
  const { columns } = DATA.evaluations;
  if (!columns.length) return;
  byId("evals").hidden = false;
  for (const [heading, metrics] of columns) {
    if (!Object.keys(metrics).length) byId("evals-body").append(el("p", {}, `${heading}: no rows, so nothing was measured`));
  }
  for (const text of DATA.summary.notes || []) byId("evals-body").append(el("p", { className: "note" }, text));
  for (const text of DATA.summary.forgotten || []) byId("evals-body").append(el("p", { className: "reason" }, text));
  const names = [...new Set(columns.flatMap(([, metrics]) => Object.keys(metrics)))];
  const benches = [...new Set(names.map((n) => n.split("/")[0]))];
  const [one, two] = DATA.evaluations.drawn;
  for (const bench of benches) {
    const metrics = names.filter((n) => n.split("/")[0] === bench);
    const drawn = two ? `${one} \u25cb ${two} \u25cf` : "";
    const head = [bench, ...columns.map((c) => c[0]), drawn].map((h) => el("th", {}, h));
    const rows = metrics.map((name) => evalRow(name, columns));
    byId("evals-body").append(el("table", { className: "evals" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
  }
}

function evalRow(name, columns) {
  const cells = columns.map(([, metrics]) => {
    const s = metrics[name];
    return s ? el("td", {}, el("b", {}, fmt(s.value)), el("small", {}, ` ${fmt(s.low)} to ${fmt(s.high)}`)) : el("td");
  });
  return el("tr", {}, el("th", {}, name.split("/").slice(1).join("/") || name), ...cells, el("td", { className: "forest" }, forest(name)));
}

/* The intervals of the two evaluations that are compared, on one scale, which includes 0. */
function forest(name) {
  const metrics = new Map(DATA.evaluations.columns);
  const [one, two] = DATA.evaluations.drawn.map((heading) => (metrics.get(heading) || {})[name]);
  const root = svg("svg", { viewBox: "0 0 200 24", class: "interval" });
  const all = [one, two].filter(Boolean);
  const low = Math.min(0, ...all.map((s) => s.low));
  const high = Math.max(...all.map((s) => s.high), low + 1e-9);
  const x = (v) => 6 + ((v - low) / (high - low)) * 188;
  for (const [s, y, style] of [[one, 7, "was"], [two, 17, "is"]]) {
    if (!s) continue;
    root.append(svg("line", { class: style, x1: x(s.low), x2: x(s.high), y1: y, y2: y }));
    root.append(svg("circle", { class: style, cx: x(s.value), cy: y, r: 4 }));
  }
  return root;
}

function drawAbout() {
  const versions = Object.entries(DATA.summary.versions || {});
  const more = ["base_hash", "recipe_hash", "format"].filter((k) => DATA.summary[k] !== undefined).map((k) => [k, String(DATA.summary[k])]);
  const body = byId("about-body");
  byId("about").hidden = !versions.length && !DATA.config;
  if (versions.length) body.append(table([...versions, ...more]));
  if (DATA.config) body.append(el("details", {}, el("summary", {}, "config.yaml"), el("pre", {}, DATA.config)));
}

drawHead();
drawEvals();
drawCurves(goToStep);
drawMaps();
drawSamples();
drawAbout();
document.body.dataset.ready = "yes";
