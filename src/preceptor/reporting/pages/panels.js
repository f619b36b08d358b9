// What pages with small charts of criteria share: numbers, figures, scatter plots, choices.
// Text from the data reaches the page through textContent only.
"use strict";

const style = { background: "transparent", fontSize: "11.5px", overflow: "visible" };
const tipStyle = { fill: "var(--raised)", stroke: "var(--line)", lineHeight: 1.35 };

/** A value to three digits. */
function short(value) {
  if (!given(value)) return "–";
  const size = Math.abs(value), sign = value < 0 ? "−" : "";
  if (size >= 1000) return sign + Math.round(size).toLocaleString("en-US");
  if (size && size < 1e-3) return sign + Number(size.toPrecision(2)).toExponential();
  return sign + String(Number(size.toPrecision(3)));
}

/** A name of the data in at most `limit` letters, isolated: text of a chart does not wrap. */
function clipped(text, limit) {
  const letters = [...visible(text)];
  return isolated(letters.length > limit ? `${letters.slice(0, limit - 1).join("")}…` : letters.join(""));
}

/** One small scatter plot; an axis whose lower end is better runs to the left. */
function scatterPanel(base, panel, width) {
  const all = base.teachers.map((teacher, place) => (
    { teacher, score: panel.scores[place], outcome: base.outcome[place] }));
  const title = (d) => `${isolated(d.teacher)}\n${isolated(panel.label)} ${short(d.score)}\n`
    + `outcome ${short(d.outcome)}`;
  const chart = Plot.plot({
    width, height: 210, style,
    marginLeft: 42, marginRight: 12, marginTop: 10, marginBottom: 36, inset: 6,
    ariaLabel: `Outcome against ${isolated(panel.label)}, one dot per teacher`,
    ariaDescription: "The table below has all values.",
    x: { reverse: panel.direction === "lower", nice: true, ticks: 4, tickFormat: short,
      label: panel.unit ? `${clipped(panel.unit, 24)}, better →` : "better →",
      labelAnchor: "right", labelArrow: "none" },
    y: { nice: true, ticks: 4, tickFormat: short, grid: true, label: null },
    marks: [
      Plot.dot(all, { x: "score", y: "outcome", r: 4, fill: "var(--accent)", fillOpacity: 0.75,
        stroke: "var(--paper)" }),
      Plot.tip(all, Plot.pointer({ x: "score", y: "outcome", title, ...tipStyle })),
    ],
  });
  return asImage(chart);
}

/** A figure whose chart is drawn again whenever its width changes. */
function figure(holder, caption, draw) {
  const plot = el("div", { class: "plot" });
  holder.append(el("figure", { class: "panel" }, caption, plot));
  onWidth(plot, (width) => plot.replaceChildren(draw(width)));
}

/** Buttons that show one block of several, the first one at the start; `changed(what, index)` follows. */
function startChoices(changed) {
  for (const group of $$("[data-choices]")) {
    const what = group.dataset.choices;
    const buttons = $$("button", group);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        const { index } = button.dataset;
        for (const block of $$(`[data-choice="${what}"]`)) {
          block.hidden = block.dataset.index !== index;
          block.classList.toggle("chosen", block.dataset.index === index);
        }
        changed(what, Number(index));
      });
    }
  }
}
