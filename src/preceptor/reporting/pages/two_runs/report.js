// The charts of two runs: ranks as slopes, values with intervals side by side, losses over steps.
// Text from the data reaches the page through textContent only.
"use strict";

const sides = { a: "var(--side-a)", b: "var(--side-b)" };

/** A name of the data in at most `limit` letters, isolated from the text around it. */
function shortened(text, limit) {
  const letters = [...text];
  return isolated(letters.length > limit ? [...letters.slice(0, limit - 1), "…"].join("") : text);
}

/** "A is blue, B is orange" as a list before a chart. */
function legend() {
  const item = (side, place) => el("li", { class: side }, el("i", { "aria-hidden": "true" }),
    `${side.toUpperCase()} `, el("bdi", {}, visible(report.labels[place])));
  return el("ul", { class: "legend" }, item("a", 0), item("b", 1));
}

/** Names that share a rank stand under each other: [{ rank, row, at }]. */
function spread(rows, side) {
  const used = new Set();
  return d3.sort(rows, (row) => row[side].rank).map((row) => {
    let at = row[side].rank;
    while (used.has(at)) at += 0.5;
    used.add(at);
    return { row, at };
  });
}

/** Rank intervals beside the dots of a side, in three columns so that neighbours stay apart. */
function rankBars(rows, side) {
  const x = side === "a" ? 0 : 1, away = x ? 1 : -1;
  return d3.range(3).map((column) => Plot.ruleX(
    d3.sort(rows, (row) => row[side].rank).filter((_, i) => i % 3 === column),
    { x, y1: (row) => row[side].low, y2: (row) => row[side].high, dx: away * (8 + 5 * column),
      stroke: sides[side], strokeWidth: 2, strokeOpacity: 0.75 }));
}

/** Names with their ranks beside a side; in bold where the rank intervals lie apart. */
function rankNames(rows, side, room) {
  const x = side === "a" ? 0 : 1, held = spread(rows, side);
  const words = ({ row }) => (x ? `${row.b.rank}  ${shortened(row.name, room)}`
    : `${shortened(row.name, room)}  ${row.a.rank}`);
  return [true, false].map((apart) => Plot.text(held.filter((d) => d.row.apart === apart),
    { x, y: "at", text: words, dx: x ? 28 : -28, textAnchor: x ? "start" : "end",
      fill: apart ? "var(--ink)" : "var(--muted)", fontWeight: apart ? 650 : 400 }));
}

/** Ranks of A on the left, of B on the right, a line per teacher; thin bars are rank intervals. */
function slopeChart({ rows }, width) {
  const room = width < 560 ? 12 : 34;
  const margin = Math.min(0.36 * width, 56 + 6.9 * Math.min(room, d3.max(rows, (row) => row.name.length)));
  const last = d3.max(rows, (row) => Math.max(row.a.high, row.b.high));
  const dots = rows.flatMap((row) => [{ row, x: 0, y: row.a.rank }, { row, x: 1, y: row.b.rank }]);
  const lines = (apart) => Plot.line(dots.filter((d) => d.row.apart === apart),
    { x: "x", y: "y", z: (d) => rows.indexOf(d.row), strokeWidth: apart ? 2.4 : 1.3,
      stroke: apart ? "var(--ink)" : "var(--quiet)" });
  const words = rows.map((row) => `${row.name}: rank ${row.a.rank} in A, ${row.b.rank} in B`);
  return Plot.plot({
    width, height: 36 + 23 * last, style,
    marginLeft: margin, marginRight: margin, marginTop: 8, marginBottom: 8,
    ariaLabel: "Rank of every teacher in A and in B", ariaDescription: words.join("; "),
    x: { domain: [0, 1], axis: null },
    y: { domain: [last + 0.5, 0.5], axis: null },
    marks: [
      lines(false),
      lines(true),
      ...rankBars(rows, "a"),
      ...rankBars(rows, "b"),
      Plot.dot(dots, { x: "x", y: "y", r: 3.5, fill: (d) => sides[d.x ? "b" : "a"] }),
      ...rankNames(rows, "a", room),
      ...rankNames(rows, "b", room),
    ],
  });
}

