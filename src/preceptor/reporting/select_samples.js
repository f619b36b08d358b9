// Sample answers: the recommended teacher beside any other, one instruction per fold.
"use strict";

/** Text of a stranger in a block of its own, with a mark where it was cut. */
function words(part, className, title) {
  const box = el("div", { class: className, tabindex: "0", role: "region", "aria-label": title });
  box.append(el("div", { class: "words", dir: "auto" }, visible(part.text)));
  if (part.of) {
    const shown = number([...part.text].length, 0);
    box.append(el("span", { class: "cut" },
      `✂ cut here: ${shown} of ${number(part.of, 0)} characters shown`));
  }
  return box;
}

function measures(answer) {
  const line = el("p", { class: "measures" });
  const add = (value, unit) => line.append(line.childNodes.length ? " · " : "",
    el("b", {}, value), ` ${unit}`);
  if (given(answer.reward)) add(number(answer.reward, 3), "reward");
  if (given(answer.loss)) add(number(answer.loss, 3), "nats/token");
  if (given(answer.tokens)) add(number(answer.tokens, 0), "tokens");
  if (answer.truncated) line.append(" · ", el("span", { class: "flag" }, "truncated"));
  if (answer.finish === "length") line.append(" · ", el("span", { class: "flag" }, "hit its limit"));
  return line;
}

function showAnswer(holder, answer) {
  const who = report.teachers[answer.teacher];
  const box = words(answer, "answer", `Answer of ${isolated(who)}`);
  if (!answer.text) box.replaceChildren(el("i", { class: "flag" }, "empty response"));
  holder.replaceChildren(measures(answer), box);
}

function side(head, answer) {
  const holder = el("div");
  if (answer) showAnswer(holder, answer);
  return { node: el("div", {}, el("div", { class: "who" }, head), holder), holder };
}

function fillSample(sample, into) {
  const own = sample.answers.find((answer) => answer.teacher === report.recommended);
  const others = sample.answers.filter((answer) => answer.teacher !== report.recommended);
  const pair = el("div", { class: "pair" });
  if (own) pair.append(side(nameOf(report.recommended), own).node);
  if (others.length) {
    const select = el("select", { "aria-label": "Teacher to compare with" });
    others.forEach((answer, index) => select.append(
      el("option", { value: index }, isolated(report.teachers[answer.teacher]))));
    const right = side(select, others[0]);
    select.addEventListener("change", () => showAnswer(right.holder, others[select.value]));
    pair.append(right.node);
  }
  into.append(words(sample.instruction, "instruction", "Instruction"), pair);
}

function startSamples() {
  const list = $("#sample-list");
  if (!list) return;
  report.samples.forEach((sample, index) => {
    const body = el("div", { class: "sample" });
    const lead = el("span", { class: "lead" },
      el("bdi", {}, visible(sample.instruction.text.slice(0, 160))));
    const summary = el("summary", {}, lead);
    if (given(sample.gap)) {
      const words = sample.gap >= 0 ? "above" : "below";
      summary.append(el("span", { class: "gap" },
        `${number(Math.abs(sample.gap), 3)} ${words} the others' mean`));
    }
    const fold = el("details", { open: index === 0 ? "" : null }, summary, body);
    fillSample(sample, body);
    list.append(fold);
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = $$("details:not([open])");
    for (const fold of closed) fold.open = true;
  });
  addEventListener("afterprint", () => { for (const fold of closed) fold.open = false; });
}

startSamples();
