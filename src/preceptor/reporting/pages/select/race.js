// The timeline of a race: a bar a teacher as long as it was asked, with who led and who was dropped.
"use strict";

const raceLens = { toScale: false };

/** Where a round ends on the axis: its number, or the instructions asked by then. */
function roundEnd(number) {
  if (!number) return 0;
  return raceLens.toScale ? report.race.rounds[number - 1].n : number;
}

/** The rounds that a teacher was asked in, as bars; it was in all of them until it was dropped. */
function raceBars(life, row) {
  const { rounds } = report.race;
  return rounds.flatMap((round, place) => (round.n > life.n ? [] : [{
    row, life, round: place + 1, x1: roundEnd(place), x2: roundEnd(place + 1),
    leads: round.leader === life.teacher,
  }]));
}

function raceTip(bar) {
  const { life, round } = bar;
  const asked = report.race.rounds[round - 1].n;
  const lines = [isolated(report.teachers[life.teacher]),
    `round ${round}: ${number(asked, 0)} of ${number(report.race.total, 0)} instructions asked`];
  if (bar.leads) lines.push("leads");
  if (life.round === round) {
    lines.push(`dropped: behind by ${number(life.difference, 4)}, bound ${number(life.bound, 4)}`);
  }
  return lines.join("\n");
}

/** A sentence for those who do not see the chart. */
function raceWords() {
  const { lives, rounds } = report.race;
  const gone = lives.filter((life) => given(life.round)).length;
  return `${lives.length} teachers over ${rounds.length} rounds, ${gone} dropped on the way. `
    + "The table below has all values.";
}

function drawRace(width) {
  const { lives, rounds, total } = report.race;
  const bars = lives.flatMap(raceBars);
  const end = raceLens.toScale ? total : rounds.length;
  const room = width < 560 ? 15 : 30;
  const longest = d3.max(lives, (life) => [...shortened(report.teachers[life.teacher], room)].length);
  const left = 14 + longest * 6.7;
  const survives = (bar) => !given(bar.life.round);
  const ends = rounds.map((round, place) => roundEnd(place + 1));
  const every = Math.ceil(rounds.length * 40 / Math.max(1, width - left - 18)); // of the labels
  const outs = bars.filter((bar) => bar.life.round === bar.round);
  const chart = Plot.plot({
    width, height: 60 + 26 * lives.length,
    marginLeft: left, marginRight: 18, marginTop: 6, marginBottom: 46,
    style: { background: "transparent", fontSize: "11.5px" },
    ariaLabel: "How long each teacher was asked", ariaDescription: raceWords(),
    x: { domain: [0, end], ticks: raceLens.toScale ? Math.max(2, Math.floor(width / 110))
        : ends.filter((end) => (rounds.length - end) % every === 0),
      tickFormat: raceLens.toScale ? undefined : (place) => number(rounds[place - 1]?.n, 0),
      label: raceLens.toScale ? "Instructions asked →" : "Instructions asked by the end of each round →",
      labelAnchor: "right", labelArrow: "none" },
    y: { domain: d3.range(lives.length), label: null, tickSize: 0, padding: 0.28,
      tickFormat: (row) => shortened(report.teachers[lives[row].teacher], room) },
    marks: [
      Plot.barX(lives, { y: (life, row) => row, x1: 0, x2: end, fill: "var(--raised)" }),
      Plot.ruleX(ends, { stroke: "var(--line)" }),
      Plot.barX(bars, { y: "row", x1: "x1", x2: "x2", insetRight: 1,
        fill: (bar) => (survives(bar) ? "var(--accent)" : "var(--quiet)"),
        fillOpacity: (bar) => (survives(bar) ? 1 : 0.75) }),
      Plot.dot(bars.filter((bar) => bar.leads), { y: "row", x: (bar) => (bar.x1 + bar.x2) / 2,
        r: 4, fill: "var(--paper)", stroke: "var(--ink)", strokeWidth: 1.5 }),
      Plot.dot(outs, { y: "row", x: "x2", symbol: "times", r: 5, stroke: "var(--warn)",
        strokeWidth: 2.4, dx: 2 }),
      Plot.tip(bars, Plot.pointer({ y: "row", x: "x2", title: raceTip,
        fill: "var(--raised)", stroke: "var(--line)", lineHeight: 1.35 })),
    ],
  });
  asImage(chart);
  for (const text of $$("g[aria-label='y-axis tick label'] text", chart)) {
    text.style.unicodeBidi = "isolate";
    const life = lives[Number(text.__data__)];
    if (life && life.teacher === report.recommended) text.setAttribute("font-weight", 650);
  }
  $("#race-chart").replaceChildren(chart);
}

function startRace() {
  const box = $("#race-chart");
  if (!box) return;
  const buttons = $$("#race-scale button");
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      raceLens.toScale = button.dataset.scale === "answers";
      drawRace(Math.floor(box.clientWidth));
    });
  }
  onWidth(box, drawRace);
}

startRace();
