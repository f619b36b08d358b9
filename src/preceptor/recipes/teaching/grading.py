"""How good models are: they answer the same instructions, a reward grades, intervals are drawn.

Shapes: S seeds, N instructions, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from preceptor.core import artifacts
from preceptor.core.errors import DataError, nearest
from preceptor.core.progress import say
from preceptor.core.run import Run, hash_input
from preceptor.core.types import Answer, RewardSource, Runtime
from preceptor.data.answer_store import AnswerStore
from preceptor.data.answers import read_instructions
from preceptor.data.asking import Asker
from preceptor.data.sources import read_source
from preceptor.recipes.inputs.reading import Question
from preceptor.recipes.inputs.respondents import decoding_of, open_reward, open_teacher, requests_of
from preceptor.recipes.settings.shared import TransformersTeacher
from preceptor.recipes.settings.training import Quality
from preceptor.selection.ranking import interval
from preceptor.selection.rewarding import VALUES_SCHEMA, score_answers

RESAMPLES = 2000


@dataclass(frozen=True)
class Exam:
    """Instructions, who belongs to which group, and the reward that grades."""

    quality: Quality
    questions: list[Question]
    group_N: np.ndarray
    reward: RewardSource
    runtime: Runtime
    seed: int

    @property
    def groups(self) -> list[str]:
        """Values of the grouping column, in the order of their first row."""
        return list(dict.fromkeys(self.group_N.tolist()))


def read_exam(quality: Quality, runtime: Runtime, seed: int, inputs: dict[str, str]) -> Exam:
    """Read the instructions and open the reward; no weight is loaded (raises DataError)."""
    source = quality.instructions
    table = read_source(source.path, source.split, quality.max_instructions)
    inputs[f"{source.path} (quality)"] = hash_input(source.path, table)
    questions = read_instructions(
        table, source.columns.model_dump(), source.path, quality.max_instructions
    )
    if quality.group_by and quality.group_by not in table.column_names:
        raise DataError(
            f"the instructions have no column {quality.group_by!r}",
            where=source.path,
            found=nearest(quality.group_by, table.column_names),
            next_step="correct `quality: group_by`",
        )
    groups = [str(row.get(quality.group_by, "all")) for _, _, row in questions]
    reward = open_reward(quality.reward, runtime)
    return Exam(quality, questions, np.array(groups), reward, runtime, seed)


def sit(exam: Exam, run: Run, name: str, location: str) -> np.ndarray:
    """Greedy answers of the model at `location`, graded: reward_N. Resumable by `name`."""
    quality = exam.quality
    student = TransformersTeacher(
        model=location, max_new_tokens=quality.max_new_tokens, batch_size=quality.batch_size
    )
    texts = [text for _, text, _ in exam.questions]
    asker = Asker(AnswerStore(run.folder / artifacts.WORK / "exam"))
    replies = asker(
        f"{name} (exam)",
        open_teacher(student, exam.runtime),
        requests_of(texts, decoding_of(student), exam.seed),
    )
    answers = [
        Answer(key, text, name, reply.response, reply.finish_reason, reply.n_generated, row)
        for (key, text, row), reply in zip(exam.questions, replies, strict=True)
    ]
    with run.stage(f"grade-{name}", VALUES_SCHEMA) as stage:
        reward_N = score_answers(
            quality.reward.name, exam.reward, answers, stage, exam.runtime.fleet
        )
    if exam.reward.facts:
        run.facts.setdefault("graded", {})[name] = dict(exam.reward.facts)
    return reward_N


def grades_table(exam: Exam, graded: Mapping[str, Mapping[int, np.ndarray]]) -> pa.Table:
    """`grades.parquet`: a row per model x seed x instruction."""
    parts = []
    for name, seeds in graded.items():
        for seed, reward_N in seeds.items():
            n = len(reward_N)
            columns = {
                "model": [name] * n,
                "seed": [seed] * n,
                "instruction_id": [key for key, _, _ in exam.questions],
                "group": exam.group_N.tolist(),
                "reward": reward_N.tolist(),
            }
            parts.append(pa.table(columns, schema=artifacts.GRADES_SCHEMA))
    return pa.concat_tables(parts)


def quality_table(
    exam: Exam, graded: Mapping[str, Mapping[int, np.ndarray]], against: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The content of `quality.json`.

    Intervals are percentile intervals of a bootstrap that draws instructions (the same for all
    models) and, where there are several, seeds.

    Args:
        graded: model -> seed -> reward_N.
        against: (model, other) whose difference is wanted.
    """
    exam, graded = _scored(exam, graded)
    resampled = {name: _resample(exam, seeds) for name, seeds in graded.items()}
    point = {name: _means(exam, np.stack(list(seeds.values()))) for name, seeds in graded.items()}
    level = exam.quality.confidence
    rows = []
    for name, seeds in graded.items():
        row: dict[str, Any] = {"model": name, "seeds": sorted(seeds)}
        for group in exam.groups:
            low, high = interval(resampled[name][group], level)
            row[group] = {"score": point[name][group], "low": float(low), "high": float(high)}
        if len(seeds) > 1:
            row["by_seed"] = {
                str(seed): _means(exam, reward_N[None]) for seed, reward_N in seeds.items()
            }
        rows.append(row)
    differences = []
    for name, other in against:
        for group in exam.groups:
            gap_R = resampled[name][group] - resampled[other][group]
            low, high = interval(gap_R, level)
            differences.append(
                {
                    "model": name,
                    "against": other,
                    "group": group,
                    "difference": point[name][group] - point[other][group],
                    "low": float(low),
                    "high": float(high),
                }
            )
    return {
        "version": 1,
        "confidence": level,
        "measure": f"mean reward ({exam.quality.reward.name}), greedy answers",
        "groups": exam.groups,
        "n": {group: int((exam.group_N == group).sum()) for group in exam.groups},
        "rows": rows,
        "differences": differences,
    }


