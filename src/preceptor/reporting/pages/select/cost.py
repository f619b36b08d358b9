"""What a selection took: answers, tokens, time and money, in words and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preceptor.reporting.parts.origins import time_words
from preceptor.reporting.parts.wording import number, percent

JUDGE = "judge:"  # before the names of judges among those who were asked


def _asked(provenance: Any) -> dict[str, Mapping[str, Any]]:
    asked = provenance.get("asked") if isinstance(provenance, Mapping) else None
    if not isinstance(asked, Mapping):
        return {}
    return {str(name): own for name, own in asked.items() if isinstance(own, Mapping)}


def _number(facts: Mapping[str, Any], key: str) -> float:
    value = facts.get(key)
    fit = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if fit and value is not None else 0.0


def totals(ranking: Mapping[str, Any], provenance: Any) -> dict[str, float | None]:
    """Sums over the whole run; None where the folder does not tell.

    Keys: answers (measured), asked (of them from live teachers), judged (judgements), scored
    (response tokens of the base), generated (tokens of live teachers and judges), seconds (of all
    stages and of asking, or of the last run where that is longer), money (in the unit of the
    prices).
    """
    asked = _asked(provenance)
    facts = provenance if isinstance(provenance, Mapping) else {}
    stages = facts.get("stage_seconds")
    stages = stages if isinstance(stages, Mapping) else {}
    judges = [own for name, own in asked.items() if name.startswith(JUDGE)]
    teachers = [own for name, own in asked.items() if not name.startswith(JUDGE)]
    seconds = sum(_number(stages, key) for key in stages)
    seconds += sum(_number(own, "seconds") for own in asked.values())
    seconds = max(seconds, _number(facts, "wall_seconds_of_last_run"))
    return {
        "answers": ranking.get("n_answers"),
        "asked": sum(_number(own, "answers") for own in teachers),
        "judged": sum(_number(own, "answers") for own in judges),
        "scored": _number(facts, "tokens") or None,
        "generated": sum(_number(own, "generated_tokens") for own in asked.values()),
        "seconds": seconds or None,
        "money": sum(_number(own, "cost") for own in asked.values()),
    }


def clause(ranking: Mapping[str, Any], provenance: Any) -> str:
    """A clause of the verdict: "this took 16,100 recorded answers and 5,988,020 scored tokens"."""
    found = totals(ranking, provenance)
    parts = []
    race = ranking.get("race") or {}
    if found["answers"]:
        asked = found["asked"] or 0
        told = isinstance(provenance, Mapping) and isinstance(provenance.get("asked"), Mapping)
        kind = " recorded" if told and not asked else ""
        n = race["answers_used"] if race else found["answers"]
        text = f"{number(n, 0)}{kind} answers"
        if race:
            share = percent(race["answers_used"] / race["answers_full"])
            text += f" ({share} of what asking everybody everything takes)"
        elif 0 < asked < found["answers"]:
            text += f" ({number(asked, 0)} of them asked for)"
        parts.append(text)
    if found["judged"]:
        parts.append(f"{number(found['judged'], 0)} judgements")
    if found["generated"]:
        parts.append(f"{number(found['generated'], 0)} generated tokens")
    if found["scored"]:
        parts.append(f"{number(found['scored'], 0)} scored tokens")
    if found["seconds"]:
        parts.append(time_words(found["seconds"]))
    if found["money"]:
        parts.append(f"{number(found['money'], 2)} in money")
    if not parts:
        return ""
    return "this took " + (", ".join(parts[:-1]) + " and " if parts[1:] else "") + parts[-1]


def table(provenance: Any) -> dict[str, Any] | None:
    """Who was asked for how much, and the time of each stage; None where nothing was noted.

    `asked`: (name, is a judge, answers, found in the store, prompt tokens, generated tokens, time,
    money), as texts; `stages`: (name, time).
    """
    asked = _asked(provenance)
    stages = provenance.get("stage_seconds") if isinstance(provenance, Mapping) else None
    stages = stages if isinstance(stages, Mapping) else {}
    if not asked and not stages:
        return None
    priced = any(_number(own, "cost") for own in asked.values())
    return {
        "priced": priced,
        "asked": [
            {
                "name": name.removeprefix(JUDGE),
                "judge": name.startswith(JUDGE),
                "answers": number(_number(own, "answers"), 0),
                "reused": number(_number(own, "reused"), 0),
                "prompt": number(_number(own, "prompt_tokens"), 0),
                "generated": number(_number(own, "generated_tokens"), 0),
                "time": time_words(_number(own, "seconds")),
                "money": number(_number(own, "cost"), 2),
            }
            for name, own in asked.items()
        ],
        "stages": [(str(name), time_words(_number(stages, name))) for name in stages],
    }
