"""`preceptor cache`: a teacher's next-token distributions on the student's data, stored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.progress import say
from preceptor.core.run import open_run
from preceptor.core.types import Runtime
from preceptor.data.answers import answers_table
from preceptor.data.examples import build_examples
from preceptor.data.rendering import Renderer
from preceptor.data.signal_store import StoreReader
from preceptor.models.load import open_card, pick_device, pick_dtype, tokenizer_fingerprint
from preceptor.models.pairing import chat_templates_differ, compare_tokenizers
from preceptor.recipes.lessons import gather, read_lessons, respondent
from preceptor.recipes.respondents import open_asker, open_teacher
from preceptor.recipes.shared_settings import model_location
from preceptor.recipes.training_settings import Cache
from preceptor.teachers.in_process import open_in_process
from preceptor.training.storing import Form, write_store

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
    asked = respondent(settings.data)
    device = pick_device(settings.device)
    runtime = Runtime(settings.device, "auto", None, settings.trust_remote_code)
    student = open_card(model_location(settings.base), settings.trust_remote_code)
    card = open_card(model_location(settings.teacher.model), settings.trust_remote_code)
    compare_tokenizers(student, card)
    warning = chat_templates_differ(student, card)
    if warning:
        say(f"warning: {warning}")
    limit = min(student.limit, settings.max_length)
    renderer = Renderer(student.tokenizer, limit, student.reference)
    respondents = {
        name: (teacher, open_teacher(teacher, runtime)) for name, teacher in asked.items()
    }
    identity = {
        "settings": settings.model_dump(mode="json"),
        "inputs": inputs,
        "models": {"base": student.fingerprint, "teacher": card.fingerprint},
    }
    with open_run(out, identity, command) as run:
        store = run.folder / SIGNALS
        if run.finished:
            say(f"{out} holds the finished store of these settings")
            return StoreReader(store).facts
        asker = open_asker(settings.data.store, out)
        answers = gather(
            lessons, respondents, lambda row: next(iter(asked)), asker, settings.seed, run
        )
        if lessons.questions and not run.path(artifacts.ANSWERS).exists():
            artifacts.write_table(run.path(artifacts.ANSWERS), answers_table(answers))
        _, rendered = build_examples(answers, renderer, settings.data.max_truncated_share)
        teacher = open_in_process(
            card,
            pick_dtype(settings.teacher.dtype, device),
            device,
            trust_remote_code=settings.trust_remote_code,
            load_in=settings.teacher.load_in,
            offload=settings.teacher.offload,
        )
        form = Form(
            kind=settings.form,
            k=settings.k,
            temperature=settings.temperature,
            seed=settings.seed,
            proposal=settings.proposal,
        )
        facts = write_store(
            store,
            teacher,
            rendered,
            form,
            tokenizer_fingerprint=tokenizer_fingerprint(student),
            device=device,
            batch_tokens=settings.batch_tokens,
            command=command,
        )
        run.finish()
    return facts
