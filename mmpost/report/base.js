"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

/* As mmpost/core/display.py: control, format and bidirectional characters are shown instead of obeyed. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
const ZERO = 5e-8;

function visible(text) {
  return text.replace(UNSEEN, (c) => {
    const code = c.codePointAt(0);
    if (c === "\n" || c === "\t") return c;
    if (code < 32) return String.fromCharCode(0x2400 + code);
    if (code < 160) return code === 127 ? "\u2421" : "\ufffd";
    return `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
  });
}

const shownChild = (c) => (typeof c === "string" ? visible(c) : c);

/* Builds elements instead of parsing HTML, so that a run's texts cannot become markup. */
function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined).map(shownChild));
  return node;
}

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.map(shownChild));
  return node;
}

const byId = (id) => document.getElementById(id);

function fmt(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size < ZERO) return "0";
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}

function signed(value) {
  return value > 0 ? "+" + fmt(value) : fmt(value).replace("-", "\u2212");
}

/* Red below 0, green above 0; full strength at `most`. */
function diverging(value, most) {
  if (!value || !most) return "transparent";
  const strength = Math.min(1, Math.abs(value) / most);
  const alpha = (0.12 + 0.5 * strength).toFixed(3);
  return value > 0 ? `rgba(22,150,90,${alpha})` : `rgba(220,60,50,${alpha})`;
}

/* The less likely a token, the deeper the amber, up to a log-prob of -6 nats. */
function surprise(logp) {
  if (logp === null || logp === undefined) return "transparent";
  return `rgba(230,140,0,${(0.75 * Math.min(1, -logp / 6)).toFixed(3)})`;
}

function chip(text, on, toggle) {
  const button = el("button", { type: "button", className: "chip", ariaPressed: String(on) }, text);
  button.addEventListener("click", () => {
    const now = button.ariaPressed !== "true";
    button.ariaPressed = String(now);
    toggle(now);
  });
  return button;
}

function choice(label, options, pick, value) {
  const select = el("select", { ariaLabel: label, onchange: () => pick(select.value) });
  for (const [key, text] of options) select.append(el("option", { value: key }, text));
  if (value !== undefined) select.value = value;
  return el("label", { className: "field" }, el("span", {}, label), select);
}

function entry(label, type, width, typed) {
  const input = el("input", { type, ariaLabel: label, oninput: () => typed(input.value) });
  input.style.width = width;
  return el("label", { className: "field" }, el("span", {}, label), input);
}
