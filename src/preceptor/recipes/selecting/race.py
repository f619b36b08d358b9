"""`preceptor select --race`: rounds of instructions; who is surely not the best is asked no more.

A round's answers, rewards and losses are kept like those of any run, in stages named by the round.
What a race decides is read off them alone, so a race that was killed decides the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from preceptor.core import artifacts
from preceptor.core.errors import SettingsError
from preceptor.core.progress import say
from preceptor.core.run import Run
from preceptor.data.paired import Paired
from preceptor.recipes.selecting.measuring import measure_answers, read_signals
from preceptor.recipes.selecting.preparing import Prepared
from preceptor.recipes.selecting.race_answers import Measured, Measurements, RaceAnswers
from preceptor.recipes.selecting.race_fleet import KeptOpen, keep_open, uses_memory_here
from preceptor.recipes.selecting.race_record import Spending, append_dropped, race_record
from preceptor.recipes.settings.race import Race
from preceptor.selection.racing import Look, alpha_of, look, round_sizes
from preceptor.selection.ranking import apply_map, guard_sign, views
from preceptor.selection.rewarding import VALUES_SCHEMA, left_out, refuse_too_few, score_answers

Rank = Callable[[Prepared, Paired, pa.Table], dict[str, Any]]
"""The content of `ranking.json` of paired answers and their rows of `signals.parquet`."""


def refuse_unfit(prepared: Prepared) -> None:
    """What a race cannot do, as far as it shows before anything is asked (raises SettingsError)."""
    settings, criterion = prepared.settings, prepared.criteria[0]
    teachers = {*prepared.recorded.teachers(), *prepared.teachers}
    if len(teachers) < 2:
        raise SettingsError(
            "a race needs two teachers",
            where="race",
            found=", ".join(sorted(teachers)),
            next_step="add a teacher, or leave `race` out",
        )
    if "reward" in criterion.needs and settings.rewards[0].map == "minmax":
        raise SettingsError(
            "a race has no ends for minmax",
            where=f"reward {settings.rewards[0].name!r}: map",
            found="minmax, whose ends are those of all answers; a race does not ask for all",
            next_step="use `map: affine` with the ends that the reward can have, or leave `race` "
            "out",
        )


@dataclass(eq=False)
class State:
    """A race as it stands.

    Attributes:
        active: teachers that are still asked.
        dropped: teacher -> (its row under the deciding criterion, its profile), as of the round in
            which it was dropped; in the order of dropping.
        rounds: what `ranking.json` says of each round.
        looks: the comparison after the last round, of the teachers asked in it.
        warnings: about answers and scores.
    """

    prepared: Prepared
    run: Run
    setting: Race
    fleet: KeptOpen | None
    answers: RaceAnswers
    spending: Spending
    alpha: float
    active: list[str]
    measured: Measurements = field(default_factory=Measurements)
    asked: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    last: tuple[list[str], Look] | None = None
    warnings: list[str] = field(default_factory=list)

    def table_of(self, teachers: list[str]) -> tuple[Paired, pa.Table]:
        """All that was measured so far of teachers that were asked in every round."""
        kept = self.measured.kept()
        paired = self.answers.of(teachers, 0, len(kept)).keep(kept)
        return paired, self.measured.table(teachers)


def race(prepared: Prepared, run: Run, rank: Rank) -> dict[str, Any]:
    """Run the race; write `answers.parquet` and `signals.parquet` of what was asked.

    Args:
        prepared: with `race` set.
        rank: makes a ranking of teachers who answered the same instructions.

    Returns:
        The content of `ranking.json`: the survivors, ranked on all instructions they share; under
        the deciding criterion also the others, the last dropped first, as of then.
    """
    setting = prepared.settings.race
    assert setting is not None
    prepared, fleet = keep_open(prepared)
    answers = RaceAnswers(prepared)
    state = State(
        prepared,
        run,
        setting,
        fleet,
        answers,
        Spending(setting, prepared.asker.facts, answers.n),
        alpha_of(setting.confidence, len(answers.teachers)),
        list(answers.teachers),
        warnings=list(answers.warnings),
    )
    for warning in state.warnings:
        say(f"warning: {warning}")
    stopped = _run_rounds(state, rank)
    if fleet is not None:
        fleet.close()
    say(f"race: {_STOPPED[stopped]}")
    return _finish(state, rank, stopped)


_STOPPED = {
    "one_left": "one teacher is left",
    "budget": "the budget is used up",
    "tokens": "the limit of tokens is reached",
    "instructions": "all instructions are used",
}


def _run_rounds(state: State, rank: Rank) -> str:
    """Round after round; the reason why there is no further one (a key of `_STOPPED`)."""
    low = 0
    for number, size in enumerate(round_sizes(state.setting.first, state.setting.growth)):
        wanted = min(size, state.answers.n - low)
        size, limit = state.spending.affordable(wanted, state.active, state.asked, state.measured)
        if size < 1:
            return limit
        _play(state, number, low, low + size)
        low += size
        _drop(state, rank)
        if len(state.active) == 1:
            return "one_left"
        if low == state.answers.n:
            return "instructions"
        if limit:
            return limit
    raise AssertionError("rounds have no end")


def _play(state: State, number: int, low: int, high: int) -> None:
    """Ask, score and measure the instructions low .. high - 1 for who is still in the race."""
    prepared, active = state.prepared, state.active
    for name in active:
        if name in prepared.teachers and state.fleet is not None:
            state.fleet.make_room(prepared.teachers[name][0])
        state.answers.ask(name, high)
        state.asked[name] = high
    paired = state.answers.of(active, low, high)
    prefix = f"race-{number:04d}-"
    rewards = {}
    for place, reward in enumerate(prepared.settings.rewards):
        if state.fleet is not None and uses_memory_here(reward):
            state.fleet.close()
        rewards[reward.name] = _score(state, paired, place, prefix)
    kept_N, why = left_out(rewards, paired.teachers)
    if why:
        say(f"warning: {why}")
        state.warnings.append(f"round {number + 1}: {why}")
    table = None
    if kept_N.any():
        kept = np.tile(kept_N, len(active))
        scores = {name: values[kept] for name, values in rewards.items()}
        table = measure_answers(prepared, state.run, paired.keep(kept_N), scores, prefix=prefix)
    state.measured.rounds.append(Measured(tuple(active), kept_N, table))
    if why:
        refuse_too_few(state.measured.kept(), prepared.settings.min_paired_share, why)


def _score(state: State, answers: Paired, place: int, prefix: str) -> np.ndarray:
    """One reward of a round's answers, as the reward itself gave it; CAR's sign guard."""
    prepared, run, reward = state.prepared, state.run, state.prepared.settings.rewards[place]
    source = prepared.rewards[reward.name]
    source.facts.clear()
    if getattr(reward, "teacher", None):
        # a judge's replies are kept in the answer store: asked again, it costs what it cost, and
        # a race that was killed counts the same
        values = score_answers(reward.name, source, answers.answers, None)
    else:
        with run.stage(f"{prefix}reward-{place:03d}", VALUES_SCHEMA) as stage:
            values = score_answers(
                reward.name, source, answers.answers, stage, prepared.runtime.fleet
            )
            run.note_seconds(f"scoring {reward.name}", stage)
    if source.facts:
        rounds = run.facts.setdefault("rewards", {}).setdefault(reward.name, [])
        rounds.append(dict(source.facts))
    if any(criterion.needs_positive_reward for criterion in prepared.criteria):
        guard_sign(reward.name, apply_map(values, reward.map, reward.scale, reward.shift))
    return values


def _drop(state: State, rank: Rank) -> None:
    """Compare the teachers after a round, and drop those that are worse than the leader."""
    n = int(state.measured.kept().sum())
    one: dict[str, Any] = {
        "n_asked": len(state.measured.kept()),
        "n_instructions": n,
        "active": list(state.active),
        "leader": None,
        "eliminated": [],
    }
    state.rounds.append(one)
    if n < 2:
        return
    paired, table = state.table_of(state.active)
    found = compare(state.prepared, paired, table, state.alpha)
    state.last = (list(state.active), found)
    one["leader"] = paired.teachers[found.leader]
    one["eliminated"] = [
        {
            "teacher": paired.teachers[m],
            "difference": float(found.difference_M[m]),
            "bound": float(found.bound_M[m]),
        }
        for m in found.out
    ]
    gone = [paired.teachers[m] for m in found.out]
    if gone:
        first = replace(state.prepared, criteria=state.prepared.criteria[:1])
        then = rank(first, paired, table)
        rows = then["criteria"][then["recommended_by"]]["teachers"]
        by_name = {row["teacher"]: row for row in rows}
        for name in reversed(gone):  # the worst goes first
            state.dropped[name] = (by_name[name], then["teachers"][name])
            state.active.remove(name)
    _say_round(state, one)


def compare(prepared: Prepared, answers: Paired, table: pa.Table, alpha: float) -> Look:
    """The teachers under the first criterion, on the rows of a table."""
    settings, criterion = prepared.settings, prepared.criteria[0]
    signals = read_signals(prepared.settings, prepared.facts, answers, table)
    _, _, own = views(criterion, signals, with_reference=False)[0]
    formula = criterion.formula(settings.parameters)
    return look(own, formula, higher_is_better=criterion.direction == "higher", alpha=alpha)


def _say_round(state: State, one: Mapping[str, Any]) -> None:
    text = (
        f"race, round {len(state.rounds)}: {one['n_instructions']:,} instructions, "
        f"{len(one['active'])} teachers, {one['leader']} leads"
    )
    gone = [
        f"{out['teacher']} (behind by {out['difference']:.3g}, bound {out['bound']:.3g})"
        for out in one["eliminated"]
    ]
    say(text + (f"; out: {', '.join(gone)}" if gone else ""))


def _finish(state: State, rank: Rank, stopped: str) -> dict[str, Any]:
    """Write the tables, rank the survivors, and put the others behind them."""
    prepared, run = state.prepared, state.run
    everybody = list(state.answers.teachers)
    spans = [(name, 0, state.asked[name]) for name in everybody]
    answers = state.answers.join(spans)
    artifacts.write_tables(run.path(artifacts.ANSWERS), artifacts.ANSWERS_SCHEMA, answers.tables())
    signals = state.measured.table(everybody)
    artifacts.write_table(run.path(artifacts.SIGNALS), signals)
    paired, table = state.table_of(state.active)
    warnings = state.warnings
    n_blank = int(answers.blank().sum())
    if n_blank:
        warnings.append(f"{n_blank:,} empty responses are scored as their end token alone")
    ranking = rank(prepared, replace(paired, warnings=tuple(warnings)), table)
    ranking["n_answers"] = signals.num_rows
    append_dropped(ranking, state.dropped)
    ranking["race"] = race_record(
        state.setting,
        ranking["recommended_by"],
        state.rounds,
        stopped,
        state.last,
        state.active,
        state.spending.totals(everybody, state.asked, state.measured),
    )
    run.facts["asked"] = prepared.asker.facts
    run.facts["answers"] = len(answers)
    run.facts["tokens"] = ranking["race"]["tokens_used"]
    return ranking
