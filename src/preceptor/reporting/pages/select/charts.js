// The two charts: reward against loss with lines of equal CAR, and rank against β.
"use strict";

const series = [1, 2, 3, 4, 5].map((i) => `var(--series-${i})`);
const lens = { beta: report.beta ?? 0 };
const car = (point, beta) => point.r / (1 + beta * point.loss);

/** Teachers with both a mean reward and a loss, as {index, name, r, loss}. */
function points() {
  const field = report.fields[chosen.reward];
  return report.teachers
    .map((name, index) => ({ index, name, r: field.means[index], loss: report.facts[index].loss }))
    .filter((point) => given(point.r) && given(point.loss));
}

/** Teachers by falling CAR at `beta`; equal values keep the run's order. */
const orderAt = (beta) => points().sort((a, b) => car(b, beta) - car(a, beta) || a.index - b.index);

function padded([low, high], share) {
  const margin = (high - low || Math.abs(high) || 1) * share;
  return [low - margin, high + margin];
}

/** Dashed lines r = c(1 + βL) of equal CAR c, and one solid line through the best teacher. */
function isoLines(all, beta, [x0, x1]) {
  const best = d3.max(all, (p) => car(p, beta));
  const step = d3.extent(all, (p) => car(p, beta));
  const line = (c, solid) => ({ c, solid, x0, y0: c * (1 + beta * x0), x1, y1: c * (1 + beta * x1) });
  return [...d3.ticks(step[0] - (step[1] - step[0]), step[1], 8).map((c) => line(c, false)),
    line(best, true)];
}

/** A new group of `chart` that the hover tip covers and the pointer passes through. */
const underTip = (chart) => d3.select(chart).insert("g", "g[aria-label='tip']")
  .attr("pointer-events", "none");

/**
 * Label points of `all` in order where no other label or dot is in the way; the rest go bare.
 * `at(point)` gives its two values on the scales.
 */
function placeLabels(chart, all, taken, width, at) {
  const x = chart.scale("x").apply, y = chart.scale("y").apply;
  const layer = underTip(chart).attr("font-size", 11.5)
    .attr("text-anchor", "start").attr("paint-order", "stroke").attr("stroke", "var(--paper)").attr("stroke-width", 3)
    .attr("stroke-linejoin", "round");
  const boxes = [...taken, ...all.map((p) => {
    const cx = x(at(p)[0]), cy = y(at(p)[1]);
    return [cx - 5, cy - 5, cx + 5, cy + 5];
  })];
  const clash = (a) => a[0] < 50 || a[2] > width - 4 || a[1] < 2
    || boxes.some((b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]);
  all.forEach((p, place) => {
    const text = layer.append("text").text(shortened(p.name, 26))
      .style("unicode-bidi", "isolate").attr("class", "point-label")
      .attr("fill", place < 5 ? "var(--ink)" : "var(--muted)")
      .attr("font-weight", place < 5 ? 650 : 400);
    const w = text.node().getComputedTextLength(), h = 13;
    const cx = x(at(p)[0]), cy = y(at(p)[1]);
    const options = [[9, -h / 2], [-9 - w, -h / 2], [-w / 2, -9 - h], [-w / 2, 8],
      [6, -h - 5], [6, 5], [-6 - w, -h - 5], [-6 - w, 5]];
    const spot = options.map(([dx, dy]) => [cx + dx, cy + dy, cx + dx + w, cy + dy + h])
      .find((box) => !clash(box));
    if (!spot) { text.remove(); return; }
    boxes.push(spot);
    text.attr("x", spot[0]).attr("y", spot[1] + h - 3);
  });
}

/** Write the CAR of every dashed line where it leaves the frame; returns the boxes used. */
function labelLines(chart, lines, xDomain, yDomain, beta) {
  const x = chart.scale("x").apply, y = chart.scale("y").apply;
  const layer = underTip(chart).attr("font-size", 10.5).attr("fill", "var(--muted)");
  const digits = lines.length > 2 ? Math.max(0, -Math.floor(Math.log10(lines[1].c - lines[0].c))) : 3;
  const boxes = [];
  for (const line of lines) {
    const leavesRight = line.y1 <= yDomain[1] && line.y1 >= yDomain[0];
    const at = leavesRight ? line.x1 : (yDomain[1] / line.c - 1) / beta;
    if (line.solid || !(at >= xDomain[0] && at <= xDomain[1])) continue;
    const px = x(at), py = leavesRight ? y(line.y1) : y(yDomain[1]) - 7;
    const box = leavesRight ? [px + 3, py - 6, px + 40, py + 6] : [px - 14, py - 10, px + 14, py + 3];
    if (boxes.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) continue;
    boxes.push(box);
    layer.append("text").attr("x", leavesRight ? px + 5 : px).attr("y", py + (leavesRight ? 4 : 1))
      .attr("text-anchor", leavesRight ? "start" : "middle").text(number(line.c, digits));
  }
  return boxes;
}

