// A run as it goes on: stages, losses, cells and words, asked for every two seconds while seen.
// Text from the data reaches the page through textContent only.
"use strict";

(() => {
  const STATUS = { done: "done", now: "at work", begun: "begun", later: "to come" };
  const COLUMNS = {
    loss: "Loss (weighted sum)", next_token: "Next token, nats", divergence: "Divergence, nats",
    attention: "Attention, nats", hidden: "Hidden states",
  };
  const LATEST = [["tokens_per_second", "tokens a second", 0], ["learning_rate", "learning rate", null],
    ["grad_norm", "norm of the gradient", null], ["peak_memory_mb", "MB at most", 0]];
  let wasRunning = report.state === "running";
  let drawn = ""; // what the charts show
  const name = document.title;

  const bdi = (text) => el("bdi", {}, visible(text));

  /** A value to three digits; whole from a thousand on. */
  function short(value) {
    const size = Math.abs(value), sign = value < 0 ? "−" : "";
    if (size >= 1000) return sign + Math.round(size).toLocaleString("en-US");
    if (size && size < 1e-3) return sign + Number(size.toPrecision(3)).toExponential().replace("-", "−");
    return sign + String(Number(size.toPrecision(3)));
  }

  const rate = (value, unit) => (value >= 0.95 ? `${short(value)} ${unit} a second`
    : `${short(60 * value)} ${unit} a minute`);

  /** Counts, rate and time of a stage in words. */
  function amounts(own) {
    if (own.status === "later") return [];
    const total = given(own.total) ? ` of ${own.total.toLocaleString("en-US")}` : "";
    const parts = [`${own.done.toLocaleString("en-US")}${total} ${visible(own.unit)}`];
    if (own.status === "now" && own.rate) parts.push(rate(own.rate, visible(own.unit)));
    if (own.status === "now" && own.tokens_rate) parts.push(rate(own.tokens_rate, "tokens"));
    if (given(own.left)) parts.push(`${served.clock(own.left)} left`);
    if (own.status === "done" && own.seconds >= 1) parts.push(`took ${served.clock(own.seconds)}`);
    return parts;
  }

  /** A row with a bar: its width is the share that is done. */
  function bar(title, own) {
    const share = own.total ? Math.min(1, own.done / own.total) : own.status === "done" ? 1 : 0;
    const track = el("span", { class: "track" }, el("span", {}));
    track.firstChild.style.width = `${(100 * share).toFixed(1)}%`;
    if (own.total) {
      for (const [key, value] of Object.entries({ role: "progressbar", "aria-valuemin": 0,
        "aria-valuemax": own.total, "aria-valuenow": own.done, "aria-label": visible(title) })) {
        track.setAttribute(key, value);
      }
    }
    const percent = own.total && own.status !== "later" ? `${Math.floor(100 * share)} %` : "";
    return el(own.tag ?? "li", { class: `stage ${own.status}` },
      el("span", { class: "title" }, bdi(title), el("span", { class: "mark" }, STATUS[own.status])),
      track, el("span", { class: "share" }, percent),
      el("small", {}, amounts(own).join(" · ")));
  }

  const filled = {};

  /** Fill a section anew where its rows changed, and hide it where there are none. */
  function fill(section, selector, rows, make) {
    const now = JSON.stringify(rows);
    if (filled[section] === now) return;
    filled[section] = now;
    $(section).hidden = !rows.length;
    $(selector, $(section)).replaceChildren(...rows.map(make));
  }

  function cellsRow(cells) {
    const left = given(cells.total) && given(cells.mean_seconds)
      ? (cells.total - cells.done) * cells.mean_seconds : null;
    const row = bar("Trainings with their exams, and exams of the bases", { tag: "div",
      status: cells.done === cells.total ? "done" : "begun", done: cells.done, total: cells.total,
      unit: "done" });
    const words = given(cells.mean_seconds)
      ? [`${served.clock(cells.mean_seconds)} a training on average`] : [];
    if (left > 0) words.push(`about ${served.clock(left)} left, one after the other`);
    $("small", row).append([""].concat(words).join(" · "));
    return row;
  }

  function innerRow(run) {
    const short = report.name ? run.name.slice(report.name.length + 1) : run.name;
    const link = el("a", { href: `../${run.id}/` }, bdi(short));
    const about = el("p", { class: "kind" }, run.title, run.about ? " · " : "", bdi(run.about));
    const said = run.verdict ? [el("p", { class: "said" }, bdi(run.verdict))] : [];
    return el("li", { class: "run" }, el("div", { class: "row" },
      el("div", { class: "what" }, el("h3", {}, link), about, ...said),
      el("p", { class: "when" }, el("span", { class: `chip ${run.state}` }, run.state))));
  }

  function saidRow(line) {
    const warning = /^warning:/.test(line.text);
    return el("li", { class: warning ? "warning" : null },
      el("time", { "data-at": line.at }), bdi(line.text));
  }

  /** One chart of a column: a line for each student. */
  function chart(column, logs, width) {
    const lines = logs.filter((log) => log.columns[column]);
    const series = lines.map((log, place) => ({ ...seriesLook(place),
      points: log.step.map((step, i) => ({ step, value: log.columns[column][i] ?? NaN })) }));
    const [first, last] = d3.extent(lines.flatMap((log) => log.step));
    const svg = Plot.plot({
      width, height: 190, style: { background: "transparent", fontSize: "11.5px", overflow: "visible" },
      marginLeft: 46, marginRight: 10, marginTop: 8, marginBottom: 32,
      ariaLabel: `${COLUMNS[column]} over steps`,
      ariaDescription: lines.map((log) => `${isolated(log.name || "the student")}: `
        + `${short(log.columns[column].findLast(given))} at the last step`).join("; "),
      x: { label: "step", labelArrow: "none", labelAnchor: "right", tickFormat: ",d",
        domain: first === last ? [first - 1, last + 1] : [first, last],
        ticks: Math.min(5, Math.floor(width / 70)) },
      y: { label: null, grid: true, nice: true, ticks: 4, tickFormat: short },
      marks: [
        ...series.map(({ points, colour, dash }) => Plot.line(points, { x: "step", y: "value",
          strokeWidth: 1.8, stroke: colour, strokeDasharray: dash })),
        ...series.map(({ points, colour }) => Plot.dot(
          points.filter((point) => point.step === last), { x: "step", y: "value", r: 3, fill: colour })),
      ],
    });
    return asImage(svg);
  }

  function caption(column, logs) {
    const lines = logs.filter((log) => log.columns[column]);
    const names = lines.map((log, place) => {
      const value = log.columns[column].findLast(given);
      const words = lines.length > 1 ? [lineKey(seriesLook(place)), bdi(log.name || "the student"), " "] : [];
      return el("span", {}, ...words, el("b", {}, given(value) ? short(value) : "–"));
    });
    return el("figcaption", {}, el("span", {}, COLUMNS[column]), ...names);
  }

  function showLosses(logs) {
    const now = JSON.stringify(logs);
    if (now === drawn) return;
    drawn = now;
    const columns = Object.keys(COLUMNS).filter((column) => logs.some((log) => log.columns[column]));
    $("#losses").hidden = !columns.length;
    const latest = logs[0]?.latest ?? {};
    $("#latest").replaceChildren(...LATEST.filter(([key]) => given(latest[key])).map(
      ([key, words, decimals]) => el("li", {}, el("b", {},
        decimals === null ? short(latest[key]) : number(latest[key], decimals)), ` ${words}`)));
    const holder = $("#panels");
    for (const panel of $$("figure", holder)) {
      if (!columns.includes(panel.dataset.column)) panel.remove();
    }
    columns.forEach((column, place) => {
      let panel = $(`figure[data-column="${column}"]`, holder);
      if (!panel) {
        panel = el("figure", { class: "panel", "data-column": column }, el("figcaption"),
          el("div", { class: "plot" }));
        holder.insertBefore(panel, holder.children[place] ?? null);
        onWidth($(".plot", panel), (width) => panel.draw?.(width));
      }
      panel.draw = (width) => $(".plot", panel).replaceChildren(chart(column, logs, width));
      $("figcaption", panel).replaceWith(caption(column, logs));
      const width = Math.floor($(".plot", panel).clientWidth);
      if (width) panel.draw(width);
    });
  }

  const WORDS = { running: "is at work", stopped: "was stopped before its end", finished: "has ended" };

  function showState(found) {
    const chip = $("#state .chip");
    if (chip.textContent !== found.state) {
      chip.className = `chip ${found.state}`;
      chip.textContent = found.state;
      document.title = `${found.state}: ${name}`;
    }
    $("#state time").dataset.at = found.changed;
    const verdict = found.fault || found.verdict;
    $("#verdict").hidden = !verdict;
    $("#verdict").replaceChildren(bdi(verdict));
    $("#error").hidden = !found.error;
    $("#error").replaceChildren("It ended with: ", bdi(found.error));
    $("#resume").hidden = !(found.state === "stopped" && found.command);
    if (found.command) $("#resume code").replaceChildren(bdi(found.command));
    const ready = found.report && found.state === "finished";
    $("#report").hidden = !found.report;
    $("#report").replaceChildren(!found.report ? "" : ready
      ? el("a", { href: "./" }, "The run has ended: open its report")
      : el("a", { href: `files/${found.report}` }, "The report of what is done so far"));
    $("#report").dataset.words = WORDS[found.state];
    const files = $("#files");
    if ($$("a", files).map((link) => link.textContent).join() !== found.files.join()) {
      files.replaceChildren(...found.files.flatMap(
        (name) => [el("a", { href: `files/${name}` }, name), " "]));
    }
  }

  function show(found) {
    showState(found);
    fill("#cells", ".bars", found.cells ? [found.cells] : [], cellsRow);
    fill("#stages", ".bars", found.stages, (own) => bar(own.title, own));
    showLosses(found.logs);
    const inner = found.inner.map(({ id, name, title, about, verdict, state }) => (
      { id, name, title, about, verdict, state }));
    fill("#inner", ".runs", inner, innerRow);
    fill("#words", ".said-lines", found.said, saidRow);
    served.showTimes();
  }

  show(report);
  /** Nothing changes any more: it has ended, and its page is there, or will not come. */
  const over = (found) => found.state === "finished"
    && Boolean(found.report || Date.now() / 1000 - found.changed > 60);

  if (over(report)) return;
  served.follow(`../../api/runs/${report.id}`, () => 2, (found) => {
    show(found);
    wasRunning ||= found.state === "running";
    if (over(found) && found.report && wasRunning) setTimeout(() => location.reload(), 1200);
    return over(found);
  });
})();
