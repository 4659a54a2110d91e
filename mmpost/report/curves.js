"use strict";
/* Curves: one small plot per metric over the same steps; a click opens the replies of that step. */
const FIRST = [/^reward\/total$/, /^reward\//, /^eval\//, /^entropy$/, /^loss$/, /^grad_norm$/, /^reply\/length$/];
const WIDTH = 320;
const HEIGHT = 150;
const EDGE = { left: 46, right: 8, top: 8, bottom: 20 };

function drawCurves(goTo) {
  const names = Object.keys(DATA.metrics.series).filter((n) => DATA.metrics.series[n].some((v) => v !== null));
  if (!names.length) return;
  byId("curves").hidden = false;
  const chosen = new Set(names.filter((n) => FIRST.some((pattern) => pattern.test(n))));
  if (!chosen.size) names.slice(0, 9).forEach((n) => chosen.add(n));
  const state = { smooth: 0, search: "" };
  const body = byId("curves-body");
  const chips = el("div", { className: "chips" });
  const show = () => {
    body.replaceChildren(...names.filter((n) => chosen.has(n)).map((n) => plot(n, state.smooth, goTo)));
  };
  const list = () => {
    const shown = names.filter((n) => n.toLowerCase().includes(state.search.toLowerCase()));
    chips.replaceChildren(
      ...shown.map((n) => chip(n, chosen.has(n), (on) => { on ? chosen.add(n) : chosen.delete(n); show(); })),
    );
  };
  const all = (on) => { names.forEach((n) => (on ? chosen.add(n) : chosen.delete(n))); list(); show(); };
  byId("curves-bar").append(
    entry("metric", "search", "9em", (text) => { state.search = text; list(); }),
    choice("smooth", [[0, "off"], [5, "5 steps"], [20, "20 steps"], [100, "100 steps"]], (n) => { state.smooth = Number(n); show(); }),
    el("button", { type: "button", onclick: () => all(true) }, "all"),
    el("button", { type: "button", onclick: () => all(false) }, "none"),
    chips,
  );
  list();
  show();
}

function smoothed(values, window) {
  if (!window) return values;
  const out = [];
  let recent = [];
  for (const v of values) {
    if (v === null) { out.push(null); continue; }
    recent.push(v);
    if (recent.length > window) recent = recent.slice(-window);
    out.push(recent.reduce((a, b) => a + b, 0) / recent.length);
  }
  return out;
}

/* At most two points per pixel: the lowest and the highest of those that fall on it. */
function thinned(points) {
  if (points.length <= 2 * WIDTH) return points;
  const out = [];
  const size = Math.ceil(points.length / WIDTH);
  for (let i = 0; i < points.length; i += size) {
    const part = points.slice(i, i + size).sort((a, b) => a[1] - b[1]);
    out.push(...[part[0], part[part.length - 1]].sort((a, b) => a[0] - b[0]));
  }
  return out;
}

/* The lowest and highest value on the axis. A flat curve, which changes by rounding errors only, is a line in the middle. */
function range(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); }
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (high - low > Math.max(ZERO, size / 1e4)) return [low, high];
  const middle = size < ZERO ? 0 : (low + high) / 2;
  const pad = size < ZERO ? 1 : Math.max(size / 10, ZERO);
  return [middle - pad, middle + pad];
}

/* Values of grid lines with their labels, which have as many digits as it takes to tell them apart. */
function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 2 || 1));
  const wide = [1, 2, 5, 10].map((k) => k * step).find((s) => (high - low) / s <= 4) || step;
  const out = [];
  for (let k = Math.ceil(low / wide); k * wide <= high + wide / 1e6; k += 1) {
    const digits = Math.ceil(Math.log10(Math.max(1, Math.abs(k)))) + 1;
    out.push([k * wide, digits > 3 ? String(Number((k * wide).toPrecision(digits))) : fmt(k * wide)]);
  }
  return out;
}

function plot(name, smooth, goTo) {
  const steps = DATA.metrics.step;
  const points = smoothed(DATA.metrics.series[name], smooth).map((v, i) => [steps[i], v]).filter((p) => p[1] !== null);
  const [low, high] = range(points.map((p) => p[1]));
  const first = steps[0];
  const last = Math.max(steps[steps.length - 1], first + 1);
  const x = (s) => EDGE.left + ((s - first) / (last - first)) * (WIDTH - EDGE.left - EDGE.right);
  const y = (v) => HEIGHT - EDGE.bottom - ((v - low) / (high - low)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": visible(name) });
  for (const [v, label] of ticks(low, high)) {
    root.append(svg("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(v), y2: y(v) }));
    root.append(svg("text", { x: EDGE.left - 5, y: y(v) + 3.5, "text-anchor": "end" }, label));
  }
  root.append(svg("text", { x: EDGE.left, y: HEIGHT - 5 }, String(first)));
  root.append(svg("text", { x: WIDTH - EDGE.right, y: HEIGHT - 5, "text-anchor": "end" }, String(steps[steps.length - 1])));
  const line = thinned(points).map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`);
  root.append(svg("polyline", { class: "curve", points: line.join(" ") }));
  if (points.length < 25) for (const p of points) root.append(svg("circle", { class: "dot", cx: x(p[0]), cy: y(p[1]), r: 2 }));
  const value = el("span", { className: "value" }, points.length ? fmt(points[points.length - 1][1]) : "");
  const cursor = svg("line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" });
  root.append(cursor);
  const nearest = (event) => {
    const box = root.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    return points.reduce((best, p) => (Math.abs(x(p[0]) - at) < Math.abs(x(best[0]) - at) ? p : best), points[0]);
  };
  root.addEventListener("mousemove", (event) => {
    const p = nearest(event);
    cursor.setAttribute("x1", x(p[0]));
    cursor.setAttribute("x2", x(p[0]));
    cursor.setAttribute("visibility", "visible");
    value.textContent = `step ${p[0]}: ${fmt(p[1])}`;
  });
  root.addEventListener("mouseleave", () => {
    cursor.setAttribute("visibility", "hidden");
    value.textContent = fmt(points[points.length - 1][1]);
  });
  root.addEventListener("click", (event) => goTo(nearest(event)[0]));
  return el("figure", {}, el("figcaption", {}, el("span", {}, name), value), root);
}
