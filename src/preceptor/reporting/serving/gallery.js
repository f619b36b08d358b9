// The list of runs: filter, order, two runs to compare; what changed is fetched anew.
"use strict";

(() => {
  const list = $("#list");
  const state = { text: "", kind: "", show: "", sort: "latest" };
  const picked = new Map(); // key -> what is typed, family, name

  const outer = () => $$("#list > .runs > .run");
  const inside = (run) => $$(".run", run);
  const folded = (text) => text.normalize("NFKD").toLocaleLowerCase();
  const ownText = (run) => folded(`${run.dataset.name} ${$(".row", run).textContent}`);

  const ORDERS = {
    latest: (a, b) => rank(b) - rank(a),
    oldest: (a, b) => a.dataset.at - b.dataset.at,
    name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, "en", { numeric: true }),
    kind: (a, b) => a.dataset.kind.localeCompare(b.dataset.kind) || rank(b) - rank(a),
  };
  const rank = (run) => Number(run.dataset.at) + (run.dataset.state === "running" ? 1e12 : 0);

  /** Show what fits, in the chosen order. A run fits with one inside it, which is then unfolded. */
  function apply() {
    const words = folded(state.text).split(/\s+/).filter(Boolean);
    const fits = (run) => {
      const text = words.length ? ownText(run) : "";
      return words.every((word) => text.includes(word));
    };
    let shown = 0;
    for (const run of outer()) {
      const own = fits(run), below = words.length ? inside(run).filter(fits) : [];
      const wanted = (!state.kind || run.dataset.kind === state.kind)
        && (!state.show || run.dataset.state === state.show);
      run.hidden = !(wanted && (own || below.length));
      shown += !run.hidden;
      const holder = $(":scope > .folds > details.inner", run);
      if (holder && below.length && !own) holder.open = true;
      for (const one of inside(run)) {
        one.hidden = words.length > 0 && !own && !fits(one) && !inside(one).some(fits);
      }
    }
    const parent = $(".runs", list);
    if (parent) {
      const order = [...outer()].sort(ORDERS[state.sort]);
      if (order.some((run, place) => parent.children[place] !== run)) parent.append(...order);
    }
    $("#none").hidden = shown > 0 || !outer().length;
  }

  /** Two runs of one kind are compared; the command stands ready to be copied. */
  function showPicked() {
    const bar = $("#compare"), code = $("code", bar), button = $("[data-take]", bar);
    const [first, second] = picked.values();
    bar.hidden = !first;
    document.body.classList.toggle("comparing", Boolean(first));
    for (const box of $$("[data-pick]")) {
      const { family, key } = box.closest(".run").dataset;
      box.checked = picked.has(key);
      box.disabled = !box.checked && (!family || Boolean(second || (first && family !== first.family)));
    }
    if (!first) return;
    code.hidden = button.hidden = !second;
    $("p", bar).textContent = second ? "This compares them:"
      : `${isolated(first.name)}: choose a second run of the same kind`;
    if (second) code.textContent = visible(`preceptor report ${first.typed} ${second.typed}`);
  }

  list.addEventListener("change", (event) => {
    if (!event.target.matches("[data-pick]")) return;
    const { key, typed, family, name } = event.target.closest(".run").dataset;
    if (event.target.checked) picked.set(key, { typed, family, name });
    else picked.delete(key);
    showPicked();
  });
  $("#compare [data-clear]").addEventListener("click", () => { picked.clear(); showPicked(); });

  /** What was fetched takes the place of the list; what the reader has opened stays open. */
  function swap(text) {
    const found = new DOMParser().parseFromString(text, "text/html");
    const fresh = found.getElementById("list");
    if (!fresh) return;
    const before = Boolean($(".runs", list)), after = Boolean(fresh.querySelector(".runs"));
    if (before !== after) { location.reload(); return; }
    const open = new Set($$("details[open]", list).map(placeOf));
    const at = document.activeElement?.closest?.("#list") ? placeOf(document.activeElement) : "";
    list.replaceChildren(...fresh.childNodes);
    for (const box of $$("details", list)) box.open = open.has(placeOf(box));
    for (const count of $$("[data-count]")) {
      const own = found.querySelector(`[data-count="${count.dataset.count}"]`);
      if (own) count.textContent = own.textContent;
    }
    for (const key of picked.keys()) if (!$(`.run[data-key="${key}"]`)) picked.delete(key);
    served.showTimes(list);
    apply();
    showPicked();
    if (at) [...$$("a, input, button, summary, details", list)].find((own) => placeOf(own) === at)?.focus();
  }

  /** Where in the list something stands: its run, and its place among the like within it. */
  function placeOf(node) {
    const run = node.closest(".run");
    if (!run) return "";
    const alike = $$(node.tagName, run).filter((own) => own.closest(".run") === run);
    return `${run.dataset.key} ${node.tagName} ${alike.indexOf(node)}`;
  }

  if ($("#filter")) {
    $("#filter").addEventListener("input", (event) => { state.text = event.target.value; apply(); });
    $("#kind").addEventListener("change", (event) => { state.kind = event.target.value; apply(); });
    $("#sort").addEventListener("change", (event) => { state.sort = event.target.value; apply(); });
    for (const button of $$("[data-show]")) {
      button.addEventListener("click", () => {
        state.show = button.dataset.show;
        for (const other of $$("[data-show]")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
        apply();
      });
    }
    state.text = $("#filter").value; // a browser that goes back keeps what was typed
    state.kind = $("#kind").value;
    state.sort = $("#sort").value;
    apply();
  }
  showPicked();

  const running = (found) => found.runs.some((run) => run.state === "running");
  served.follow("api/runs", (found) => (running(found) ? 3 : 8), async (found) => {
    if (found.stamp === $("#stamp").textContent) return;
    const answer = await fetch("./", { cache: "no-store" });
    if (answer.ok) swap(await answer.text());
  });
})();
