// The charts of a training run: panels over steps that share one cursor, and dot plots of quality.
// Text from the data reaches the page through textContent only.
"use strict";

const style = { background: "transparent", fontSize: "11.5px", overflow: "visible" };

/** A name of the data in at most `limit` letters, isolated from the text around it. */
function shortened(text, limit) {
  const letters = [...text];
  const head = letters.length > limit ? [...letters.slice(0, limit - 1), "…"] : letters;
  return isolated(head.join(""));
}

/** A logged value to three digits, whole from a thousand on; a missing one is a dash. */
function shown(value, zeros = true) {
  if (!value) return given(value) ? "0" : "–";
  const size = Math.abs(value), sign = value < 0 ? "−" : "", short = Number(size.toPrecision(3));
  if (short >= 1000) return sign + Math.round(size).toLocaleString("en-US");
  if (short < 1e-3) return sign + short.toExponential().replace("-", "−");
  return sign + (zeros ? size.toPrecision(3) : String(short));
}

const tick = (value) => shown(value, false);

/** Mean over `window` values around each one, fewer towards the ends; gaps stay gaps. */
function smoothed(values, window) {
  return values.map((value, i) => {
    const half = Math.min((window - 1) / 2, i, values.length - 1 - i);
    return given(value) ? d3.mean(values.slice(i - half, i + half + 1)) : null;
  });
}

/** Steps at which a new pass over the data begins; none where they would crowd the chart. */
function passes({ step, epoch }) {
  const starts = step.filter((_, i) => i && given(epoch[i]) && given(epoch[i - 1])
    && Math.floor(epoch[i]) > Math.floor(epoch[i - 1]) && i < step.length - 1);
  return starts.length > 6 ? [] : starts;
}

/** The points of one line: step, value as logged, value as drawn (NaN breaks a line). */
function pointsOf(line, window, log) {
  const run = report.runs[line.run], values = run[line.column];
  const drawn = window ? smoothed(values, window) : values;
  const fit = (value) => (!given(value) || (log && value <= 0) ? NaN : value);
  return run.step.map((step, i) => ({ step, raw: fit(values[i]), mean: fit(drawn[i]) }));
}

/** Ticks of a logarithmic scale: 1, 2 and 5 of each decade where three or more are in sight. */
function logTicks([low, high]) {
  const decades = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
  const factors = decades.length > 4 ? [1] : [1, 2, 5];
  const ticks = decades.flatMap((decade) => factors.map((factor) => factor * 10 ** decade))
    .filter((value) => value >= low && value <= high);
  return ticks.length > 2 ? ticks : d3.ticks(low, high, 4);
}

/** One panel as SVG; the thin lines are as logged, the others smoothed if that is on. */
function plotPanel(panel, state, width) {
  const log = state.log
    && panel.lines.some(({ run, column }) => report.runs[run][column].some((value) => value > 0));
  const window = state.smooth ? state.window : 0;
  const lines = panel.lines.map((line) => ({ ...line, points: pointsOf(line, window, log) }));
  const range = d3.extent(lines.flatMap((line) => line.points.map((point) => point.raw)));
  const stroke = (line) => `var(${line.colour})`;
  const chart = Plot.plot({
    width, height: panel.wide ? 250 : 200, style,
    marginLeft: 50, marginRight: 12, marginTop: 12, marginBottom: 34,
    ariaLabel: `${panel.title} over steps`,
    ariaDescription: panel.lines.map((line) => line.summary).join("; "),
    x: { domain: state.domain, label: "step", labelArrow: "none", labelAnchor: "right",
      ticks: Math.min(6, Math.floor(width / 70)), tickFormat: ",d" },
    y: { type: log ? "log" : "linear", label: null, grid: true, nice: !log,
      ticks: log ? logTicks(range) : 4, tickFormat: tick, zero: panel.zero && !log },
    marks: [
      Plot.ruleX(state.passes, { stroke: "var(--line)", strokeDasharray: "2 3" }),
      ...(window ? lines : []).map((line) => Plot.line(line.points,
        { x: "step", y: "raw", stroke: stroke(line), strokeWidth: 1, strokeOpacity: 0.32 })),
      ...lines.map((line) => Plot.line(line.points, { x: "step", y: "mean", stroke: stroke(line),
        strokeWidth: 2, strokeLinecap: "round", strokeDasharray: line.dash || null })),
    ],
  });
  return asImage(chart);
}

/** Move the line and the dots of a drawn panel to `step`, and write the values there. */
function showAt(view, step) {
  const x = view.chart.scale("x").apply(step), y = view.chart.scale("y").apply;
  const dots = [];
  view.panel.lines.forEach((line, place) => {
    const run = report.runs[line.run];
    const value = run[line.column][d3.bisectCenter(run.step, step)];
    view.outputs[place].textContent = shown(value);
    if (given(value) && Number.isFinite(y(value))) dots.push({ line, cy: y(value) });
  });
  const layer = d3.select(view.chart).selectAll("g.cursor").data([0]).join("g")
    .attr("class", "cursor");
  layer.selectAll("line").data([x]).join("line").attr("x1", x).attr("x2", x)
    .attr("y1", 12).attr("y2", view.chart.getAttribute("height") - 34)
    .attr("stroke", "var(--muted)").attr("stroke-width", 1);
  layer.selectAll("circle").data(dots).join("circle").attr("cx", x).attr("cy", (dot) => dot.cy)
    .attr("r", 3.5).attr("stroke", "var(--paper)").style("fill", (dot) => `var(${dot.line.colour})`);
}

