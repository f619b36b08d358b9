// The leaderboard: another criterion fills the server's cells anew, a column click reorders rows.
"use strict";

const board = { key: report.main, column: "rank", descending: false };
const svgNamespace = "http://www.w3.org/2000/svg";

function svg(tag, attributes) {
  const node = document.createElementNS(svgNamespace, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** The interval of one row as a dot and a line, in percent of the criterion's domain. */
function whisker(criterion, row, best) {
  const [low, high] = criterion.domain;
  const at = (value) => `${(100 * (value - low) / (high - low)).toFixed(2)}%`;
  return [
    svg("line", { class: "best", x1: at(best), x2: at(best), y1: 0, y2: 18 }),
    svg("line", { class: "span", x1: at(row.low), x2: at(row.high), y1: 9, y2: 9 }),
    svg("circle", { cx: at(row.score), cy: 9, r: 3 }),
  ];
}

function twoPart(cell, strong, weak, tag) {
  cell.replaceChildren(tag ? el(tag, {}, strong) : strong, " ", el("small", {}, weak));
}

function fillRow(tr, criterion, best) {
  const index = Number(tr.dataset.teacher);
  const row = criterion.rows[index];
  const fact = report.facts[index];
  const cell = (name) => $(`[data-cell="${name}"]`, tr);
  const range = !row || row.rank_low === row.rank_high ? "" : `${row.rank_low}–${row.rank_high}`;
  twoPart(cell("rank"), row ? String(row.rank) : "–", range, "b");
  const digits = criterion.decimals;
  twoPart(cell("score"), number(row?.score, digits),
    row ? `[${number(row.low, digits)}, ${number(row.high, digits)}]` : "");
  cell("p_best").textContent = percent(row?.p_best);
  cell("reward").textContent = number(fact.rewards[criterion.reward], 3);
  $(".tag", tr).hidden = !criterion.tied.includes(index);
  const chart = $(".whisker", tr);
  chart.replaceChildren(...(row ? whisker(criterion, row, best) : []));
}

/** The value a column sorts by; null sorts last in both directions. */
function sortValue(index, column) {
  const row = report.criteria[board.key].rows[index];
  const fact = report.facts[index];
  if (column === "teacher") return report.teachers[index].toLowerCase();
  if (column === "reward") return fact.rewards[report.criteria[board.key].reward] ?? null;
  if (column === "loss" || column === "tokens") return fact[column] ?? null;
  return row?.[column] ?? null;
}

function sortRows() {
  const body = $("#board tbody");
  const sign = board.descending ? -1 : 1;
  const rows = $$("tr", body).map((tr) => ({ tr, index: Number(tr.dataset.teacher) }));
  for (const row of rows) {
    row.value = sortValue(row.index, board.column);
    row.rank = sortValue(row.index, "rank") ?? Infinity;
  }
  rows.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
    if (a.value !== b.value) return a.value < b.value ? -sign : sign;
    return a.rank === b.rank ? a.index - b.index : a.rank - b.rank;
  });
  body.append(...rows.map((row) => row.tr));
  for (const th of $$("#board thead th[data-sort]")) {
    if (th.dataset.sort !== board.column) th.removeAttribute("aria-sort");
    else th.setAttribute("aria-sort", board.descending ? "descending" : "ascending");
  }
}

function showCriterion(key) {
  board.key = key;
  board.column = "rank";
  board.descending = false;
  const criterion = report.criteria[key];
  const ranked = criterion.rows.filter((row) => row);
  const best = ranked.reduce((a, b) => (b.rank < a.rank ? b : a)).score;
  for (const tr of $$("#board tbody tr")) fillRow(tr, criterion, best);
  const note = $("#board-note");
  $('[data-note="label"]', note).replaceChildren(el("bdi", {}, visible(criterion.label)));
  $('[data-note="direction"]', note).textContent = criterion.direction;
  $('[data-note="description"]', note).replaceChildren(
    el("bdi", {}, visible(criterion.description)));
  sortRows();
}

function startBoard() {
  const keys = Object.keys(report.criteria);
  const buttons = $$("#criteria button");
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      showCriterion(keys[Number(button.dataset.index)]);
    });
  }
  for (const th of $$("#board thead th[data-sort]")) {
    $("button", th).addEventListener("click", () => {
      const column = th.dataset.sort;
      const falling = ["p_best", "reward", "tokens"].includes(column)
        || (column === "score" && report.criteria[board.key].direction === "higher");
      board.descending = board.column === column ? !board.descending : falling;
      board.column = column;
      sortRows();
    });
  }
}

startBoard();
