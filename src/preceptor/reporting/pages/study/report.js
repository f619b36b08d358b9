// The charts of a study: outcome over the teachers' size, and scores of a criterion against outcomes.
// Text from the data reaches the page through textContent only.
"use strict";

const colours = [1, 2, 3, 4, 5].map((place) => `var(--series-${place})`);
const colourOf = (point) => (point.series < 0 ? "var(--muted)" : colours[point.series]);

/** Billions of parameters in few characters. */
function sizeText(billions) {
  if (billions >= 1) return `${short(billions)} B`;
  return billions >= 1e-3 ? `${short(billions * 1e3)} M` : `${short(billions * 1e6)} k`;
}

/** Outcome over size on a logarithmic axis: a line a family, a whisker an interval. */
function familyPanel(base, width) {
  const points = base.points;
  const last = d3.groups(points, (d) => d.family).map(([, own]) => own[own.length - 1]);
  const title = (d) => `${isolated(d.source)}\n${isolated(d.family)}, ${sizeText(d.size)}\n`
    + `outcome ${short(d.outcome)}`
    + (given(d.low) ? ` [${short(d.low)}, ${short(d.high)}]` : "");
  const untrained = given(base.untrained) ? [base.untrained] : [];
  const chart = Plot.plot({
    width, height: 260, style,
    marginLeft: 42, marginRight: 64, marginTop: 14, marginBottom: 38, insetLeft: 8,
    ariaLabel: `Outcome over the size of the teacher, a line for each family, ${isolated(base.base)}`,
    ariaDescription: "The table of families has all values.",
    x: { type: "log", ticks: 4, tickFormat: sizeText, label: "size of the teacher →",
      labelAnchor: "right", labelArrow: "none" },
    y: { nice: true, ticks: 5, tickFormat: short, grid: true, label: null },
    marks: [
      Plot.ruleY(untrained, { stroke: "var(--muted)", strokeDasharray: "3 3" }),
      Plot.text(untrained, { y: (d) => d, text: () => "untrained", frameAnchor: "left", dy: -6, dx: 4,
        textAnchor: "start", fill: "var(--muted)" }),
      Plot.ruleX(points.filter((d) => given(d.low)), { x: "size", y1: "low", y2: "high",
        stroke: colourOf, strokeOpacity: 0.45, strokeWidth: 1.5 }),
      Plot.line(points, { x: "size", y: "outcome", z: "family", stroke: colourOf, strokeWidth: 1.8 }),
      Plot.dot(points, { x: "size", y: "outcome", r: 3.6, fill: colourOf, stroke: "var(--paper)" }),
      Plot.text(last, { x: "size", y: "outcome", text: (d) => clipped(d.family, 11), dx: 8,
        textAnchor: "start", fill: colourOf, fontWeight: 650, stroke: "var(--paper)",
        strokeWidth: 4 }),
      Plot.tip(points, Plot.pointer({ x: "size", y: "outcome", title, ...tipStyle })),
    ],
    color: { type: "identity" },
  });
  return asImage(chart);
}

function drawFamilies() {
  const holder = $("#family-panels");
  if (!holder) return;
  for (const base of report.families) {
    const caption = el("figcaption", {}, el("b", {}, el("bdi", {}, visible(base.base))));
    figure(holder, caption, (width) => familyPanel(base, width));
  }
}

function drawCriterion(place) {
  const holder = $("#scatter-panels");
  if (!holder || !report.scatter.length) return;
  holder.replaceChildren();
  for (const base of report.scatter[place].bases) {
    const caption = el("figcaption", {}, el("b", {}, el("bdi", {}, visible(base.name))),
      el("small", {}, ` ρ ${number(base.panel.rho, 2)}`));
    figure(holder, caption, (width) => scatterPanel(base, base.panel, width));
  }
}

drawFamilies();
drawCriterion(0);
startChoices((what, index) => {
  if (what === "scatter") drawCriterion(index);
});
