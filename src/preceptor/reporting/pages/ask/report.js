// The page of an asking: best and worst of k as charts, and quoted answers side by side.
// Text from the data reaches the page through textContent only.
"use strict";

/** The points of one line: k, mean, and the ends of its interval. */
const pointsOf = (cells) => cells.map(([k, mean, low, high]) => ({ k, mean, low, high }));

/** Best and worst of k of one teacher: a line a decoding each, told by colour and dash. */
function worthPanel(panel, reward, width) {
  const lines = panel.lines.flatMap((line, place) => ["best", "worst"].map((kind) => ({
    ...seriesLook(place), kind, label: line.label, points: pointsOf(line[kind]) })));
  const steps = [...new Set(lines.flatMap((line) => line.points.map((point) => point.k)))];
  const words = lines.map(({ kind, label, points }) => `${label}, ${kind}: `
    + points.map((point) => `${short(point.mean)} of ${point.k}`).join(", ")).join("; ");
  const greedy = given(panel.greedy) ? [panel.greedy] : [];
  const chart = Plot.plot({
    width, height: 220, style,
    marginLeft: 46, marginRight: 14, marginTop: 12, marginBottom: 36,
    ariaLabel: `${isolated(reward)} of the best and the worst of k samples, ${isolated(panel.teacher)}`,
    ariaDescription: words,
    x: { type: "log", base: 2, domain: d3.extent(steps), ticks: steps, tickFormat: String,
      label: "k samples", labelAnchor: "right", labelArrow: "none" },
    y: { nice: true, ticks: 5, tickFormat: short, grid: true, label: null },
    marks: [
      Plot.ruleY(greedy, { stroke: "var(--muted)", strokeDasharray: "3 3" }),
      ...lines.map((line) => Plot.areaY(line.points, { x: "k", y1: "low", y2: "high",
        fill: line.colour, fillOpacity: 0.09 })),
      ...lines.map((line) => Plot.line(line.points, { x: "k", y: "mean", stroke: line.colour,
        strokeWidth: 2, strokeDasharray: line.dash })),
      ...lines.map((line) => Plot.dot(line.points, { x: "k", y: "mean", r: 2.6, fill: line.colour })),
    ],
  });
  return asImage(chart);
}

function legendOf(panel) {
  return el("ul", { class: "legend" }, ...panel.lines.map((line, place) => (
    el("li", {}, lineKey(seriesLook(place)), line.label))));
}

function drawWorth(place) {
  const holder = $("#worth-panels");
  if (!holder) return;
  holder.replaceChildren();
  const { reward, panels } = report.worth[place];
  for (const panel of panels) {
    const caption = el("figcaption", {}, el("b", {}, named(panel.teacher)), legendOf(panel));
    figure(holder, caption, (width) => worthPanel(panel, reward, width));
  }
}

const shownTeachers = new Set();

function answerColumn(answer) {
  const { teacher, decoding } = report.points[answer.point];
  const how = answer.which ? `${answer.which} of ${answer.of} samples, ${decoding}` : decoding;
  const box = block(answer.turns[0], "answer", `Answer of ${isolated(teacher)}, ${how}`);
  box.append(ending(answer.turns[0]));
  return el("div", { class: "column" }, el("div", { class: "who" }, named(teacher)),
    el("p", { class: "measures" }, how), marksLine(answer.marks), box);
}

function fillSample(sample, body) {
  const shown = sample.answers.filter(({ point }) => shownTeachers.has(report.points[point].teacher));
  const columns = shown.map(answerColumn);
  if (!shown.length) columns.push(el("p", { class: "quiet" }, "None of the chosen teachers answered."));
  body.replaceChildren(block(sample.prompts[0], "instruction", "Instruction"),
    el("div", { class: "columns" }, ...columns));
}

/** A folded instruction; it is filled when it is opened, and again when other teachers are chosen. */
function sampleFold(sample) {
  const body = el("div", { class: "sample" });
  const note = given(sample.gap) && sample.why === "gap" ? `${mark(sample.gap)} apart` : "at random";
  const fold = el("details", {}, el("summary", {},
    el("span", { class: "lead" }, named(sample.prompts[0].text.slice(0, 160))),
    el("span", { class: "gap" }, note)), body);
  const fill = () => { if (fold.open) fillSample(sample, body); };
  fold.addEventListener("toggle", fill);
  return { fold, fill };
}

function startTeachers(folds) {
  const teachers = [...new Set(report.points.map((point) => point.teacher))];
  const holder = $("#sample-teachers");
  teachers.forEach((teacher, place) => {
    if (place < 2) shownTeachers.add(teacher);
    const button = el("button", { type: "button", "aria-pressed": String(place < 2) }, named(teacher));
    button.addEventListener("click", () => {
      if (!shownTeachers.delete(teacher)) shownTeachers.add(teacher);
      button.setAttribute("aria-pressed", String(shownTeachers.has(teacher)));
      for (const each of folds) each.fill();
    });
    holder.append(button);
  });
  holder.hidden = teachers.length < 2;
}

function startSamples() {
  const list = $("#sample-list");
  if (!list) return;
  const folds = report.samples.map(sampleFold);
  list.append(...folds.map((each) => each.fold));
  startTeachers(folds);
  folds[0].fold.open = true;
}

drawWorth(0);
startSamples();
startChoices((what, index) => {
  if (what === "reward") drawWorth(index);
});
