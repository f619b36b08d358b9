// The tables of an evaluation: the measure of each benchmark, the order of the rows.
// Text from the data reaches the page through textContent only.
"use strict";

/** Differences and values travel as lists; here they get their names. */
const cellOf = (own) => (own ? { value: own[0], low: own[1], high: own[2] } : null);
const gapOf = ([model, against, value, low, high, decimals, p, holm, test, better, worse, side]) => (
  { model, against, value, low, high, decimals, p, holm, test, better, worse, side });
for (const board of report.benchmarks) {
  for (const measure of board.measures) {
    measure.cells = measure.cells.map(cellOf);
    measure.by_category = measure.by_category.map((row) => row.map(cellOf));
    measure.gaps = measure.gaps.map(gapOf);
    measure.pairs = measure.pairs.map(gapOf);
  }
}

/** The measure that is shown of each benchmark, and who wants to know when it changes. */
const chosen = { measures: report.benchmarks.map(() => 0), listeners: [] };
const measureOf = (benchmark) => report.benchmarks[benchmark].measures[chosen.measures[benchmark]];

/** A name in at most `limit` letters, both ends where its start alone would not tell it apart. */
function shortened(text, limit, all = report.models) {
  const letters = [...visible(text)];
  if (letters.length <= limit) return isolated(letters.join(""));
  const head = letters.slice(0, limit - 1).join("");
  if (all.filter((name) => visible(name).startsWith(head)).length < 2) return isolated(`${head}…`);
  const tail = Math.floor((limit - 1) / 2);
  return isolated([...letters.slice(0, limit - 1 - tail), "…", ...letters.slice(-tail)].join(""));
}

/** "54.2" and "[50.1, 58.3]"; the second is empty where there is no interval. */
function wordsOf(own, decimals) {
  if (!own) return ["–", ""];
  const value = number(own.value, decimals);
  return given(own.low) && given(own.high)
    ? [value, `[${number(own.low, decimals)}, ${number(own.high, decimals)}]`] : [value, ""];
}

/** The content of a cell with a value and its interval. */
function measured(own, decimals) {
  const [value, ends] = wordsOf(own, decimals);
  return ends ? [value, " ", el("small", {}, ends)] : [value];
}

function pWords(p) {
  if (!given(p)) return "–";
  return p < 0.001 ? "< 0.001" : number(p, 3);
}

const readings = { "1": "better", "-1": "worse", "0": "not separable" };

function fillScores(benchmark) {
  const measure = measureOf(benchmark);
  for (const tr of $$("#scores tbody tr")) {
    const model = Number(tr.dataset.model);
    const cell = $(`[data-cell="${benchmark}"]`, tr);
    const tie = el("span", { class: "tie", title: "Cannot be told apart from the first" }, "≈");
    cell.replaceChildren(...(measure.tied.includes(model) ? [tie, " "] : []),
      ...measured(measure.cells[model], measure.decimals));
    cell.classList.toggle("best", report.models.length > 1 && measure.order[0] === model);
  }
}

function fillCategories(benchmark) {
  const measure = measureOf(benchmark);
  for (const cell of $$(`[data-categories="${benchmark}"] td`)) {
    const [category, model] = cell.dataset.at.split("-").map(Number);
    const shade = measure.shades[category][model];
    cell.className = given(shade) ? `shade-${shade}` : "";
    cell.replaceChildren(...measured(measure.by_category[category][model], measure.decimals));
  }
}

function gapRow(row, paired) {
  const who = el("th", { scope: "row", class: "text" }, named(report.models[row.model]));
  if (paired) who.append(" − ", named(report.models[row.against]));
  const items = given(row.better) ? `${number(row.better, 0)} / ${number(row.worse, 0)}` : "–";
  return el("tr", {}, who,
    el("td", { class: "number" }, ...measured(row, row.decimals)),
    el("td", { class: row.side ? "text sure" : "text" }, readings[row.side]),
    el("td", {}, pWords(row.p)), el("td", {}, pWords(row.holm)),
    el("td", { class: "text" }, named(row.test)), el("td", {}, items));
}

function fillGaps(benchmark) {
  for (const body of $$(`tbody[data-benchmark="${benchmark}"]`)) {
    const kind = body.dataset.gaps;
    const rows = measureOf(benchmark)[kind].map((row) => gapRow(row, kind === "pairs"));
    body.replaceChildren($(".group", body), ...rows);
  }
}

const order = { column: "0", descending: report.benchmarks[0]?.measures[0].direction === "higher" };

/** The value a column sorts by; null sorts last in both directions. */
function sortValue(model, column) {
  if (column === "name") return report.models[model].toLowerCase();
  return measureOf(Number(column)).cells[model]?.value ?? null;
}

function sortRows() {
  const body = $("#scores tbody");
  const sign = order.descending ? -1 : 1;
  const rows = $$("tr", body).map((tr) => {
    const model = Number(tr.dataset.model);
    return { tr, model, value: sortValue(model, order.column) };
  });
  rows.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
    if (a.value !== b.value) return a.value < b.value ? -sign : sign;
    return a.model - b.model;
  });
  body.append(...rows.map((row) => row.tr));
  for (const th of $$("#scores thead th")) {
    if (th.dataset.sort !== order.column) th.removeAttribute("aria-sort");
    else th.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
  }
}

function startSorting() {
  for (const th of $$("#scores thead th")) {
    $("button", th).addEventListener("click", () => {
      const column = th.dataset.sort;
      const falling = column !== "name" && measureOf(Number(column)).direction === "higher";
      order.descending = order.column === column ? !order.descending : falling;
      order.column = column;
      sortRows();
    });
  }
}

/** Show another measure of a benchmark, everywhere on the page. */
function chooseMeasure(benchmark, place) {
  chosen.measures[benchmark] = place;
  for (const select of $$(`[data-measure-of="${benchmark}"]`)) select.value = place;
  for (const title of $$(`[data-title-of="${benchmark}"]`)) {
    title.replaceChildren(named(measureOf(benchmark).caption));
  }
  fillScores(benchmark);
  fillCategories(benchmark);
  fillGaps(benchmark);
  sortRows();
  for (const listener of chosen.listeners) listener(benchmark);
}

function startMeasures() {
  for (const select of $$("[data-measure-of]")) {
    const benchmark = Number(select.dataset.measureOf);
    select.append(...report.benchmarks[benchmark].measures.map((measure, place) => (
      el("option", { value: place }, isolated(measure.title)))));
    select.addEventListener("change", () => chooseMeasure(benchmark, Number(select.value)));
  }
}

startSorting();
startMeasures();
