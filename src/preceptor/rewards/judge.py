"""A language model that grades each answer by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from preceptor.core.types import Answer, RewardSource, Runtime
from preceptor.rewards.judging.judge_model import one_group, open_judge
from preceptor.rewards.judging.prompt import Prompt

GRADE = re.compile(r"\[\[\s*([+-]?\d+(?:\.\d+)?)\s*\]\]")


def open_reward(setting: Any, runtime: Runtime) -> RewardSource:
    """The grade that a judge writes, from `setting.low` (worst) to `setting.high` (best).

    The judge (`setting.teacher`) reads the prompt file with the instruction and the answer in it,
    and its reply is read by `read_grade`. An answer whose reply holds no grade has no score (NaN).
    Source of the form: single-answer grading of Zheng et al., arXiv 2306.05685, section 3.1.

    Facts: `replies`; `parse_failures`, those without a grade; `cut_off`, those that ended at
    max_new_tokens.

    Raises:
        SettingsError: a prompt that cannot be used.
        DataError: while scoring, if no reply at all holds a grade, or a reference is missing.
    """
    low, high = setting.low, setting.high
    probes = {"instruction": "the instruction 4711", "response": "the answer 4712"}
    scale = {"low": f"{low:g}", "high": f"{high:g}"}
    own = {"reference": "the reference 4714"} if setting.reference else {}
    prompt = Prompt(setting.prompt, "judge", probes | scale | own, tuple(probes))
    judge = open_judge(setting, runtime, prompt)
    facts: dict[str, float] = {}

    def score(answers: Sequence[Answer]) -> list[float]:
        replies = judge.ask([{**judge.seen(a), "response": a.response, **scale} for a in answers])
        grades = [read_grade(reply.response, low, high) for reply in replies]
        values = [math.nan if grade is None else grade for grade in grades]
        lost = [r.response for r, grade in zip(replies, grades, strict=True) if grade is None]
        facts["replies"] = len(replies)
        facts["parse_failures"] = len(lost)
        facts["cut_off"] = sum(reply.finish_reason == "length" for reply in replies)
        judge.tell(len(lost), replies, lost[0] if lost else None)
        return values

    return RewardSource(
        one_group, lambda: score, judge.fingerprint(), low, high, may_miss=True, facts=facts
    )


def read_grade(reply: str, low: float, high: float) -> float | None:
    """The number in the last `[[...]]` of a reply; None if there is none, or out of range."""
    found = GRADE.findall(reply)
    grade = float(found[-1]) if found else math.nan
    return grade if low <= grade <= high else None