/** Values of A (round) and B (square) with their intervals, a row per name. */
function endsChart({ rows, label }, width) {
  const room = width < 560 ? 16 : 36;
  const held = rows.slice(0, 60);
  const names = held.map((row) => shortened(row.name, room));
  const points = held.flatMap((row, y) => ["a", "b"].map((side) => ({ ...row[side], side, y })));
  const words = held.map((row) => `${row.name}: ${short(row.a.value)} in A, ${short(row.b.value)} in B`);
  const shift = (side) => (side === "a" ? -5 : 5);
  const bars = (side) => Plot.ruleY(points.filter((d) => d.side === side && given(d.low)),
    { y: "y", x1: "low", x2: "high", dy: shift(side), stroke: sides[side], strokeWidth: 2.2 });
  const dots = (side) => Plot.dot(points.filter((d) => d.side === side),
    { y: "y", x: "value", dy: shift(side), r: 4, symbol: side === "a" ? "circle" : "square",
      fill: sides[side] });
  return Plot.plot({
    width, height: 54 + 30 * held.length, style,
    marginLeft: 18 + 6.3 * d3.max(names, (name) => name.length), marginRight: 18,
    marginTop: 6, marginBottom: 38,
    ariaLabel: "Values of A and B with their intervals", ariaDescription: words.join("; "),
    x: { grid: true, nice: true, ticks: Math.min(6, Math.floor(width / 90)), tickFormat: short,
      label: isolated(label), labelArrow: "none", labelAnchor: "right" },
    y: { type: "point", domain: d3.range(held.length), label: null, tickSize: 0, padding: 0.6,
      tickFormat: (i) => names[i] },
    marks: [bars("a"), bars("b"), dots("a"), dots("b")],
  });
}

/** A loss of both runs over the steps; B is dashed. */
function linesChart({ lines, label }, width) {
  const points = lines.flatMap(({ run, points: own }) => own.map(([step, value]) => (
    { run: run.toLowerCase(), step, value })));
  const title = (d) => `${d.run.toUpperCase()} at step ${d.step.toLocaleString("en-US")}: ${short(d.value)}`;
  const line = (side, dash) => Plot.line(points.filter((d) => d.run === side),
    { x: "step", y: "value", stroke: sides[side], strokeWidth: 2, strokeDasharray: dash });
  const ends = lines.map(({ run, points: own }) => `${run} from ${short(own[0][1])} to ${short(own.at(-1)[1])}`);
  return Plot.plot({
    width, height: 260, style,
    marginLeft: 50, marginRight: 16, marginTop: 12, marginBottom: 36,
    ariaLabel: `${label} over steps`, ariaDescription: ends.join("; "),
    x: { label: "step", labelArrow: "none", labelAnchor: "right", tickFormat: ",d",
      ticks: Math.min(8, Math.floor(width / 80)) },
    y: { grid: true, nice: true, ticks: 5, tickFormat: short, label: null },
    marks: [
      line("a", null),
      line("b", "5 3"),
      Plot.tip(points, Plot.pointer({ x: "step", y: "value", title, ...tipStyle })),
    ],
  });
}

/** A chart as one picture: its marks carry classes instead of names that nobody may read out. */
function asPicture(chart) {
  asImage(chart);
  for (const group of $$("g[aria-label]", chart)) {
    group.classList.add(...group.getAttribute("aria-label").split(/\W+/).filter(Boolean));
    group.removeAttribute("aria-label");
  }
  return chart;
}

const charts = { slope: slopeChart, ends: endsChart, lines: linesChart };

for (const holder of $$("[data-chart]")) {
  const own = report.charts[holder.dataset.chart];
  const plot = el("div", { class: "plot" });
  holder.append(legend(), plot);
  onWidth(plot, (width) => {
    plot.replaceChildren(asPicture(charts[own.kind](own, width)));
  });
}
startChoices(() => {});