function tipText(p, withCar, beta) {
  const own = withCar ? `\nCAR ${number(car(p, beta), 4)} at β = ${number(beta, 2)}` : "";
  return `${isolated(p.name)}\nmean reward ${number(p.r, 3)}\nloss ${number(p.loss, 3)}${own}`;
}

function drawScatter(width) {
  const field = report.fields[chosen.reward], withCar = Boolean(field.car), { beta } = lens;
  const all = withCar ? orderAt(beta) : points();
  const xDomain = padded(d3.extent(all, (p) => p.loss), 0.09);
  const yDomain = padded(d3.extent(all, (p) => p.r), 0.09);
  const lines = withCar ? isoLines(all, beta, xDomain) : [];
  const leader = withCar ? all[0].index : report.recommended;
  const mapped = field.map === "none" ? "" : `, after ${field.map}`;
  const title = (p) => tipText(p, withCar, beta);
  const chart = Plot.plot({
    width, height: Math.round(Math.min(500, Math.max(340, width * 0.68))),
    marginLeft: 48, marginRight: withCar ? 44 : 16, marginTop: 34, marginBottom: 44,
    style: { background: "transparent", fontSize: "11.5px" },
    ariaLabel: "Mean reward against loss, one dot per teacher",
    ariaDescription: `First: ${isolated(report.teachers[leader])}. The leaderboard has all values.`,
    x: { domain: xDomain, label: "Loss L (nats per token) · lower is more compatible →", ticks: 6,
      labelAnchor: "right", labelArrow: "none" },
    y: { domain: yDomain, label: `↑ Mean reward (${shortened(chosen.reward, 20)}${mapped})`,
      labelArrow: "none", ticks: 6, labelOffset: 46 },
    marks: [
      Plot.link(lines, { x1: "x0", y1: "y0", x2: "x1", y2: "y1", clip: true,
        stroke: (d) => (d.solid ? "var(--accent)" : "var(--quiet)"),
        strokeDasharray: "3 4", strokeOpacity: 0.8, filter: (d) => !d.solid }),
      Plot.link(lines, { x1: "x0", y1: "y0", x2: "x1", y2: "y1", clip: true,
        stroke: "var(--accent)", strokeOpacity: 0.75, filter: (d) => d.solid }),
      Plot.dot(all, { x: "loss", y: "r", r: 4.5, fill: "var(--muted)", stroke: "var(--paper)",
        filter: (p) => p.index !== leader }),
      Plot.dot(all, { x: "loss", y: "r", r: 6.5, fill: "var(--accent)", stroke: "var(--paper)",
        filter: (p) => p.index === leader }),
      Plot.tip(all, Plot.pointer({ x: "loss", y: "r", title, fill: "var(--raised)",
        stroke: "var(--line)", lineHeight: 1.35 })),
    ],
  });
  asImage(chart);
  $("#scatter-chart").replaceChildren(chart);
  const used = labelLines(chart, lines, xDomain, yDomain, beta);
  placeLabels(chart, all, used, width, (p) => [p.loss, p.r]);
  if (!performance.getEntriesByName("first-chart").length) performance.mark("first-chart");
}

/** The order at the slider's β as a list and as one spoken sentence. */
function drawOrder() {
  const before = new Map(orderAt(report.beta).map((p, place) => [p.index, place]));
  const order = orderAt(lens.beta);
  $("#beta-value").textContent = number(lens.beta, 2);
  $("#order-words").textContent = `At β = ${number(lens.beta, 2)} the order is: `
    + order.slice(0, 5).map((p) => isolated(p.name)).join(", ");
  $("#order").replaceChildren(...order.map((p, place) => {
    const up = before.get(p.index) - place;
    const moved = up ? `${up > 0 ? "▲" : "▼"}${Math.abs(up)}` : "";
    return el("li", { class: p.index === report.recommended ? "recommended" : null },
      el("span", {}, String(place + 1)), nameOf(p.index),
      el("span", {}, number(car(p, lens.beta), 3)), el("span", { class: "moved" }, moved));
  }));
}

