"""A language model that compares each answer with a baseline, in both orders."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.core.types import Answer, Reply, RewardSource, Runtime
from preceptor.rewards.judging.games import FIRST, SECOND, open_baseline, open_prompt, play
from preceptor.rewards.judging.judge_model import one_group, open_judge

TIE = "C"
VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]")


def open_reward(setting: Any, runtime: Runtime) -> RewardSource:
    """How an answer fares against the baseline: 1 better, 0.5 as good, 0 worse.

    The judge compares twice, the answer shown first and shown second, and the value is the mean of
    the two (a win 1, a tie 0.5, a loss 0): a judge that goes by the position alone gives 0.5.
    An answer that lacks one of its two verdicts has no score (NaN).
    Source: Zheng et al., arXiv 2306.05685, sections 3.1 and 3.4.

    Facts: `comparisons`, answers that were compared; `identical`, answers that are the baseline's
    own (0.5, and not asked); `games`, replies; `parse_failures`, those without a verdict; `ties`,
    those with `[[C]]`; `first_position_wins`, the share of decided games that the answer shown
    first won (0.5 without bias); `contradictions`, comparisons in which one position won both
    games.

    Raises:
        SettingsError: a prompt that cannot be used.
        DataError: a baseline that cannot be read; while scoring, a missing baseline answer or
            reference, or no reply with a verdict.
    """
    judge = open_judge(setting, runtime, open_prompt(setting, "pairwise"))
    rivals = open_baseline(setting)
    facts: dict[str, float] = {}

    def score(answers: Sequence[Answer]) -> list[float]:
        games, replies = play(judge, rivals, answers)
        verdicts = {
            place: (read_verdict(first), read_verdict(second))
            for place, (first, second) in games.items()
        }
        facts.update(_counts(verdicts, len(answers)))
        lost = [reply.response for reply in replies if read_verdict(reply) is None]
        judge.tell(len(lost), replies, lost[0] if lost else None)
        return [
            value_of(*verdicts[place]) if place in verdicts else 0.5
            for place in range(len(answers))
        ]

    return RewardSource(
        one_group,
        lambda: score,
        judge.fingerprint(baseline=rivals.fingerprint),
        0.0,
        1.0,
        may_miss=True,
        facts=facts,
    )


def read_verdict(reply: Reply) -> str | None:
    """A, B or C (tie): the last one in double square brackets; None if there is none."""
    found = VERDICT.findall(reply.response)
    return found[-1] if found else None


def value_of(first: str | None, second: str | None) -> float:
    """Mean of an answer's two games, from the verdicts where it stood first and second."""
    if first is None or second is None:
        return math.nan
    won = {FIRST: 1.0, TIE: 0.5, SECOND: 0.0}
    return (won[first] + 1.0 - won[second]) / 2


def _counts(
    verdicts: Mapping[int, tuple[str | None, str | None]], n_answers: int
) -> dict[str, float]:
    games = [verdict for pair in verdicts.values() for verdict in pair]
    decided = [verdict for verdict in games if verdict in (FIRST, SECOND)]
    counts: dict[str, float] = {
        "comparisons": len(verdicts),
        "identical": n_answers - len(verdicts),
        "games": len(games),
        "parse_failures": games.count(None),
        "ties": games.count(TIE),
        "contradictions": sum(a == b and a in (FIRST, SECOND) for a, b in verdicts.values()),
    }
    if decided:
        counts["first_position_wins"] = decided.count(FIRST) / len(decided)
    return counts
