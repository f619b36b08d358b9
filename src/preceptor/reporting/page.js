// What the report pages share: the data, safe element building, numbers, the theme.
// Text from the data reaches the page through textContent only.
"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
document.documentElement.classList.add("js");

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** A new element; `attributes` are set as such, children are nodes or strings (as text). */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** Control characters as their visible pictures (U+2400 and up). */
function visible(text) {
  return String(text).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) =>
    String.fromCharCode(0x2400 + c.charCodeAt(0)));
}

/** A name isolated from the text around it (SVG, options): first-strong isolate .. pop isolate. */
const isolated = (text) => `\u2068${visible(text)}\u2069`;

const given = (value) => value !== null && value !== undefined;

/** Fixed decimals, thousands apart, a true minus; a missing value is a dash. */
function number(value, decimals) {
  if (!given(value)) return "–";
  const text = value.toLocaleString("en-US",
    { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return (/[1-9]/.test(text) ? text : text.replace("-", "")).replace("-", "−");
}

function startTheme() {
  const root = document.documentElement;
  const button = $("#theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let stored = null;
  try { stored = localStorage.getItem("preceptor-theme"); } catch { /* a file may not store */ }
  const show = (dark) => {
    root.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", String(dark));
  };
  show(stored ? stored === "dark" : system.matches);
  button.addEventListener("click", () => {
    const dark = root.dataset.theme !== "dark";
    show(dark);
    try { localStorage.setItem("preceptor-theme", dark ? "dark" : "light"); } catch { /* ditto */ }
  });
  system.addEventListener("change", (event) => { if (!stored) show(event.matches); });
}

/** Call `draw(width)` now and whenever the width of `box` changes. */
function onWidth(box, draw) {
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.floor(box.clientWidth);
    if (width && width !== last) draw(last = width);
  }).observe(box);
}

startTheme();
