// What the parts of the page share: the data, safe element building, numbers, the theme.
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

/** A name of the data, isolated from the direction of the text around it. */
const nameOf = (index) => el("bdi", {}, visible(report.teachers[index]));

/** The same for plain strings (SVG, options): first-strong isolate .. pop isolate. */
const isolated = (text) => `\u2068${visible(text)}\u2069`;

/** A name in at most `limit` letters: its start if no other teacher shares it, else both ends. */
function shortened(text, limit) {
  const letters = [...visible(text)];
  if (letters.length <= limit) return letters.join("");
  const head = letters.slice(0, limit - 1).join("");
  if (report.teachers.filter((name) => visible(name).startsWith(head)).length < 2) return `${head}…`;
  const tail = Math.floor((limit - 1) / 2);
  return [...letters.slice(0, limit - 1 - tail), "…", ...letters.slice(-tail)].join("");
}

const given = (value) => value !== null && value !== undefined;

/** Fixed decimals, thousands apart, a true minus; a missing value is a dash. */
function number(value, decimals) {
  if (!given(value)) return "–";
  const text = value.toLocaleString("en-US",
    { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return (/[1-9]/.test(text) ? text : text.replace("-", "")).replace("-", "−");
}

/** A share as a whole per cent that never rounds up to certainty or down to never. */
function percent(share) {
  if (!given(share)) return "–";
  if (share > 0 && share < 0.01) return "< 1%";
  if (share > 0.99 && share < 1) return "> 99%";
  return `${Math.round(100 * share)}%`;
}

/** The reward that the charts show; every selector of rewards is kept on the same one. */
const chosen = { reward: null, listeners: [] };

function chooseReward(name) {
  chosen.reward = name;
  for (const select of $$("[data-reward-choice] select")) select.value = name;
  for (const listener of chosen.listeners) listener();
}

function startRewards() {
  const names = Object.keys(report.fields);
  const main = report.criteria[report.main].reward;
  chosen.reward = names.includes(main) ? main : names[0] ?? null;
  for (const holder of $$("[data-reward-choice]")) {
    holder.hidden = names.length < 2;
    const select = $("select", holder);
    select.append(...names.map((name) => el("option", { value: name }, isolated(name))));
    select.value = chosen.reward;
    select.addEventListener("change", () => chooseReward(select.value));
  }
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
startRewards();
