// Sample exchanges: one item a fold, the answers of the chosen models side by side.
"use strict";

const shownModels = new Set();
const why = { gap: "by difference", random: "at random" };

function gamesFold(answer) {
  const list = el("ul", {}, ...answer.games.map((game) => el("li", {},
    el("p", { class: "measures" }, `turn ${game.turn + 1}, shown ${game.first ? "first" : "second"}: `,
      given(game.preference) ? el("b", {}, `preferred ${mark(game.preference)}`)
        : el("span", { class: "flag" }, "unreadable")),
    block(game.reply, "answer", "What the judge wrote"))));
  return el("details", { class: "judged" },
    el("summary", {}, `${answer.games.length} ${answer.games.length === 1 ? "verdict" : "verdicts"}`),
    list);
}

/** What one model said in all turns, its marks and its verdicts. */
function answerColumn(answer) {
  const name = report.models[answer.model];
  const column = el("div", { class: "column" }, el("div", { class: "who" }, named(name)),
    marksLine(answer.marks));
  answer.turns.forEach((turn, place) => {
    if (answer.turns.length > 1) column.append(el("p", { class: "measures" }, `Turn ${place + 1}`));
    const box = block(turn, "answer", `Answer of ${isolated(name)}`);
    box.append(ending(turn));
    column.append(box);
  });
  if (answer.games.length) column.append(gamesFold(answer));
  return column;
}

function fillSample(sample, body) {
  const prompts = sample.prompts.map((part, place) => block(part, "instruction",
    sample.prompts.length > 1 ? `Question, turn ${place + 1}` : "Question"));
  const shown = sample.answers.filter((answer) => shownModels.has(answer.model));
  const columns = shown.map(answerColumn);
  if (!shown.length) columns.push(el("p", { class: "quiet" }, "None of the chosen models answered."));
  body.replaceChildren(...prompts, el("div", { class: "columns" }, ...columns));
}

/** A folded item; it is filled when it is opened first, and again when other models are chosen. */
function sampleFold(sample, several) {
  const body = el("div", { class: "sample" });
  const facts = [several ? report.benchmarks[sample.benchmark].name : "", sample.category]
    .filter((text) => text).map((text) => named(text));
  const note = el("span", { class: "gap" });
  facts.forEach((fact) => note.append(fact, " · "));
  note.append(given(sample.gap) ? `${mark(sample.gap)} apart` : why[sample.why]);
  const fold = el("details", {}, el("summary", {},
    el("span", { class: "lead" }, named(sample.prompts[0].text.slice(0, 160))), note), body);
  const fill = () => { if (fold.open) fillSample(sample, body); };
  fold.addEventListener("toggle", fill);
  return { sample, fold, fill };
}

function startModels(folds) {
  const best = report.benchmarks[0].measures[0].order[0] ?? 0;
  for (const model of [best, report.reference]) shownModels.add(model);
  for (const model of d3.range(report.models.length)) if (shownModels.size < 2) shownModels.add(model);
  report.models.forEach((name, model) => {
    const button = el("button", { type: "button", "aria-pressed": String(shownModels.has(model)) },
      named(name));
    button.addEventListener("click", () => {
      if (!shownModels.delete(model)) shownModels.add(model);
      button.setAttribute("aria-pressed", String(shownModels.has(model)));
      for (const each of folds) each.fill();
    });
    $("#sample-models").append(button);
  });
  $("#sample-models").hidden = report.models.length < 2;
}

/** Fill a filter with its values; it stays away where there is nothing to choose. */
function offer(select, values, all) {
  select.replaceChildren(el("option", { value: "" }, all),
    ...values.map(([value, text]) => el("option", { value }, isolated(text))));
  select.closest("label").hidden = values.length < 2;
}

function startFilters(folds) {
  const filter = Object.fromEntries($$("[data-filter]").map((own) => [own.dataset.filter, own]));
  const fits = ({ sample }) => (!filter.benchmark.value || sample.benchmark === Number(filter.benchmark.value))
    && (!filter.category.value || sample.category === filter.category.value)
    && (!filter.why.value || sample.why === filter.why.value);
  const offerCategories = () => {
    const own = report.samples.filter((sample) => !filter.benchmark.value
      || sample.benchmark === Number(filter.benchmark.value));
    const names = d3.sort(new Set(own.map((sample) => sample.category).filter((name) => name)));
    offer(filter.category, names.map((name) => [name, name]), "all");
  };
  const apply = () => {
    for (const each of folds) each.fold.hidden = !fits(each);
    const n = folds.filter(fits).length;
    $("#sample-count").textContent = `${n} of ${folds.length} items`;
  };
  const held = d3.sort(new Set(report.samples.map((sample) => sample.benchmark)));
  offer(filter.benchmark, held.map((place) => [place, report.benchmarks[place].name]), "all");
  offerCategories();
  filter.benchmark.addEventListener("change", () => { offerCategories(); apply(); });
  filter.category.addEventListener("change", apply);
  filter.why.addEventListener("change", apply);
  apply();
}

function startSamples() {
  const list = $("#sample-list");
  if (!list) return;
  const several = new Set(report.samples.map((sample) => sample.benchmark)).size > 1;
  const folds = report.samples.map((sample) => sampleFold(sample, several));
  list.append(...folds.map((each) => each.fold));
  startModels(folds);
  startFilters(folds);
  folds[0].fold.open = true;
}

startSamples();
