// The charts of a comparison: scores against outcomes, and rho over beta; and the choice of a base.
// Text from the data reaches the page through textContent only.
"use strict";

function drawScatters(place) {
  const holder = $("#scatter-panels");
  if (!holder) return;
  const base = report.bases[place];
  holder.replaceChildren();
  for (const panel of base.panels) {
    const caption = el("figcaption", {}, el("b", {}, el("bdi", {}, visible(panel.label))),
      el("small", {}, ` ρ ${number(panel.rho, 2)}`));
    figure(holder, caption, (width) => scatterPanel(base, panel, width));
  }
}

/** rho over beta on a logarithmic axis, with the plateau and the betas of left-out teachers. */
function betaPanel(fit, width) {
  const points = fit.curve.filter(([beta, rho]) => beta > 0 && given(rho))
    .map(([beta, rho]) => ({ beta, rho }));
  const [low, high] = d3.extent(points, (d) => d.beta);
  const [least, most] = d3.extent(points, (d) => d.rho);
  const inside = (beta) => Math.min(high, Math.max(low, beta));
  const band = [{ x1: inside(fit.plateau[0]), x2: inside(fit.plateau[1]) }];
  const left = fit.left.map((beta) => ({ beta: inside(beta) }));
  const shown = [{ beta: inside(fit.beta), text: `fitted ${short(fit.beta)}`, colour: "var(--accent)" }];
  const own = given(fit.run) && fit.run > 0
    ? [{ beta: inside(fit.run), text: `run ${short(fit.run)}`, colour: "var(--muted)" }] : [];
  const late = own.length && own[0].beta ** 2 > low * high;  // in the right half: its words stand left
  const chart = Plot.plot({
    width, height: 230, style,
    marginLeft: 46, marginRight: 16, marginTop: 26, marginBottom: 36,
    ariaLabel: `Spearman's rho over beta, ${isolated(fit.reward)}`,
    ariaDescription: "The table above has the fitted values.",
    x: { type: "log", domain: [low, high], label: "β (1/nat)", labelArrow: "none",
      ticks: [0.001, 0.01, 0.1, 1, 10, 100, 1000].filter((beta) => beta >= low && beta <= high),
      tickFormat: short },
    y: { domain: [least - 0.05, Math.min(1.02, most + 0.05)], ticks: 5, grid: true, label: "ρ",
      labelArrow: "none", labelAnchor: "top", tickFormat: short },
    marks: [
      Plot.rect(band, { x1: "x1", x2: "x2", fill: "var(--accent)", fillOpacity: 0.1 }),
      Plot.ruleX([...own, ...shown], { x: "beta", stroke: "colour", strokeDasharray: "3 3" }),
      Plot.line(points, { x: "beta", y: "rho", stroke: "var(--accent)", strokeWidth: 2,
        curve: "step-after" }),
      Plot.tickX(left, { x: "beta", stroke: "var(--series-2)", strokeWidth: 1.5, inset: 0,
        strokeOpacity: 0.75, y: null, insetTop: 160 }),
      Plot.text(shown, { x: "beta", text: "text", frameAnchor: "top", dy: -14, fill: "var(--accent)",
        fontWeight: 650 }),
      Plot.text(own, { x: "beta", text: "text", frameAnchor: "top", dy: 5, dx: late ? -5 : 5,
        textAnchor: late ? "end" : "start", fill: "var(--muted)", stroke: "var(--paper)",
        strokeWidth: 4 }),
    ],
    color: { type: "identity" },
  });
  return asImage(chart);
}

function startBeta() {
  const holder = $("#beta-panels");
  if (!holder) return;
  const names = $$("#fits tbody th").map((th) => th.textContent);
  report.beta.forEach((fit, place) => {
    const caption = el("figcaption", {}, el("b", {}, el("bdi", {}, names[place])), " ",
      el("small", {}, el("bdi", {}, visible(fit.reward))));
    figure(holder, caption, (width) => betaPanel(fit, width));
  });
}

drawScatters(0);
startBeta();
startChoices((what, index) => {
  if (what === "scatter") drawScatters(index);
});
