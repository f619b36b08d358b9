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

/** Control characters in a form that can be seen; those of direction would turn text round. */
function visible(text) {
  return String(text)
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) =>
      String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\u007f/g, "\u2421")
    .replace(/[\u0080-\u009f\u202a-\u202e\u2066-\u2069]/g, (c) =>
      `[U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
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

/** A drawn chart as one image with a name: its parts are seen, not read one by one. */
function asImage(chart) {
  chart.setAttribute("role", "img");
  for (const part of chart.children) part.setAttribute("aria-hidden", "true");
  return chart;
}

/** How the line of a series looks: told from others by colour and by its dashes. */
const seriesLook = (place) => ({
  colour: place < 5 ? `var(--series-${place + 1})` : "var(--muted)",
  dash: ["", "7 3", "2 3", "10 3 2 3", "1 5"][place % 5] || null,
});

/** A piece of the line, for its legend. */
function lineKey(look) {
  const svg = d3.create("svg").attr("width", 26).attr("height", 10).attr("aria-hidden", "true");
  svg.append("line").attr("x2", 26).attr("y1", 5).attr("y2", 5).attr("stroke-width", 2.4)
    .style("stroke", look.colour).attr("stroke-dasharray", look.dash);
  return svg.node();
}

/** Call `draw(width)` now and whenever the width of `box` changes. */
function onWidth(box, draw) {
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.floor(box.clientWidth);
    if (width && width !== last) draw(last = width);
  }).observe(box);
}

/** Folds and what else is hidden are opened for the printer, save lists of quoted texts. */
function startPrinting() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = $$("details:not([open])").filter((fold) => !fold.closest("[data-print=open]"));
    for (const fold of closed) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of closed) fold.open = false;
    closed = [];
  });
}

/** Copy text; a page from a file may be refused the clipboard, then its selection is copied. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { /* refused: try it the old way */ }
  const area = el("textarea", { readonly: "", class: "sr", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  let done = false;
  try { done = document.execCommand("copy"); } catch { /* refused as well */ }
  area.remove();
  return done;
}

/** Buttons with `data-copy` copy the text of the element with that id, and say whether they did. */
function startCopying() {
  for (const button of $$("[data-copy]")) {
    const label = button.textContent, said = $("[role=status]", button.parentNode);
    button.addEventListener("click", async () => {
      const done = await copyText(document.getElementById(button.dataset.copy).textContent);
      button.focus();
      const words = done ? "Copied" : "Select it and copy";
      button.textContent = words;
      if (said) said.textContent = words;
      setTimeout(() => { button.textContent = label; }, 2500);
    });
  }
}

/** Save text under a name, from a page that may be a file and loads nothing. */
function saveFile(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

/** Buttons with `data-download` save a table that the page carries, or its Markdown. */
function startTakingAlong() {
  const held = $("#take-along-data");
  if (!held) return;
  const { csv, markdown } = JSON.parse(held.textContent);
  for (const button of $$("[data-download]")) {
    button.addEventListener("click", () => {
      const table = csv[button.dataset.download];
      if (table) saveFile(table.file, table.text, "text/csv");
      else saveFile(markdown, $("#markdown").textContent, "text/markdown");
    });
  }
}

startTheme();
startPrinting();
startCopying();
startTakingAlong();
