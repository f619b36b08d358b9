// The charts of an evaluation: scores and differences with intervals, and radar plots of categories.
"use strict";

const style = { background: "transparent", fontSize: "11.5px", overflow: "visible" };
const better = (measure) => (measure.direction === "higher" ? "better →" : "lower is better →");

/** Axis ticks without zeros at the end. */
const tick = (value) => String(Number(value.toPrecision(6))).replace("-", "−");

/** Values with intervals as dots over one scale whose better end is right; best on top. */
function intervalChart(rows, measure, width, { zero = null, dashed = null, label, ink, hollow }) {
  const ends = rows.flatMap((row) => [row.value, row.low, row.high]).filter(given);
  const [low, high] = d3.extent([...ends, ...given(zero) ? [zero] : []]);
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  const place = (row) => rows.indexOf(row);
  const labels = rows.map((row) => shortened(report.models[row.model], width < 420 ? 17 : 30));
  const chart = Plot.plot({
    width, height: 54 + 27 * rows.length, style,
    marginLeft: 14 + 6.3 * d3.max(labels, (text) => text.length - 2), marginRight: 16,
    marginTop: 8, marginBottom: 38,
    ariaLabel: label,
    ariaDescription: rows.map((row) => `${isolated(report.models[row.model])} `
      + wordsOf(row, row.decimals ?? measure.decimals).join(" ")).join("; "),
    x: { domain: [low - margin, high + margin], reverse: measure.direction === "lower", grid: true,
      ticks: Math.min(6, Math.floor(width / 90)), tickFormat: tick, label: better(measure),
      labelArrow: "none", labelAnchor: "right" },
    y: { type: "point", domain: d3.range(rows.length), label: null, tickSize: 0, padding: 0.6,
      tickFormat: (i) => labels[i] },
    marks: [
      Plot.ruleX(given(zero) ? [zero] : [], { stroke: "var(--ink)", strokeDasharray: "3 3" }),
      Plot.ruleX(given(dashed) ? [dashed] : [], { stroke: "var(--quiet)", strokeDasharray: "3 3" }),
      Plot.ruleY(rows.filter((row) => given(row.low) && given(row.high)),
        { y: place, x1: "low", x2: "high", stroke: ink, strokeWidth: 2.5 }),
      Plot.dot(rows, { x: "value", y: place, r: 4.5, stroke: ink, strokeWidth: 1.8,
        fill: (row) => (hollow(row) ? "var(--paper)" : ink(row)) }),
    ],
  });
  return asImage(chart);
}

function scoresChart(benchmark, width) {
  const measure = measureOf(benchmark);
  const rows = measure.order.map((model) => ({ model, ...measure.cells[model] }));
  if (!rows.length) return el("p", { class: "quiet" }, "no scores");
  return intervalChart(rows, measure, width, {
    label: `Scores on ${isolated(report.benchmarks[benchmark].name)}`,
    dashed: measure.cells[report.reference]?.value,
    ink: (row) => (row.model === measure.order[0] ? "var(--accent)" : "var(--muted)"),
    hollow: (row) => row.model === report.reference,
  });
}

function gapsChart(benchmark, width) {
  const measure = measureOf(benchmark);
  const rows = measure.order.map((model) => measure.gaps.find((row) => row.model === model))
    .filter(given);
  if (!rows.length) return el("p", { class: "quiet" }, "no differences");
  return intervalChart(rows, measure, width, {
    label: `Differences to ${isolated(report.models[report.reference])} on `
      + isolated(report.benchmarks[benchmark].name),
    zero: 0,
    ink: (row) => ["var(--series-2)", "var(--muted)", "var(--accent)"][row.side + 1],
    hollow: (row) => row.side === 0,
  });
}

const charts = { scores: scoresChart, gaps: gapsChart };

