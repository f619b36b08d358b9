"""What a study's students take: criteria of each base, every training, every exam."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.core.types import Runtime
from preceptor.data.rendering import Renderer
from preceptor.kernels import linear_nll
from preceptor.models import size as sizes
from preceptor.models.load import pick_device
from preceptor.recipes.planning.asking import Asked, known_size, light_card
from preceptor.recipes.planning.distant import Named, billions_of, located
from preceptor.recipes.planning.draft import Draft, Need, Stage
from preceptor.recipes.planning.measuring import BACKWARD, plan_measuring
from preceptor.recipes.planning.scoring import Sequences, reading_need, sequences
from preceptor.recipes.planning.study_answers import Learned, Pool, lengths, limited
from preceptor.recipes.planning.training import (
    KEPT,
    steps_of,
    teachers_of,
    trained_of,
    training_need,
    weight_itemsize,
)
from preceptor.recipes.selecting.measuring import Needs, needs_of
from preceptor.recipes.selecting.preparing import open_criteria
from preceptor.recipes.settings.loading import validated
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import Fleet, model_name
from preceptor.recipes.settings.study import Arm, Study
from preceptor.recipes.settings.training import Align, Distill, InProcess, Trained
from preceptor.recipes.studying.cells import names_teacher, recipe_settings
from preceptor.selection.measure import BATCH_TOKENS
from preceptor.training.objective import Objective, build_objective


def workers_of(fleet: Fleet) -> int:
    """How many share the work, at most."""
    return fleet.workers if isinstance(fleet.workers, int) else fleet.workers[1]


def short_name(base: str) -> str:
    """Name of a model without its owner, for the plan's tables."""
    return model_name(base).rpartition("/")[2]


def select_of(settings: Study, base: str) -> Select:
    """The selection by which a study's criteria are computed (raises SettingsError)."""
    own = {"answers", "instructions", "teachers", "rewards", "trust_remote_code"}
    tree = {name: getattr(settings, name) for name in own}
    return validated(Select, {"base": base, **tree, **settings.selection}, "selection")


def arm_of(arm: Arm, settings: Study, base: str, teacher: str) -> Trained | None:
    """An arm's recipe, as the students of a base are trained; None where it needs a teacher's model
    and there is none (raises SettingsError).
    """
    if names_teacher(arm.settings) and not teacher:
        return None
    return recipe_settings(settings, arm, base, "study", settings.seed, teacher)


def plan_criteria(
    draft: Draft,
    pool: Pool,
    learned: Sequence[Learned],
    place: str,
    base: str,
    runtime: Runtime,
    out: Any,
) -> None:
    """Add the passes of one base (and of the reference) over the answers of all sources."""
    settings = select_of(pool.settings, base)
    criteria = open_criteria(settings)
    asked = [limited(own, pool.settings.criteria_on) for own in learned]
    models = {"base": (base, place)}
    if settings.reference is not None:
        models["reference"] = (settings.reference, located(settings.reference))
    for role, (reference, where) in models.items():
        needs = needs_of(criteria, reference=role == "reference")
        if needs.none:
            continue
        if not isinstance(where, Named) and asked and all(one.instructions for one in asked):
            card = light_card(where, runtime.trust_remote_code)
            plan_measuring(draft, card, role, asked, runtime, needs, settings, out)
        else:
            _measure_from_afar(draft, pool, asked, where, reference, runtime, needs)


def _measure_from_afar(
    draft: Draft,
    pool: Pool,
    asked: Sequence[Asked],
    place: str,
    model: str,
    runtime: Runtime,
    needs: Needs,
) -> None:
    """The same, where the model or the answers are not on this machine."""
    found = lengths(pool, asked, 4096, 1 << 20)
    passes = {
        "nll": (found.tokens, 1.0) if needs.sums or needs.tokens else None,
        "nll_unconditional": (found.bare, 1.0) if "nll_unconditional" in needs.others else None,
        "gradient": (found.tokens, float(BACKWARD)) if "gradient" in needs.others else None,
    }
    device = pick_device(runtime.device)
    budget = runtime.batch_tokens or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
    rows, columns = linear_nll.TILES.get(device.type, linear_nll.BIG_TILE)
    told = not isinstance(place, Named) or billions_of(place) is not None
    for name, counted in passes.items():
        if counted is None:
            continue
        stage = Stage(
            f"measuring {short_name(model)} ({name})",
            "measure",
            f"measure.{model_name(model)}",
            model=model,
            items=found.n,
            tokens=counted[0],
            tokens_from=found.basis,
            here=not isinstance(place, Named),
            work=counted[1],
        )
        if told:
            tile = rows * columns * sizes.FULL
            stage.need = reading_need(place, runtime, budget, found, tile)
        draft.stages.append(stage)
    unread = sorted(needs.others & {"nll_question", "local"})
    if unread:
        draft.notes.append(
            f"passes of {model_name(model)} that are not counted: {', '.join(unread)}"
        )


