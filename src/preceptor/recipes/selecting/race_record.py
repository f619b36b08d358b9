"""What a race spends, and what `ranking.json` says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.recipes.selecting.race_answers import Measurements
from preceptor.recipes.settings.race import Race
from preceptor.selection.racing import Look


class Spending:
    """Money and tokens of a race: so far, of the next round, and of a run that asks everything.

    Args:
        setting: with the limits.
        facts: of the asker: name -> `cost` of all its answers, those found in the store included,
            so that a race that was killed counts the same. Names that are no teachers are judges.
        n: instructions in all.
    """

    def __init__(self, setting: Race, facts: Mapping[str, Mapping[str, Any]], n: int) -> None:
        self._setting, self._facts, self._n = setting, facts, n

    def affordable(
        self,
        size: int,
        active: Sequence[str],
        asked: Mapping[str, int],
        measured: Measurements,
    ) -> tuple[int, str]:
        """How many instructions of a round the limits leave, and which limit cut it ("" if none).

        Judged by what the same teachers' answers cost so far; the first round is never cut.
        """
        if not asked:
            return size, ""
        totals = self.totals(list(asked), asked, measured)
        limits = (
            ("budget", self._setting.budget, totals["cost"], "cost"),
            ("tokens", self._setting.tokens, totals["tokens_used"], "tokens"),
        )
        cut_by = ""
        for name, limit, spent, what in limits:
            if limit is None:
                continue
            each = sum(self._each(teacher, what, asked, measured) for teacher in active)
            if spent >= limit:
                return 0, name
            if each > 0 and (limit - spent) / each < size:
                size, cut_by = int((limit - spent) / each), name
        return size, cut_by

    def totals(
        self, teachers: Sequence[str], asked: Mapping[str, int], measured: Measurements
    ) -> dict[str, Any]:
        """Answers, tokens and money: used, and estimated for all teachers and instructions."""
        used = {name: asked.get(name, 0) for name in teachers}
        full = {
            what: sum(self._each(name, what, asked, measured) for name in teachers) * self._n
            for what in ("tokens", "cost")
        }
        return {
            "answers_used": sum(used.values()),
            "answers_full": len(teachers) * self._n,
            "tokens_used": sum(measured.tokens(name)[0] for name in teachers),
            "tokens_full": round(full["tokens"]),
            "cost": sum(float(facts["cost"]) for facts in self._facts.values()),
            "cost_full": full["cost"],
        }

    def _each(
        self, name: str, what: str, asked: Mapping[str, int], measured: Measurements
    ) -> float:
        """Mean tokens, or mean money (a judge's share included), of an answer of a teacher."""
        if what == "tokens":
            total, n = measured.tokens(name)
            return total / n if n else 0.0
        own = float(self._facts.get(name, {}).get("cost", 0.0))
        judges = sum(float(f["cost"]) for other, f in self._facts.items() if other not in asked)
        return own / asked[name] + judges / sum(asked.values())


def append_dropped(
    ranking: dict[str, Any], dropped: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    """Put the dropped teachers behind the survivors, under the deciding criterion alone.

    Score and interval are those of the round in which a teacher was dropped. Its rank is its place
    in the order of dropping, and its interval of ranks holds that place too.

    Args:
        dropped: teacher -> (its row, its profile) as of then; in the order of dropping.
    """
    rows = ranking["criteria"][ranking["recommended_by"]]["teachers"]
    for name in reversed(list(dropped)):
        row, profile = dropped[name]
        rank = len(rows) + 1
        ends = {"rank_low": min(row["rank_low"], rank), "rank_high": max(row["rank_high"], rank)}
        rows.append(row | {"rank": rank, **ends, "p_best": 0.0})
        ranking["teachers"][name] = profile
    ranking["teachers"] = dict(sorted(ranking["teachers"].items()))


def race_record(
    setting: Race,
    criterion: str,
    rounds: Sequence[dict[str, Any]],
    stopped: str,
    last: tuple[Sequence[str], Look] | None,
    survivors: Sequence[str],
    totals: Mapping[str, Any],
) -> dict[str, Any]:
    """The part `race` of `ranking.json`.

    Args:
        last: the last comparison, and the teachers in it.
        totals: of `Spending.totals`.
    """
    needed = []
    if last is not None:
        names, found = last
        needed = [
            {"first": names[found.leader], "second": name, "n_more": found.needed(place)}
            for place, name in enumerate(names)
            if name in survivors and place != found.leader
        ]
        needed.sort(key=lambda pair: (pair["n_more"] is None, pair["n_more"] or 0))
    return {
        "criterion": criterion,
        "confidence": setting.confidence,
        "n_total": totals["answers_full"] // len(rounds[0]["active"]),
        "rounds": list(rounds),
        **totals,
        "stopped_because": stopped,
        "needed": needed,
    }