function startCharts() {
  for (const panel of $$("[data-charts] .panel")) {
    const draw = charts[panel.closest("[data-charts]").dataset.charts];
    const benchmark = Number(panel.dataset.benchmark), box = $(".plot", panel);
    const redraw = (width) => box.replaceChildren(draw(benchmark, width));
    onWidth(box, redraw);
    chosen.listeners.push((changed) => {
      if (changed === benchmark && box.clientWidth) redraw(Math.floor(box.clientWidth));
    });
  }
}

/** The models that a radar plot has shown so far, in that order: a model keeps its look. */
const met = [];

/** How a model looks in every radar plot: told apart by colour, dash and mark at once. */
function lookOf(model) {
  const own = model === report.reference;
  if (!own && !met.includes(model)) met.push(model);
  const place = own ? 0 : 1 + met.indexOf(model);
  return {
    colour: own ? "var(--ink)" : `var(--series-${1 + (place - 1) % 5})`,
    dash: own ? "5 3" : ["", "9 3", "2 3"][Math.floor((place - 1) / 5) % 3],
    symbol: d3.symbol(d3.symbolsFill[place % d3.symbolsFill.length], 42),
  };
}

/** The models that a plot shows at first: the reference, and the best by the measure. */
function shownFirst(measure) {
  const others = measure.order.filter((model) => model !== report.reference);
  const first = [...others.slice(0, 4), ...measure.order.filter((m) => m === report.reference)];
  return new Set(first);
}

/** Lines of text of at most `limit` letters, broken between words where that works. */
function folded(text, limit) {
  const lines = [];
  for (const word of visible(text).split(/[\s_]+/)) {
    const last = lines.length - 1;
    if (last >= 0 && lines[last].length + word.length < limit) lines[last] += ` ${word}`;
    else lines.push(word);
  }
  return lines.slice(0, 3).map((line) => shortened(line, limit, []));
}

function radarLabels(layer, categories, point, limit) {
  categories.forEach((category, place) => {
    const [x, y] = point(place, 1);
    const lines = folded(category, limit);
    const anchor = Math.abs(x) < 8 ? "middle" : x < 0 ? "end" : "start";
    const shift = y < -8 ? -12 * (lines.length - 1) : y > 8 ? 9 : -6 * (lines.length - 1) + 4;
    const text = layer.append("text").attr("text-anchor", anchor).attr("fill", "var(--ink)");
    lines.forEach((line, row) => text.append("tspan").attr("x", x).attr("y", y + shift + 12 * row)
      .text(line));
    text.append("title").text(isolated(category));
  });
}

