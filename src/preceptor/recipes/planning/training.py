"""What training takes: examples and steps, memory of a step, checkpoints, exams.

Shapes: B samples, T tokens, N scored positions, D hidden width, V vocabulary.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.core.types import Runtime
from preceptor.kernels import attention_kl, linear_divergence
from preceptor.models import size as sizes
from preceptor.models.load import pick_device, pick_dtype
from preceptor.models.size import Size
from preceptor.recipes.planning.asking import (
    Asked,
    generating_need,
    known_size,
    local_card,
    sample_places,
)
from preceptor.recipes.planning.devices import merged
from preceptor.recipes.planning.draft import BOUND, Draft, Need, Stage
from preceptor.recipes.planning.draft import halves as smaller
from preceptor.recipes.planning.lessons import compare, refuse_cut
from preceptor.recipes.planning.scoring import (
    Sequences,
    add_verdict,
    plan_reward,
    sequences,
)
from preceptor.recipes.settings.shared import TransformersTeacher, model_location, model_name
from preceptor.recipes.settings.training import Align, Cached, Distill, InProcess, Training
from preceptor.recipes.teaching import course
from preceptor.training.objective import Objective

KEPT = 3  # checkpoints on the disk at once: the last two, and the one that is being written
FULL = sizes.FULL


def plan_training(
    draft: Draft,
    prepared: course.Prepared,
    courses: Sequence[course.Course],
    asked: Sequence[Asked],
    out: Path,
) -> None:
    """Add every student's training, its checkpoints, and the exam."""
    pupil, settings = prepared.pupil, prepared.settings
    renderer = pupil.renderer()
    found = sequences(renderer, asked)
    add_verdict(draft, "student", pupil.card, found)
    refuse_cut(draft, found, settings, renderer)
    teachers = teachers_of(settings)
    for name, teacher in teachers.items():
        compare(draft, f"teacher {name}", pupil.card, teacher, pupil.runtime)
    size = known_size(pupil.card.reference, pupil.runtime.trust_remote_code)
    training = pupil.training
    steps, tokens = steps_of(training, found)
    trained = trained_of(size, training)
    for one in courses:
        live = teachers if one.objective.needs else {}
        draft.stages.append(
            Stage(
                f"training {one.name}",
                "train",
                "train",
                model=model_name(pupil.card.reference),
                items=steps,
                tokens=tokens,
                tokens_from=found.basis,
                need=training_need(training, pupil.runtime, one.objective, size, found, live),
                host=size.parameters * FULL,
            )
        )
    held = size.parameters * weight_itemsize(pupil.runtime)
    states = trained * weight_itemsize(pupil.runtime) * sizes.optimiser_states(training.optimizer)
    checkpoint = (trained * weight_itemsize(pupil.runtime) if training.lora else held) + states
    written = math.ceil(steps / training.save_steps)
    left = min(written, KEPT - 1) * (len(courses) - 1) + min(written, KEPT)
    draft.write("checkpoints", out, round(left * checkpoint))
    draft.write("models", out, len(courses) * held)
    draft.notes.append(
        f"training: {steps:,} steps of {training.batch_size * training.accumulation:,} samples"
    )
    if prepared.exam is not None:
        _plan_exam(draft, prepared, [one.name for one in courses], asked)


def teachers_of(settings: Any) -> dict[str, InProcess]:
    """The checkpoints that teach beside the student, by name; none where signals are stored."""
    if isinstance(settings, Align):
        return {**settings.experts, "reference": settings.reference}
    if not isinstance(settings, Distill) or isinstance(settings.teacher, Cached):
        return {}
    teacher = settings.teacher
    if isinstance(teacher, InProcess):
        return {model_name(teacher.model): teacher}
    if teacher.kind == "ensemble":
        return {f"{place}: {one.model}": one for place, one in enumerate(teacher.teachers)}
    rest = {"otherwise": teacher.otherwise} if teacher.otherwise else {}
    return {**teacher.teachers, **rest}


def steps_of(training: Training, found: Sequences) -> tuple[int, int]:
    """(optimiser steps, tokens that are trained on) of one student."""
    rows, mean = found.n, float(np.mean(found.lengths)) if found.lengths else 0.0
    if training.packing:
        rows, mean = math.ceil(rows * mean / training.max_length), float(training.max_length)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    passes = math.ceil(rows / (training.batch_size * processes))
    an_epoch = max(math.ceil(passes / training.accumulation), 1)
    steps = training.max_steps or math.ceil(training.epochs * an_epoch)
    return steps, round(steps / an_epoch * rows * mean)


def trained_of(size: Size, training: Training) -> int:
    """Parameters that are trained: all, or those of adapters."""
    return sizes.lora_parameters(size, training.lora.r) if training.lora else size.parameters


def weight_itemsize(runtime: Runtime) -> int:
    """Bytes of a student's weight."""
    return 2 if runtime.dtype == "bfloat16" else FULL