/** A figure: its panels, its switches and its cursor. */
function startFigure(key) {
  const controls = $(`[data-controls="${key}"]`), holder = $(`[data-figure="${key}"]`);
  const { panels, window } = report.figures[key];
  const runs = [...new Set(panels.flatMap((panel) => panel.lines.map((line) => line.run)))]
    .map((run) => report.runs[run]);
  const steps = d3.union(...runs.map((run) => run.step));
  const order = d3.sort(steps);
  const [first, last] = d3.extent(order);
  const state = { log: false, smooth: Boolean(window), window, passes: passes(runs[0]),
    domain: first === last ? [first - 1, last + 1] : [first, last] };
  const slider = $("[data-cursor]", controls), output = $("output", controls);
  const views = panels.map((panel, place) => {
    const box = $(`[data-panel="${place}"]`, holder);
    return { panel, plot: $(".plot", box), outputs: $$("output", box), chart: null };
  });

  const step = () => order[slider.value];
  const point = () => {
    output.textContent = step().toLocaleString("en-US");
    slider.setAttribute("aria-valuetext", `step ${step()}`);
    for (const view of views) if (view.chart) showAt(view, step());
  };
  const draw = (view, width) => {
    view.chart = plotPanel(view.panel, state, width);
    view.plot.replaceChildren(view.chart);
    showAt(view, step());
  };

  slider.max = order.length - 1;
  slider.value = order.length - 1;
  slider.addEventListener("input", point);
  for (const box of $$("[data-switch]", controls)) {
    box.addEventListener("change", () => {
      state[box.dataset.switch] = box.checked;
      for (const view of views) if (view.chart) draw(view, Math.floor(view.plot.clientWidth));
    });
  }
  for (const view of views) {
    onWidth(view.plot, (width) => draw(view, width));
    view.plot.addEventListener("pointermove", (event) => {
      const [x] = d3.pointer(event, view.chart);
      slider.value = d3.bisectCenter(order, view.chart.scale("x").invert(x));
      point();
    });
  }
  point();
}

/** Rows as dots with intervals over one scale; small hollow dots are single seeds. */
function drawIntervals(box, rows, { decimals, domain, difference }, width) {
  const room = width < 420 ? 17 : 30;
  const labels = rows.map((row) => shortened(row.label, room));
  const words = rows.map((row) => `${row.label} ${number(row.value, decimals)}, from `
    + `${number(row.low, decimals)} to ${number(row.high, decimals)}`);
  const ink = (row) => (row.main ? "var(--accent)" : "var(--muted)");
  const place = (row) => rows.indexOf(row);
  const chart = Plot.plot({
    width, height: 52 + 28 * rows.length, style,
    marginLeft: 18 + 6.3 * d3.max(labels, (label) => label.length), marginRight: 14,
    marginTop: 6, marginBottom: 36,
    ariaLabel: difference ? "Differences with intervals" : "Scores with intervals",
    ariaDescription: words.join("; "),
    x: { domain, grid: true, ticks: Math.min(6, Math.floor(width / 90)), tickFormat: tick,
      label: difference ? "difference" : "score", labelArrow: "none", labelAnchor: "right" },
    y: { type: "point", domain: d3.range(rows.length), label: null, tickSize: 0, padding: 0.6,
      tickFormat: (i) => labels[i] },
    marks: [
      Plot.ruleX(difference ? [0] : [], { stroke: "var(--ink)", strokeDasharray: "3 3" }),
      Plot.ruleY(rows, { y: place, x1: "low", x2: "high", stroke: ink, strokeWidth: 2.5 }),
      Plot.dot(rows.flatMap((row) => (row.seeds ?? []).map((seed) => ({ seed, row }))),
        { x: "seed", y: (d) => place(d.row), dy: 8, r: 2.5, stroke: (d) => ink(d.row) }),
      Plot.dot(rows, { x: "value", y: place, r: 4.5, fill: ink, stroke: "var(--paper)" }),
    ],
  });
  asImage(chart);
  box.replaceChildren(chart);
}

function startQuality(kind) {
  const { decimals, [kind]: groups } = report.quality;
  const all = groups.flat(), difference = kind === "differences";
  if (!all.length) return;
  const [low, high] = d3.extent([...all.flatMap((row) => [row.low, row.high, ...row.seeds ?? []]),
    ...difference ? [0] : []]);
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  const look = { decimals, difference, domain: [low - margin, high + margin] };
  $$(`[data-quality="${kind}"] .panel`).forEach((panel, place) => {
    panel.hidden = !groups[place].length;
    const box = $(".plot", panel);
    onWidth(box, (width) => drawIntervals(box, groups[place], look, width));
  });
}

Object.keys(report.figures).forEach(startFigure);
if (report.quality) ["scores", "differences"].forEach(startQuality);