/** One radar plot: a spoke a category, a closed line a model; a missing value leaves a gap. */
function radarChart(board, measure, shown, width) {
  const n = board.categories.length, side = width < 420 ? 62 : 96;
  const radius = Math.max(70, Math.min(175, width / 2 - side));
  const height = 2 * radius + 84;
  const values = shown.flatMap((model) => board.categories.map((_, c) => (
    measure.by_category[c][model]?.value))).filter(given);
  const [least, most] = d3.extent(values.length ? values : [0, 1]);
  const floor = given(measure.low) && measure.low <= least ? measure.low : least - (most - least) / 4;
  const scale = d3.scaleLinear([floor, most > floor ? most : floor + 1], [0, radius]).nice(4);
  scale.domain([floor, given(measure.high) ? Math.min(measure.high, scale.domain()[1])
    : scale.domain()[1]]);
  const angle = (place) => 2 * Math.PI * place / n;
  const at = (place, r) => [r * Math.sin(angle(place)), -r * Math.cos(angle(place))];
  const chart = d3.create("svg").attr("width", width).attr("height", height)
    .attr("viewBox", `${-width / 2} ${-height / 2} ${width} ${height}`).attr("role", "img")
    .attr("font-size", 11.5)
    .attr("aria-label", `${isolated(measure.caption)} by category, ${isolated(board.name)}`)
    .attr("aria-description", "The table beside it has all values.");
  const rings = scale.ticks(4).filter((value) => value > floor);
  const web = chart.append("g").attr("fill", "none").attr("stroke", "var(--line)");
  web.selectAll("path").data(rings).join("path").attr("d", (value) => (
    `M${d3.range(n).map((place) => at(place, scale(value)).join()).join("L")}Z`));
  web.selectAll("line").data(d3.range(n)).join("line").attr("x2", (place) => at(place, radius)[0])
    .attr("y2", (place) => at(place, radius)[1]);
  radarLabels(chart.append("g"), board.categories, (place) => at(place, radius + 12),
    width < 420 ? 10 : 15);
  for (const model of shown) {
    const look = lookOf(model);
    const cells = board.categories.map((_, c) => measure.by_category[c][model]);
    const points = cells.map((own, c) => (own ? at(c, Math.max(0, scale(own.value))) : null));
    const whole = points.every(given);
    const line = d3.line().defined(given).curve(whole ? d3.curveLinearClosed : d3.curveLinear);
    const group = chart.append("g").attr("data-model", model).style("color", look.colour);
    group.append("path").attr("d", line(points)).attr("stroke", "currentColor")
      .attr("stroke-width", 2).attr("stroke-dasharray", look.dash || null)
      .attr("fill", "none");
    points.forEach((point, c) => {
      if (!point) return;
      group.append("path").attr("class", "mark").attr("d", look.symbol())
        .attr("transform", `translate(${point})`).attr("fill", "currentColor")
        .attr("stroke", "var(--paper)").append("title")
        .text(`${isolated(report.models[model])}, ${isolated(board.categories[c])}: `
          + wordsOf(cells[c], measure.decimals).join(" "));
    });
  }
  const scaleText = chart.append("g").attr("fill", "var(--muted)").attr("font-size", 10)
    .attr("paint-order", "stroke").attr("stroke", "var(--paper)").attr("stroke-width", 3);
  scaleText.selectAll("text").data(rings).join("text").attr("x", 4)
    .attr("y", (value) => -scale(value) + 3).text(tick);
  return chart.node();
}

/** A key of the legend: the line and the mark of a model as they are drawn, or a blank. */
function swatch(model, shown) {
  const svg = d3.create("svg").attr("width", 30).attr("height", 12).attr("aria-hidden", "true");
  if (!shown) return svg.node();
  const look = lookOf(model);
  svg.style("color", look.colour);
  svg.append("line").attr("x2", 30).attr("y1", 6).attr("y2", 6).attr("stroke", "currentColor")
    .attr("stroke-width", 2).attr("stroke-dasharray", look.dash || null);
  svg.append("path").attr("d", look.symbol()).attr("transform", "translate(15 6)")
    .attr("fill", "currentColor").attr("stroke", "var(--paper)");
  return svg.node();
}

function startRadar(figure) {
  const benchmark = Number(figure.dataset.radar), board = report.benchmarks[benchmark];
  const box = $(".plot", figure), legend = $(".legend", figure);
  const shown = shownFirst(measureOf(benchmark));
  const draw = () => {
    const width = Math.floor(box.clientWidth);
    const models = d3.range(report.models.length).filter((model) => shown.has(model));
    if (width) box.replaceChildren(radarChart(board, measureOf(benchmark), models, width));
  };
  report.models.forEach((name, model) => {
    const button = el("button", { type: "button", "aria-pressed": String(shown.has(model)) },
      swatch(model, shown.has(model)), " ", named(name));
    button.addEventListener("click", () => {
      if (!shown.delete(model)) shown.add(model);
      $("svg", button).replaceWith(swatch(model, shown.has(model)));
      button.setAttribute("aria-pressed", String(shown.has(model)));
      draw();
    });
    legend.append(el("li", {}, button));
  });
  onWidth(box, draw);
  chosen.listeners.push((changed) => { if (changed === benchmark) draw(); });
}

startCharts();
$$("[data-radar]").forEach(startRadar);