def training_need(
    training: Training,
    runtime: Runtime,
    objective: Objective,
    size: Size,
    found: Sequences,
    teachers: Mapping[str, InProcess],
) -> Need:
    """Student, gradients, optimiser, activations, losses, and every teacher beside them."""
    device = pick_device(runtime.device)
    opened = {
        name: known_size(model_location(teacher.model), runtime.trust_remote_code)
        for name, teacher in teachers.items()
    }
    longest = training.max_length if training.packing else max(found.longest, 1)
    scored = longest if training.packing else found.longest_response
    split = training.gradient_norms and len(objective.names) > 1
    batch, keeping = "training.batch_size", "training.gradient_checkpointing"
    adapters, quantised = "training.lora", "teacher.load_in"

    def parts(knobs: Any) -> dict[str, int]:
        s = 2 if knobs["dtype"] == "bfloat16" else FULL
        moved = 2 if device.type != "cpu" and knobs["dtype"] == "auto" else s
        rows = min(knobs[batch], max(found.n, 1))
        small = sizes.lora_parameters(size, knobs[adapters]) if knobs[adapters] else None
        step = sizes.training_bytes(
            size,
            tokens=rows * longest,
            s=s,
            trained=size.parameters if small is None else small,
            optimiser=training.optimizer,
            extra_gradients=split,
            checkpointing=knobs[keeping],
            autocast=moved,
            batched_update=device.type == "cuda" and "fused" not in training.optimizer,
        )
        beside = [
            _teacher_bytes(teacher, opened[name], rows * longest, knobs[quantised], device)
            for name, teacher in teachers.items()
        ]
        losses = _loss_bytes(objective, size, opened, rows, longest, scored, device.type)
        return merged(step, {"losses": losses}, *beside)

    in_lora = training.lora.r if training.lora else 0
    knobs = {
        batch: training.batch_size,
        keeping: training.gradient_checkpointing,
        "dtype": runtime.dtype,
        adapters: in_lora,
        quantised: "",
    }
    ways: dict[str, list[Any]] = {batch: smaller(training.batch_size)}
    if not training.gradient_checkpointing:
        ways[keeping] = [True]
    if weight_itemsize(runtime) > 2:
        ways["dtype"] = ["bfloat16"]
    if not in_lora:
        ways[adapters] = [64]
    if teachers and device.type == "cuda":
        ways[quantised] = ["8bit", "4bit"]
    return Need(parts, knobs, ways)


def _teacher_bytes(
    teacher: InProcess, size: Size, tokens: int, load_in: str, device: Any
) -> dict[str, int]:
    s = pick_dtype(teacher.dtype, device).itemsize
    weights = sizes.weight_bytes(size, s, load_in or teacher.load_in)
    return {"teachers": weights + sizes.forward_bytes(size, tokens, s)}


def _loss_bytes(
    objective: Objective,
    size: Size,
    teachers: Mapping[str, Size],
    rows: int,
    longest: int,
    scored: int,
    kind: str,
) -> int:
    """Tiles of logits, the gradients that the fused pass forms, and maps of short samples.

    The states of N positions and their gradient, 2ND, the head's gradient, VD, and a tile of the
    student's and one of the teacher's logits, all fp32. A batch whose maps have few elements keeps
    some six of them for each pair of layers; a larger one the gradients of queries and keys.
    """
    n, tokens = rows * scored, rows * longest
    most = linear_divergence.TILE_BYTES.get(kind, linear_divergence.BIG_TILE)
    models = 2 if "logits" in objective.needs else 1
    total = models * min(most, n * size.vocabulary * FULL)
    total += FULL * (2 * n * size.width + size.head)
    if "attention" in objective.needs:
        other = max((one.heads for one in teachers.values()), default=size.heads)
        maps = rows * max(size.heads, other) * longest**2
        if maps <= attention_kl.WHOLE:
            total += size.layers * 6 * maps * FULL
        else:
            total += size.layers * tokens * 2 * (size.attended + size.keyed) * FULL
    if "hidden" in objective.needs:
        total += 2 * size.layers * n * size.width * FULL
    return total


def _plan_exam(
    draft: Draft, prepared: course.Prepared, names: Sequence[str], asked: Sequence[Asked]
) -> None:
    """Base and students answer the exam, and a reward grades."""
    exam, pupil = prepared.exam, prepared.pupil
    assert exam is not None
    quality, card = exam.quality, pupil.card
    texts = [text for _, text, _ in exam.questions]
    student = TransformersTeacher(
        model=card.reference,
        max_new_tokens=quality.max_new_tokens,
        batch_size=quality.batch_size,
    )
    answers = [text for one in asked for text in (*one.responses, *one.others) if text is not None]
    known = pupil.card.tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
    learned = 1 + float(np.mean([len(ids) for ids in known])) if known else 0.0
    runtime = exam.runtime
    places, _ = sample_places(texts)
    reader = local_card(student, runtime) or card
    prompts = [
        len(ids)
        for ids in (
            reader.tokenizer(texts[place], add_special_tokens=False)["input_ids"]
            for place in places
        )
    ]
    for name in ("base", *names):
        mean = quality.max_new_tokens if name == "base" or not learned else learned
        mean = min(mean, quality.max_new_tokens)
        wanted = round(mean * len(texts))
        draft.stages.append(
            Stage(
                f"exam of {name}",
                "ask",
                "ask.base",
                model=model_name(card.reference),
                items=len(texts),
                prompt_tokens=round(float(np.mean(prompts)) * len(texts)),
                generated_tokens=wanted,
                tokens=wanted,
                unit="generated tokens",
                tokens_from=BOUND if mean == quality.max_new_tokens else "as long as what it reads",
                need=generating_need(
                    card.reference,
                    runtime,
                    max(prompts),
                    quality.max_new_tokens,
                    {"quality.batch_size": min(quality.batch_size, len(texts))},
                ),
                host=known_size(card.reference, runtime.trust_remote_code).parameters * FULL,
            )
        )
        one = Asked(
            name,
            [texts[place] for place in places],
            [None] * len(places),
            len(texts),
            answers[:200],
            float(mean),
        )
        plan_reward(draft, quality.reward, [one], runtime, f"grading {name}")