def _scored(
    exam: Exam, graded: Mapping[str, Mapping[int, np.ndarray]]
) -> tuple[Exam, Mapping[str, Mapping[int, np.ndarray]]]:
    """The instructions for which every model's answer has a score (raises DataError if none)."""
    all_RN = np.stack([reward_N for seeds in graded.values() for reward_N in seeds.values()])
    kept_N = np.isfinite(all_RN.sum(axis=0))
    if kept_N.all():
        return exam, graded
    if not kept_N.any():
        raise DataError(
            "no instruction has a score for every model",
            where="quality: reward",
            found=f"{np.isnan(all_RN).sum():,} of {all_RN.size:,} answers without a score",
            next_step="use a judge that follows its prompt, or another reward",
        )
    say(
        f"warning: {(~kept_N).sum():,} of {kept_N.size:,} instructions of the exam were left out: "
        f"{exam.quality.reward.name} gave some answer no score"
    )
    questions = [exam.questions[place] for place in np.flatnonzero(kept_N)]
    return replace(exam, questions=questions, group_N=exam.group_N[kept_N]), {
        name: {seed: reward_N[kept_N] for seed, reward_N in seeds.items()}
        for name, seeds in graded.items()
    }


def _means(exam: Exam, reward_SN: np.ndarray) -> dict[str, float]:
    return {g: float(reward_SN[:, exam.group_N == g].mean()) for g in exam.groups}


def _resample(exam: Exam, seeds: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    """Group -> resampled means of shape (R,); the draws depend on the exam's seed alone."""
    reward_SN = np.stack([seeds[seed] for seed in sorted(seeds)])
    # apart, so that models with other numbers of seeds are still drawn on the same instructions
    of_rows, of_seeds = (np.random.default_rng([exam.seed, place]) for place in (0, 1))
    found = {}
    for group in exam.groups:
        own_SN = reward_SN[:, exam.group_N == group]
        s, n = own_SN.shape
        draw_RS = of_seeds.multinomial(s, np.full(s, 1 / s), size=RESAMPLES) / s
        draw_RN = of_rows.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
        found[group] = np.einsum("rs,sn,rn->r", draw_RS, own_SN, draw_RN, optimize=True)
    return found