/** Teachers to colour: the first five at the grid step nearest the run's β. */
function topFive(grid) {
  const near = d3.least(grid, (step) => Math.abs(step.beta - lens.runBeta));
  return d3.range(report.teachers.length).filter((i) => given(near.ranks[i]))
    .sort((a, b) => near.ranks[a] - near.ranks[b] || a - b).slice(0, 5);
}

function drawBump(width) {
  const box = $("#bump-chart");
  const grid = report.sensitivity[chosen.reward] ?? Object.values(report.sensitivity)[0];
  const top = topFive(grid);
  const cells = grid.flatMap((step) => step.ranks.map((rank, index) => (
    { beta: step.beta, rank, index, name: report.teachers[index] }))).filter((d) => given(d.rank));
  const last = cells.filter((d) => d.beta === grid.at(-1).beta);
  const room = width < 560 ? 17 : 30;
  const longest = d3.max(last, (d) => shortened(d.name, room).length);
  const colour = (d) => series[top.indexOf(d.index)];
  const lines = (data, options) => [
    Plot.line(data, { x: "beta", y: "rank", z: "index", curve: "bump-x", ...options }),
    Plot.dot(data, { x: "beta", y: "rank", r: options.r, fill: options.stroke }),
  ];
  const isTop = (d) => top.includes(d.index);
  const chart = Plot.plot({
    width, height: 70 + 21 * d3.max(cells, (d) => d.rank),
    marginLeft: 34, marginRight: 18 + longest * 6.9, marginTop: 14, marginBottom: 44,
    style: { background: "transparent", fontSize: "11.5px" },
    ariaLabel: "Rank of every teacher by CAR at each β of the grid",
    ariaDescription: last.map((d) => `${isolated(d.name)}: rank ${d.rank} at β ${d.beta}`).join("; "),
    x: { type: "point", domain: grid.map((step) => step.beta), label: "β (steps of the grid, not to scale)",
      labelAnchor: "center", padding: 0.15, tickSize: 0, tickFormat: (beta) => String(beta) },
    y: { reverse: true, label: null, ticks: d3.max(cells, (d) => d.rank), tickSize: 0,
      domain: [1, d3.max(cells, (d) => d.rank)], tickFormat: "d" },
    marks: [
      Plot.ruleX(grid.filter((step) => step.beta === lens.runBeta),
        { x: "beta", stroke: "var(--line)", strokeWidth: 14 }),
      ...lines(cells.filter((d) => !isTop(d)), { stroke: "var(--quiet)", strokeWidth: 1.2, r: 2 }),
      ...lines(cells.filter(isTop), { stroke: colour, strokeWidth: 2.8, r: 4 }),
      Plot.text(last, { x: "beta", y: "rank", dx: 12, textAnchor: "start",
        text: (d) => shortened(d.name, room), title: (d) => visible(d.name),
        fill: (d) => (isTop(d) ? "var(--ink)" : "var(--muted)"), className: "bump-labels" }),
    ],
  });
  asImage(chart);
  for (const text of $$("[class*='bump-labels'] text, g[aria-label='text'] text", chart)) {
    text.style.unicodeBidi = "isolate";
  }
  box.replaceChildren(chart);
}

function startScatter() {
  const box = $("#scatter-chart");
  if (!box) return;
  const slider = $("#beta");
  const redraw = () => {
    const withCar = Boolean(report.fields[chosen.reward].car);
    for (const part of $$("#scatter [data-car]")) part.hidden = !withCar;
    if (box.clientWidth) drawScatter(Math.floor(box.clientWidth));
    if (withCar) drawOrder();
  };
  const move = (beta) => { lens.beta = beta; slider.value = beta; redraw(); };
  slider.max = Math.max(10, Math.ceil(lens.runBeta));
  slider.value = lens.beta;
  slider.addEventListener("input", () => { lens.beta = Number(slider.value); redraw(); });
  $("#beta-reset").addEventListener("click", () => move(lens.runBeta));
  chosen.listeners.push(redraw);
  redraw();
  onWidth(box, redraw);
}

function startBump() {
  const box = $("#bump-chart");
  if (!box) return;
  chosen.listeners.push(() => drawBump(Math.floor(box.clientWidth)));
  onWidth(box, drawBump);
}

lens.runBeta = lens.beta;
startScatter();
startBump();
