// What the pages of the server share: commands to copy, moments in words, asking again.
// Text from the data reaches the page through textContent only.
"use strict";

const served = (() => {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-take]");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    const done = await copyText(code.textContent);
    button.focus();
    button.textContent = done ? "Copied" : "Select it and copy";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const UNITS = [["year", 31557600], ["month", 2629800], ["week", 604800], ["day", 86400],
    ["hour", 3600], ["minute", 60]];

  /** A moment as seen from now: "3 minutes ago"; nearer than a minute is "just now". */
  function ago(at) {
    const seconds = at - Date.now() / 1000;
    for (const [unit, size] of UNITS) {
      if (Math.abs(seconds) >= size) return words.format(Math.trunc(seconds / size), unit);
    }
    return "just now";
  }

  function showTimes(root = document) {
    for (const time of root.querySelectorAll("time[data-at]")) {
      const at = Number(time.dataset.at), moment = new Date(at * 1000);
      time.textContent = ago(at);
      time.title = moment.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
      time.dateTime = moment.toISOString();
    }
  }

  /** Seconds as m:ss or h:mm:ss. */
  function clock(seconds) {
    const whole = Math.round(seconds), two = (value) => String(value).padStart(2, "0");
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  }

  /** Ask `url` for JSON again and again while the page is seen, until `heard` says it is enough.
   * `pause(found)` gives the seconds to the next time; a server that is gone is asked less often. */
  function follow(url, pause, heard) {
    let timer = null, failed = 0, over = false;
    const notice = document.getElementById("server");
    const ask = async () => {
      timer = null;
      let wait;
      try {
        const answer = await fetch(url, { cache: "no-store" });
        if (!answer.ok) throw new Error(String(answer.status));
        const found = await answer.json();
        failed = 0;
        notice.hidden = true;
        over = (await heard(found)) === true;
        wait = pause(found);
      } catch {
        failed += 1;
        notice.textContent = "The server does not answer. What you see may be old; it is asked again.";
        notice.hidden = failed < 2;
        wait = Math.min(2 ** failed, 30);
      }
      if (!over && !document.hidden) timer = setTimeout(ask, wait * 1000);
    };
    document.addEventListener("visibilitychange", () => {
      if (over) return;
      if (document.hidden) { clearTimeout(timer); timer = null; }
      else if (timer === null) ask();
    });
    if (!document.hidden) timer = setTimeout(ask, 1000);
  }

  showTimes();
  setInterval(showTimes, 30000);
  return { ago, showTimes, clock, follow };
})();
