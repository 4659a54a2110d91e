"use strict";
/* Scatter plots of samples at the 2-D coordinates an evaluation gave them; legend entries show or hide their points. */
const HUES = ["#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#9c6b4e", "#ff8ab7", "#00798c", "#777777"];
const hueOf = (i) => (i < HUES.length ? HUES[i] : `hsl(${(i * 47) % 360} 55% 50%)`);

function drawMaps() {
  if (!DATA.maps.length) return;
  byId("maps").hidden = false;
  const order = ["before", "best", "after"];
  const sorted = [...DATA.maps].sort((a, b) => order.indexOf(a.when) - order.indexOf(b.when));
  byId("maps-body").append(...sorted.map(mapFigure));
}

function mapFigure(map) {
  const [width, height, edge] = [460, 400, 12];
  const range = (k) => [Math.min(...map.points.map((p) => p[k])), Math.max(...map.points.map((p) => p[k]))];
  const [[left, right], [low, high]] = [range(0), range(1)];
  const x = (v) => edge + ((v - left) / (right - left || 1)) * (width - 2 * edge);
  const y = (v) => height - edge - ((v - low) / (high - low || 1)) * (height - 2 * edge);
  const groups = map.names.map((name, i) => svg("g", { fill: hueOf(i) }));
  for (const [px, py, name, reply] of map.points) {
    const about = svg("title");
    about.textContent = visible(`${map.names[name]}${reply && reply !== map.names[name] ? `, reply ${reply}` : ""}`);
    groups[name].append(svg("circle", { cx: x(px).toFixed(1), cy: y(py).toFixed(1), r: 3, "fill-opacity": 0.7 }, about));
  }
  const counts = map.names.map((_, i) => groups[i].childElementCount);
  const legend = el("div", { className: "legend" }, ...map.names.map((name, i) => {
    const entry = el("button", { type: "button", className: "entry" }, el("span", { className: "dot" }), `${name} ${counts[i]}`);
    entry.firstChild.style.background = hueOf(i);
    entry.onclick = () => {
      const off = groups[i].classList.toggle("off");
      entry.classList.toggle("off", off);
    };
    return entry;
  }));
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "map", role: "img" }, ...groups);
  return el("figure", { className: "mapped" }, el("figcaption", {}, `${map.bench}, ${map.when}`), plot, legend);
}
