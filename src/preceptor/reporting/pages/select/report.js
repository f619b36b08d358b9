// What the parts of the selection page share: names, shares, and the chosen reward.
"use strict";

/** A name of the data, isolated from the direction of the text around it. */
const nameOf = (index) => el("bdi", {}, visible(report.teachers[index]));

/** A name in at most `limit` letters: its start if no other teacher shares it, else both ends. */
function shortened(text, limit) {
  const letters = [...visible(text)];
  if (letters.length <= limit) return letters.join("");
  const head = letters.slice(0, limit - 1).join("");
  if (report.teachers.filter((name) => visible(name).startsWith(head)).length < 2) return `${head}…`;
  const tail = Math.floor((limit - 1) / 2);
  return [...letters.slice(0, limit - 1 - tail), "…", ...letters.slice(-tail)].join("");
}

/** A share as a whole per cent that never rounds up to certainty or down to never. */
function percent(share) {
  if (!given(share)) return "–";
  if (share > 0 && share < 0.01) return "< 1%";
  if (share > 0.99 && share < 1) return "> 99%";
  return `${Math.round(100 * share)}%`;
}

/** The reward that the charts show; every selector of rewards is kept on the same one. */
const chosen = { reward: null, listeners: [] };

function chooseReward(name) {
  chosen.reward = name;
  for (const select of $$("[data-reward-choice] select")) select.value = name;
  for (const listener of chosen.listeners) listener();
}

function startRewards() {
  const names = Object.keys(report.fields);
  const main = report.criteria[report.main].reward;
  chosen.reward = names.includes(main) ? main : names[0] ?? null;
  for (const holder of $$("[data-reward-choice]")) {
    holder.hidden = names.length < 2;
    const select = $("select", holder);
    select.append(...names.map((name) => el("option", { value: name }, isolated(name))));
    select.value = chosen.reward;
    select.addEventListener("change", () => chooseReward(select.value));
  }
}

startRewards();
