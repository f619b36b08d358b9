"""What `preceptor select` can read and check before it loads a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.core.criterion import Criterion, as_criterion
from preceptor.core.errors import DataError, SettingsError, nearest
from preceptor.core.plugs import plug
from preceptor.core.progress import say
from preceptor.core.types import Answer, Reply, RewardSource, Runtime, TeacherSource
from preceptor.criteria import CRITERIA
from preceptor.data.answer_table import Answers
from preceptor.data.answers import read_instructions, read_recorded
from preceptor.data.asking import Asker
from preceptor.data.paired import pair
from preceptor.data.rendering import Renderer
from preceptor.models.load import Card, open_card
from preceptor.recipes.inputs.reading import Question, read_table, refuse_both
from preceptor.recipes.inputs.respondents import open_reward, open_runtime, open_teacher
from preceptor.recipes.selecting.teacher_facts import Facts, teacher_facts
from preceptor.recipes.settings.pilot import refuse_unfit_pilot
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import Teacher, model_location, teacher_name
from preceptor.selection.groups import read_groups
from preceptor.selection.ranking import apply_map, guard_declared, guard_sign
from preceptor.selection.rewarding import score_answers


@dataclass(frozen=True)
class Prepared:
    """Everything that can be read and checked before a weight is loaded."""

    settings: Select
    runtime: Runtime
    criteria: list[Criterion]
    recorded: Answers
    questions: list[Question]  # for live teachers
    base: Card
    reference: Card | None
    teachers: dict[str, tuple[Teacher, TeacherSource]]
    rewards: dict[str, RewardSource]
    asker: Asker
    facts: Facts
    identity: dict[str, Any]


def prepare(settings: Select, out: Path) -> Prepared:
    """Read and check all that is not a weight; `out` is the run folder, not touched yet."""
    criteria = open_criteria(settings)
    inputs: dict[str, str] = {}
    recorded, questions = _read(settings, inputs)
    runtime, asker = open_runtime(settings, out)
    live = [teacher_name(teacher) for teacher in settings.teachers]
    pool = [*recorded.teachers(), *live]
    facts = teacher_facts(settings, criteria, pool)
    rewards = {reward.name: open_reward(reward, runtime, pool) for reward in settings.rewards}
    _check_answers(settings, criteria, rewards, recorded, questions, live)
    remote = settings.trust_remote_code
    base = open_card(model_location(settings.base), remote)
    reference = settings.reference and open_card(model_location(settings.reference), remote)
    teachers = {
        name: (teacher, open_teacher(teacher, runtime))
        for name, teacher in zip(live, settings.teachers, strict=True)
    }
    for card in (base, reference):
        if card:
            Renderer(card.tokenizer, card.limit, card.reference)  # refuses what it cannot render
    models = {"base": base.fingerprint}
    models |= {"reference": reference.fingerprint} if reference else {}
    models |= {f"teacher {name}": source.fingerprint for name, (_, source) in teachers.items()}
    models |= {f"reward {name}": r.fingerprint for name, r in rewards.items() if r.fingerprint}
    identity = {"settings": settings.model_dump(mode="json"), "inputs": inputs, "models": models}
    return Prepared(
        settings,
        runtime,
        criteria,
        recorded,
        questions,
        base,
        reference or None,
        teachers,
        rewards,
        asker,
        facts,
        identity,
    )


def _read(settings: Select, inputs: dict[str, str]) -> tuple[Answers, list[Question]]:
    """Recorded answers, and what live teachers are asked; hashes of both go to `inputs`."""
    parts = []
    for source in settings.answers:
        table = read_table(source, inputs)
        parts.append(read_recorded(table, source.columns.model_dump(), source.path))
    recorded = Answers.join(parts)
    if settings.instructions is None:
        return recorded, []
    source, limit = settings.instructions, settings.max_instructions
    table = read_table(source, inputs, limit)
    questions = read_instructions(table, source.columns.model_dump(), source.path, limit)
    if settings.teachers:
        recorded = _of_the_questions(recorded, {key for key, _, _ in questions})
    return recorded, questions


def _of_the_questions(recorded: Answers, asked: set[str]) -> Answers:
    """Where live teachers are asked, recorded answers to other instructions are left aside."""
    keys = recorded.coded("instruction_id")
    known = np.array([key in asked for key in keys.values.to_pylist()], dtype=bool)
    kept = recorded.pick(np.flatnonzero(known[keys.codes]))
    if recorded and not kept:
        raise DataError(
            "no recorded answer belongs to the instructions that live teachers are asked",
            where="answers, instructions",
            found=f"recorded id {recorded[0].instruction_id!r}, asked {min(asked)!r}",
            next_step="give both tables the same instruction_id column, or none (texts then match)",
        )
    if len(kept) < len(recorded):
        say(
            f"warning: {len(recorded) - len(kept):,} of {len(recorded):,} recorded answers are to "
            "instructions that live teachers are not asked, and are left aside"
        )
    return kept


def live_answers(
    name: str, questions: Sequence[Question], replies: Sequence[Reply] | None = None
) -> Answers:
    """A teacher's answers to the questions; empty ones where it was not asked yet."""
    if replies is None:
        replies = [Reply("", "stop", 0)] * len(questions)
    return Answers.of(
        [
            Answer(key, text, name, reply.response, reply.finish_reason, reply.n_generated, row)
            for (key, text, row), reply in zip(questions, replies, strict=True)
        ]
    )


