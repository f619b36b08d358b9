"""`preceptor cache`: a teacher's next-token distributions on the student's data, stored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.core.errors import SettingsError
from preceptor.core.progress import say
from preceptor.core.run import open_run
from preceptor.core.types import Runtime
from preceptor.data.examples import build_examples
from preceptor.models.load import open_card, pick_device, pick_dtype, tokenizer_fingerprint
from preceptor.models.pairing import chat_templates_differ, compare_tokenizers
from preceptor.recipes.lessons import read_lessons
from preceptor.recipes.settings import model_location
from preceptor.recipes.student import Pupil
from preceptor.recipes.training_settings import Cache, Training
from preceptor.teachers.in_process import open_in_process
from preceptor.teachers.storing import Form, write_store

SIGNALS = "signals"  # folder of the store in the run folder


def cache(settings: Cache, out: Path, command: str = "preceptor cache") -> dict[str, Any]:
    """Store the teacher's signals; a begun store of the same settings is finished.

    Returns:
        The content of `store.json` in the folder `signals` of the run folder, which is what
        `teacher: {kind: cached, path: ...}` names.

    Raises:
        PreceptorError: bad settings, data, model or folder, before a weight is loaded.
    """
    inputs: dict[str, str] = {}
    lessons = read_lessons(settings.data, inputs)
    if lessons.questions:
        raise SettingsError(
            "signals are stored for answers that are recorded",
            where="data: instructions",
            next_step="ask first (`preceptor select`), then set `data: {answers: ...}`",
        )
    device = pick_device(settings.device)
    remote = settings.trust_remote_code
    student = open_card(model_location(settings.base), remote)
    card = open_card(model_location(settings.teacher.model), remote)
    compare_tokenizers(student, card)
    warning = chat_templates_differ(student, card)
    if warning:
        say(f"warning: {warning}")
    training = Training.model_validate({"max_length": settings.max_length})
    pupil = Pupil(student, training, Runtime(), settings.seed)
    _, rendered = build_examples(
        lessons.answers, pupil.renderer(), settings.data.max_truncated_share
    )
    identity = {
        "settings": settings.model_dump(mode="json"),
        "inputs": inputs,
        "models": {"base": student.fingerprint, "teacher": card.fingerprint},
    }
    with open_run(out, identity, command) as run:
        teacher = open_in_process(
            card,
            pick_dtype(settings.teacher.dtype, device),
            device,
            trust_remote_code=remote,
            load_in=settings.teacher.load_in,
            offload=settings.teacher.offload,
        )
        store = write_store(
            run.folder / SIGNALS,
            teacher,
            rendered,
            Form(
                kind=settings.form,
                k=settings.k,
                temperature=settings.temperature,
                seed=settings.seed,
                proposal=settings.proposal,
            ),
            tokenizer_fingerprint=tokenizer_fingerprint(student),
            device=device,
            batch_tokens=settings.batch_tokens,
            command=command,
        )
        run.finish()
    return store
