// Scores against the mean length of the answers, teachers coloured by family.
"use strict";

const symbols = ["circle", "square", "triangle", "diamond", "star"];
const controlsLens = { key: report.main };

/** Teachers with a score under the chosen criterion and a mean length. */
function lengthPoints() {
  const { rows } = report.criteria[controlsLens.key];
  return report.teachers.map((name, index) => ({
    index, name, score: rows[index]?.score, length: report.facts[index].tokens,
    ...report.controls.of[index],
  })).filter((point) => given(point.score) && given(point.length));
}

function lengthTip(point) {
  const criterion = report.criteria[controlsLens.key];
  const lines = [isolated(point.name),
    `${isolated(criterion.label)} ${number(point.score, criterion.decimals)}`,
    `mean length ${number(point.length, 0)} tokens`];
  if (given(point.family)) lines.push(`family ${isolated(point.family)}`);
  if (given(point.size)) lines.push(`${number(point.size, point.size < 10 ? 1 : 0)} billion parameters`);
  return lines.join("\n");
}

function drawLengths(width) {
  const criterion = report.criteria[controlsLens.key];
  const all = lengthPoints();
  const colour = (p) => (given(p.colour) ? series[p.colour] : "var(--muted)");
  const chart = Plot.plot({
    width, height: Math.round(Math.min(420, Math.max(300, width * 0.5))),
    marginLeft: 56, marginRight: 16, marginTop: 34, marginBottom: 44,
    style: { background: "transparent", fontSize: "11.5px" },
    ariaLabel: `${criterion.label} against the mean length of the answers, one mark per teacher`,
    x: { domain: padded(d3.extent(all, (p) => p.length), 0.09), ticks: 6, labelAnchor: "right",
      labelArrow: "none", label: "Mean length (tokens per answer) →" },
    y: { domain: padded(d3.extent(all, (p) => p.score), 0.09), ticks: 6, labelOffset: 54,
      reverse: criterion.direction === "lower", labelArrow: "none",
      label: `↑ ${isolated(shortened(criterion.label, 26))} (better is up)` },
    symbol: { domain: [...symbols, "none"], range: [...symbols, "cross"] },
    marks: [
      Plot.dot(all, { x: "length", y: "score", r: 5, fill: colour, stroke: "var(--paper)",
        symbol: (p) => (given(p.colour) ? symbols[p.colour] : "none") }),
      Plot.tip(all, Plot.pointer({ x: "length", y: "score", title: lengthTip,
        fill: "var(--raised)", stroke: "var(--line)", lineHeight: 1.35 })),
    ],
  });
  asImage(chart);
  $("#controls-chart").replaceChildren(chart);
  const order = [...all].sort((a, b) => a.index - b.index);
  placeLabels(chart, order, [], width, (p) => [p.length, p.score]);
}

/** Families with their marks; those of one teacher alone share the last one. */
function drawLegend() {
  const mark = (symbol, fill) => {
    const shape = svg("path", { d: d3.symbol(d3[`symbol${symbol}`], 70)(), fill });
    const box = svg("svg", { width: 14, height: 14, viewBox: "-8 -8 16 16", "aria-hidden": "true" });
    box.append(shape);
    return box;
  };
  const { families, of } = report.controls;
  const entries = families.map((family, place) => el("span", {},
    mark(symbols[place].replace(/^./, (c) => c.toUpperCase()), series[place]),
    " ", el("bdi", {}, visible(family.name)), ` (${family.n})`));
  if (families.length && of.some((own) => !given(own.colour))) {
    entries.push(el("span", {}, mark("Cross", "var(--muted)"), " others"));
  }
  $("#controls-legend").replaceChildren(...entries);
}

function startControls() {
  const box = $("#controls-chart");
  if (!box) return;
  const select = $("#controls-criterion");
  for (const [key, criterion] of Object.entries(report.criteria)) {
    select.append(el("option", { value: key }, isolated(criterion.label)));
  }
  select.value = controlsLens.key;
  select.addEventListener("change", () => {
    controlsLens.key = select.value;
    drawLengths(Math.floor(box.clientWidth));
  });
  drawLegend();
  onWidth(box, drawLengths);
}

startControls();