def open_criteria(settings: Select) -> list[Criterion]:
    """The criteria that the settings name, options bound (raises SettingsError)."""
    found: dict[str, Criterion] = {}
    options = settings.criterion_options
    for name in options:
        if name not in settings.criteria:
            raise SettingsError(
                "options are given of a criterion that is not computed",
                where="criterion_options",
                found=nearest(name, settings.criteria),
                next_step="correct the name, or add it to `criteria`",
            )
    for name in settings.criteria:
        criterion = as_criterion(name, plug("criterion", CRITERIA, name), options.get(name))
        if criterion.name in found:
            raise SettingsError(
                "two criteria have the same name",
                where="criteria",
                found=f"{criterion.name!r}, from {name!r}",
                next_step="rename your function",
            )
        found[criterion.name] = criterion
    return list(found.values())


def _check_answers(
    settings: Select,
    criteria: list[Criterion],
    rewards: dict[str, RewardSource],
    recorded: Answers,
    questions: list[Question],
    live: list[str],
) -> None:
    """Declared ranges, pairing and recorded rewards can be checked before any model is opened."""
    refuse_both(live, recorded.teachers())
    positive = any(criterion.needs_positive_reward for criterion in criteria)
    for reward in settings.rewards:
        if positive:
            source, how = rewards[reward.name], (reward.map, reward.scale, reward.shift)
            guard_declared(reward.name, source.low, source.high, *how)
    asked = [live_answers(name, questions) for name in live]
    parts = [recorded, *asked] if len(recorded) else asked
    paired = pair(Answers.join(parts), settings.min_paired_share, settings.max_instructions)
    _refuse_unfit_gradients(settings, criteria, paired.shape[1])
    if settings.by is not None:
        read_groups(settings.by, recorded, questions)
    if settings.pilot is not None:
        refuse_unfit_pilot(settings.pilot, paired.teachers, paired.shape[1])
    for reward in settings.rewards:
        if reward.kind == "column":
            values = score_answers(reward.name, rewards[reward.name], paired.answers, None)
            if positive:
                guard_sign(reward.name, apply_map(values, reward.map, reward.scale, reward.shift))


def _refuse_unfit_gradients(settings: Select, criteria: list[Criterion], n: int) -> None:
    """A trial on numbers of no meaning: what so many answers do not suffice for is said now."""
    for criterion in criteria:
        if not criterion.gradients:
            continue
        if settings.race is not None:
            raise SettingsError(
                "a criterion looks at all answers of a teacher together, and a race measures them "
                "round by round",
                where="criteria, race",
                found=criterion.name,
                next_step=f"leave out {criterion.name}, or the race",
            )
        assert criterion.features is not None
        trial_ND = np.random.default_rng(0).standard_normal((n, min(settings.gradient_dim, 8)))
        criterion.features(trial_ND.astype(np.float32))
