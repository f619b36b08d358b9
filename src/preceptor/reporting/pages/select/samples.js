// Sample answers: the recommended teacher beside any other, one instruction per fold.
"use strict";

/** Say where a text was cut. */
function addCut(box, part) {
  if (!part.of) return;
  const shown = number([...part.text].length, 0);
  box.append(el("span", { class: "cut" },
    `✂ cut here: ${shown} of ${number(part.of, 0)} characters shown`));
}

/** Text of a stranger in a block of its own, with a mark where it was cut. */
function words(part, className, title) {
  const box = el("div", { class: className, tabindex: "0", role: "group", "aria-label": title });
  box.append(el("div", { class: "words", dir: "auto" }, visible(part.text)));
  addCut(box, part);
  return box;
}

function measures(answer, share) {
  const line = el("p", { class: "measures" });
  const add = (value, unit) => line.append(line.childNodes.length ? " · " : "",
    el("b", {}, value), ` ${unit}`);
  if (given(answer.reward)) add(number(answer.reward, 3), "reward");
  if (given(answer.loss)) add(number(answer.loss, 3), "nats/token");
  if (given(answer.tokens)) add(number(answer.tokens, 0), "tokens");
  if (given(share)) add(percent(share), answer.of ? "of those shown above 3 nats" : "above 3 nats");
  if (answer.truncated) line.append(" · ", el("span", { class: "flag" }, "truncated"));
  if (answer.finish === "length") line.append(" · ", el("span", { class: "flag" }, "hit its limit"));
  return line;
}

function showAnswer(holder, answer) {
  const title = `Answer of ${isolated(report.teachers[answer.teacher])}`;
  const empty = () => el("i", { class: "flag" }, "empty response");
  if (answer.pieces) {
    const { readout, box, share, table } = tokenParts(answer, title);
    if (!answer.text) box.prepend(empty(), " ");
    addCut(box, answer);
    holder.replaceChildren(measures(answer, share), readout, box, table);
    return;
  }
  const box = words(answer, "answer", title);
  if (!answer.text) box.replaceChildren(empty());
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

/** Folds of the samples; what is in one is made when it is first opened. */
function startSamples() {
  const list = $("#sample-list");
  if (!list) return;
  report.samples.forEach((sample, index) => {
    const body = el("div", { class: "sample" });
    const lead = el("span", { class: "lead" },
      el("bdi", {}, visible([...sample.instruction.text].slice(0, 160).join(""))));
    const summary = el("summary", {}, lead);
    if (given(sample.gap)) {
      const where = sample.gap >= 0 ? "above" : "below";
      summary.append(el("span", { class: "gap" },
        `${number(Math.abs(sample.gap), 3)} ${where} the others' mean`));
    }
    const fold = el("details", {}, summary, body);
    const fill = () => { if (!body.childNodes.length) fillSample(sample, body); };
    fold.addEventListener("toggle", () => { if (fold.open) fill(); });
    if (index === 0) {
      fill();
      fold.open = true;
    }
    list.append(fold);
  });
}

startSamples();