def read_lengths(
    pool: Pool, learned: Sequence[Learned], place: str, settings: Study, runtime: Runtime
) -> list[Sequences]:
    """What a student of a base reads of each source."""
    limit = settings.training.max_length
    if isinstance(place, Named) or not all(own.asked.instructions for own in learned):
        return [lengths(pool, [own.asked], own.longest, limit) for own in learned]
    card = light_card(place, runtime.trust_remote_code)
    renderer = Renderer(card.tokenizer, min(card.limit, limit), card.reference)
    return [sequences(renderer, [own.asked]) for own in learned]


def plan_trainings(
    draft: Draft,
    students: Mapping[str, Sequence[tuple[Learned, Sequences]]],
    place: str,
    base: str,
    settings: Study,
    runtime: Runtime,
) -> None:
    """Add the trainings of one base, an arm a stage.

    Args:
        students: arm -> the sources it can learn from, and what is read of each.
    """
    for name, found in students.items():
        if not found:
            continue
        recipes = [arm_of(settings.arms[name], settings, base, own.model) for own, _ in found]
        steps = [
            steps_of(recipe.training, read)
            for recipe, (_, read) in zip(recipes, found, strict=True)
            if recipe is not None
        ]
        stage = Stage(
            f"training {short_name(base)}: {name}, {len(found):,} x {settings.seeds:,} students",
            "train",
            f"train.{model_name(base)}",
            model=base,
            items=settings.seeds * sum(count for count, _ in steps),
            tokens=settings.seeds * sum(tokens for _, tokens in steps),
            tokens_from=found[0][1].basis,
            here=not isinstance(place, Named) and settings.runs.kind == "here",
            workers=workers_of(settings.runs),
        )
        longest = max((read for _, read in found), key=lambda read: read.longest)
        _add_need(stage, [recipe for recipe in recipes if recipe], longest, place, runtime)
        draft.stages.append(stage)


def _add_need(
    stage: Stage, recipes: Sequence[Trained], longest: Sequences, place: str, runtime: Runtime
) -> None:
    """Memory of the largest training of a stage, and the work of the teachers in it."""
    if isinstance(place, Named) and billions_of(place) is None:
        return
    size = known_size(place, runtime.trust_remote_code)
    needs, beside = [], []
    by_teachers = {
        str(teachers): (own, teachers) for own in recipes for teachers in [_teachers(own)]
    }
    for own, teachers in by_teachers.values():
        models = [teacher.model for teacher in teachers.values()]
        stage.here = stage.here and not any(isinstance(model, Named) for model in models)
        beside.append(_beside(models, size.parameters))
        if all(not isinstance(model, Named) or billions_of(model) for model in models):
            needs.append(
                training_need(own.training, runtime, _objective(own), size, longest, teachers)
            )
    stage.need = max(needs, key=Need.bytes, default=None)
    stage.host = size.parameters * sizes.FULL
    stage.work = 1.0 + math.fsum(beside) / len(beside)


def _teachers(settings: Trained) -> dict[str, InProcess]:
    """The checkpoints that run beside a student, each where it is or by its name."""
    return {
        name: own.model_copy(update={"model": located(own.model)})
        for name, own in teachers_of(settings).items()
    }


def _objective(settings: Trained) -> Objective:
    if isinstance(settings, Distill):
        losses = [loss.model_dump() for loss in settings.losses]
        return build_objective(settings.mix, losses, settings.mean)
    if isinstance(settings, Align):
        return build_objective(settings.mix, [settings.divergence.model_dump()], settings.mean)
    return build_objective(0.0, [], "tokens")


def _beside(models: Sequence[str], parameters: int) -> float:
    """What the teachers' forward passes add to a token's work, in works of plain training.

    A pass forward takes 2 P operations a token, training 6 P; of several teachers each row has one.
    """
    known = [count for model in models if (count := _visited(model))]
    return sum(known) / len(known) / (3 * parameters) if known else 0.0


def _visited(model: str) -> float:
    """Parameters that a token visits; 0 where they are not known."""
    if not isinstance(model, Named):
        return float(known_size(model, False).parameters)
    told = billions_of(model)
    return told[1] * 1e9 if told else 0.0


def disk_of_student(place: str, settings: Study, runtime: Runtime) -> tuple[int, int]:
    """(bytes of a student, bytes of a training's checkpoints); 0 where the size is not known."""
    if isinstance(place, Named) and billions_of(place) is None:
        return 0, 0
    size, training = known_size(place, runtime.trust_remote_code), settings.training
    held = size.parameters * weight_itemsize(runtime)
    trained = trained_of(size, training) * weight_itemsize(runtime)
    states = trained * sizes.optimiser_states(training.optimizer)
    return held, round(KEPT * ((trained if training.lora else held) + states))
