"""A generative pairwise reward: how likely a judge is to name the answer, or the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from preceptor.core.types import Answer, Decoding, Reply, RewardSource, Runtime
from preceptor.rewards.judging.games import FIRST, SECOND, open_baseline, open_prompt, play
from preceptor.rewards.judging.judge_model import one_group, open_judge

ONE_TOKEN = Decoding(max_new_tokens=1)


def open_reward(setting: Any, runtime: Runtime) -> RewardSource:
    """The probability that an answer is better than the baseline, in (0, 1).

    In each order, P(first better) = softmax over the log-probabilities of the labels A and B as
    the first token of the judge's reply; the value is the mean of P(answer better) over both
    orders. One token is generated, greedily, whatever the judge's own decoding. An answer for
    which a label's log-probability is missing has no score (NaN): servers list only the likeliest
    tokens. Source of the form: preference from the labels' log-probabilities, positions averaged,
    as in Lee et al. (RLAIF), arXiv 2309.00267, section 3.1.

    Facts: `comparisons`, answers that were compared; `identical`, answers that are the baseline's
    own (0.5, and not asked); `games`, replies; `missing_labels`, those without both
    log-probabilities; `first_position_mean`, the mean of P(first better) (0.5 without bias);
    `contradictions`, comparisons in which the same position is the likelier one in both orders.

    Raises:
        SettingsError: a prompt that cannot be used.
        DataError: a baseline that cannot be read; while scoring, a missing baseline answer or
            reference, or no reply with both log-probabilities.
        ModelError: while scoring, if a label is not one token of the judge.
    """
    prompt = open_prompt(setting, "pairwise_logprob")
    judge = open_judge(setting, runtime, prompt, ONE_TOKEN, (FIRST, SECOND))
    rivals = open_baseline(setting)
    facts: dict[str, float] = {}

    def score(answers: Sequence[Answer]) -> list[float]:
        games, replies = play(judge, rivals, answers)
        chances = {
            place: (first_better(first), first_better(second))
            for place, (first, second) in games.items()
        }
        known = [p for pair in chances.values() for p in pair if not math.isnan(p)]
        facts["comparisons"] = len(games)
        facts["identical"] = len(answers) - len(games)
        facts["games"] = len(replies)
        facts["missing_labels"] = len(replies) - len(known)
        facts["contradictions"] = sum((a - 0.5) * (b - 0.5) > 0 for a, b in chances.values())
        if known:
            facts["first_position_mean"] = math.fsum(known) / len(known)
        lost = [reply.response for reply in replies if math.isnan(first_better(reply))]
        judge.tell(len(lost), replies, lost[0] if lost else None)
        values = []
        for place in range(len(answers)):
            first, second = chances.get(place, (0.5, 0.5))
            values.append((first - second) / 2 + 0.5)
        return values

    return RewardSource(
        one_group,
        lambda: score,
        judge.fingerprint(baseline=rivals.fingerprint),
        0.0,
        1.0,
        may_miss=True,
        facts=facts,
    )


def first_better(reply: Reply) -> float:
    """P(the answer shown first is better): softmax of the two labels; NaN where one is missing."""
    found = reply.label_logprobs
    if len(found) != 2 or found[0] is None or found[1] is None:
        return math.nan
    margin = found[0] - found[1]
    # the side that does not overflow
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else 1 - 1 / (1 + math.exp(margin))
