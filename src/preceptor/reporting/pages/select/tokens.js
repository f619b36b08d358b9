// Answers token by token: how surprising each is to the base, and what it is when one asks.
"use strict";

const surprisalSteps = [0.5, 1.5, 3, 6]; // nats; p = 61%, 22%, 5%, 0.2%
const surprising = 3; // nats from which the keys up and down stop at a token

const stepOf = (nats) => surprisalSteps.filter((step) => nats >= step).length;

/** Texts that show nothing by themselves: joiners, marks of direction, accents alone. */
const invisible = /^[\p{Cf}\p{M}\p{Zl}\p{Zp}]+$/u;
const codes = (text) => [...text].map((c) =>
  `[U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`).join("");

/** Text of a token in prose: quoted, with spaces and line ends that can be seen. */
function quoted(text) {
  if (!text) return "the end of the answer";
  const shown = invisible.test(text) ? codes(text) : visible(text);
  return `“${shown.replace(/\r?\n|\r/g, "↵").replace(/\t/g, "⇥").replace(/^ +| +$/g, (s) => "␣".repeat(s.length))}”`;
}

/** The tokens of an answer as {text, nats, rank}; the last one may be what ends it, with text "". */
function tokensOf(answer) {
  const letters = [...answer.text];
  let from = 0;
  const tokens = answer.pieces.map((length, place) => ({
    text: letters.slice(from, from += length).join(""),
    nats: answer.nll[place] / 100, rank: answer.rank?.[place] ?? null,
  }));
  if (answer.end) tokens.push({ text: "", nats: answer.end[0] / 100, rank: answer.end[1] });
  return { tokens, rest: letters.slice(from).join("") };
}

/** The likeliness of a token in words. */
function probability(nats) {
  const p = Math.exp(-nats);
  return p >= 0.001 ? `${number(100 * p, p >= 0.1 ? 0 : 1)}%` : `1 in ${number(1 / p, 0)}`;
}

function tokenWords(token, place, n) {
  const rank = given(token.rank)
    ? `; ${token.rank === 1 ? "the likeliest token" : `rank ${number(token.rank, 0)}`}` : "";
  return `: ${number(token.nats, 2)} nats (${probability(token.nats)})${rank}. Token ${number(place + 1, 0)} of ${number(n, 0)}.`;
}

/** One token in the text. A line end is marked, and stays one. */
function tokenNode(token, place) {
  const kind = token.text ? "" : " end";
  const node = el("span", { class: `t t${stepOf(token.nats)}${kind}`, "data-place": place });
  if (!token.text) node.append(el("i", {}, "end"));
  else if (invisible.test(token.text)) node.append(codes(token.text));
  else {
    for (const part of visible(token.text).split(/(\r?\n|\r)/)) {
      if (/^[\r\n]/.test(part)) node.append(el("i", { "aria-hidden": "true" }, "↵"), "\n");
      else if (part) node.append(part);
    }
  }
  return node;
}

/** Focus moves through the tokens by keys; the pointer, a tap and the focus tell of a token. */
function startTokens(box, tokens, readout) {
  const nodes = $$(".t", box);
  let at = 0;
  const tell = (place) => {
    const token = tokens[place];
    $(".told", box)?.classList.remove("told");
    nodes[place].classList.add("told");
    readout.replaceChildren(el("b", {}, el("bdi", {}, quoted(token.text))),
      tokenWords(token, place, tokens.length));
  };
  const placeOf = (event) => {
    const node = event.target.closest(".t");
    return node ? Number(node.dataset.place) : null;
  };
  const go = (place) => {
    nodes[at].tabIndex = -1;
    at = Math.max(0, Math.min(nodes.length - 1, place));
    nodes[at].tabIndex = 0;
    nodes[at].focus();
    tell(at); // a window without focus sends no event
  };
  nodes[0].tabIndex = 0;
  box.addEventListener("pointerover", (event) => {
    const place = placeOf(event);
    if (given(place)) tell(place);
  });
  box.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (given(place)) go(place);
  });
  box.addEventListener("focusin", (event) => {
    const place = placeOf(event);
    if (given(place)) tell(place);
  });
  const next = (step) => {
    let place = at + step;
    while (place > 0 && place < nodes.length - 1 && tokens[place].nats < surprising) place += step;
    return place;
  };
  box.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: () => at + 1, ArrowLeft: () => at - 1, ArrowDown: () => next(1),
      ArrowUp: () => next(-1), Home: () => 0, End: () => nodes.length - 1 };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(move());
  });
}

/** The tokens that surprise most, as a table. */
function topTable(tokens) {
  const top = tokens.map((token, place) => ({ ...token, place }))
    .sort((a, b) => b.nats - a.nats || a.place - b.place).slice(0, 8);
  const ranked = top.some((token) => given(token.rank));
  const before = (place) => tokens.slice(Math.max(0, place - 6), place).map((t) => t.text).join("");
  const head = ["Token", "after", "nats", ...(ranked ? ["rank"] : [])];
  const rows = top.map((token) => el("tr", {},
    el("th", { scope: "row", class: "text" }, el("bdi", {}, quoted(token.text))),
    el("td", { class: "text" }, el("bdi", {}, token.place ? quoted(before(token.place)) : "–")),
    el("td", {}, number(token.nats, 2)), ...(ranked ? [el("td", {}, number(token.rank, 0))] : [])));
  const table = el("table", { class: "plain" },
    el("thead", {}, el("tr", {}, ...head.map((text, place) =>
      el("th", { scope: "col", class: place < 2 ? "text" : null }, text)))),
    el("tbody", {}, ...rows));
  return el("details", { class: "values" }, el("summary", {}, "Its most surprising tokens"),
    el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Most surprising tokens" },
      table));
}

/** Parts of an answer's panel: the line that tells of a token, the text, the table. */
function tokenParts(answer, title) {
  const { tokens, rest } = tokensOf(answer);
  const readout = el("p", { class: "readout", "aria-live": "polite" },
    "Point at a token, or use the arrow keys.");
  const text = el("div", { class: "words tokens", dir: "auto", role: "group",
    "aria-label": `${title}, token by token` }, ...tokens.map(tokenNode));
  if (rest) text.append(el("span", { class: "unread" }, visible(rest)));
  const box = el("div", { class: "answer", tabindex: "0", role: "group", "aria-label": title }, text);
  if (tokens.length) startTokens(text, tokens, readout);
  const many = tokens.filter((token) => token.nats >= surprising).length;
  const share = tokens.length ? many / tokens.length : null;
  return { readout, box, share, table: topTable(tokens) };
}

function startHeat() {
  const legend = $("#heat-legend");
  if (!legend) return;
  const edges = [0, ...surprisalSteps, Infinity];
  $("ul", legend).append(...edges.slice(0, -1).map((low, step) => {
    const high = edges[step + 1];
    const words = step === 0 ? `under ${high}` : high === Infinity ? `${low} or more` : `${low} to ${high}`;
    const p = step === 0 ? `over ${probability(high)}` : `${probability(low)} or less`;
    return el("li", {}, el("span", { class: `t t${step}` }, "token"), ` ${words} nats `, el("small", {}, p));
  }));
  const toggle = $("#heat-toggle");
  const show = () => $("#sample-list").classList.toggle("bare", !toggle.checked);
  toggle.addEventListener("change", show);
  show();
}

startHeat();
