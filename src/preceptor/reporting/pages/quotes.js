// Quoted texts of strangers: blocks that show what was cut, names, numbers of marks.
// Text from the data reaches the page through textContent only.
"use strict";

/** A name of the data, isolated from the direction of the text around it. */
const named = (text) => el("bdi", {}, visible(text));

/** Text of a stranger in a block of its own, with a mark where it was cut. */
function block(part, className, title) {
  const box = el("div", { class: className, tabindex: "0", role: "group", "aria-label": title });
  box.append(part.text ? el("div", { class: "words", dir: "auto" }, visible(part.text))
    : el("i", { class: "flag" }, "empty"));
  if (part.of) {
    box.append(el("span", { class: "cut" }, `✂ cut here: ${number([...part.text].length, 0)} of `
      + `${number(part.of, 0)} characters shown`));
  }
  return box;
}

/** A number to four digits, as a mark is written. */
const mark = (value) => String(Number(value.toPrecision(4))).replace("-", "−");

/** The marks of an answer: names and numbers in a line. */
function marksLine(marks) {
  const line = el("p", { class: "measures" });
  marks.forEach(([name, value], place) => line.append(place ? " · " : "",
    named(name), " ", el("b", {}, mark(value))));
  return line;
}

/** How a turn ended, where that is worth saying. */
function ending(turn) {
  const words = { length: "hit its limit", content_filter: "stopped by a content filter" };
  return words[turn.finish] ? el("span", { class: "cut" }, words[turn.finish]) : "";
}
