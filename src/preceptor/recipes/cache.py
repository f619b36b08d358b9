"""`preceptor cache`: a teacher's next-token distributions on the student's data, stored once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.progress import say
from preceptor.core.run import open_run
from preceptor.core.types import Runtime, TeacherSource
from preceptor.data.answers import answers_table
from preceptor.data.examples import build_examples
from preceptor.data.rendering import Renderer
from preceptor.data.signal_store import StoreReader
from preceptor.models.load import Card, open_card, pick_device, pick_dtype, tokenizer_fingerprint
from preceptor.models.pairing import chat_templates_differ, compare_tokenizers
from preceptor.recipes.inputs.respondents import open_asker, open_teacher
from preceptor.recipes.settings.shared import Teacher, model_location
from preceptor.recipes.settings.training import Cache
from preceptor.recipes.teaching.lessons import Lessons, gather, read_lessons, respondent
from preceptor.teachers.in_process import InProcessTeacher, open_in_process
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
    prepared = prepare_cache(settings)
    student, device = prepared.student, pick_device(settings.device)
    lessons, asked = prepared.lessons, list(prepared.respondents)
    with open_run(out, prepared.identity, command) as run:
        store = run.folder / SIGNALS
        if run.finished:
            say(f"{out} holds the finished store of these settings")
            return StoreReader(store).facts
        asker = open_asker(settings.data.store, out)
        answers = gather(
            lessons, prepared.respondents, lambda row: asked[0], asker, settings.seed, run
        )
        if lessons.questions and not run.path(artifacts.ANSWERS).exists():
            artifacts.write_table(run.path(artifacts.ANSWERS), answers_table(answers))
        _, rendered = build_examples(answers, prepared.renderer, settings.data.max_truncated_share)
        facts = write_store(
            store,
            open_store_teacher(prepared),
            rendered,
            form_of(settings),
            tokenizer_fingerprint=tokenizer_fingerprint(student),
            device=device,
            batch_tokens=settings.batch_tokens,
            command=command,
        )
        run.finish()
    return facts


@dataclass(frozen=True)
class Prepared:
    """Everything that can be read and checked before a weight is loaded."""

    settings: Cache
    runtime: Runtime
    lessons: Lessons
    respondents: dict[str, tuple[Teacher, TeacherSource]]
    student: Card
    teacher: Card
    renderer: Renderer
    identity: dict[str, Any]


def prepare_cache(settings: Cache) -> Prepared:
    """Read and check all that is not a weight (raises PreceptorError)."""
    inputs: dict[str, str] = {}
    lessons = read_lessons(settings.data, inputs)
    asked = respondent(settings.data)
    pick_device(settings.device)  # refuses one that is not there
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
        "models": {
            "base": student.fingerprint,
            "teacher": card.fingerprint,
            **{
                f"respondent {name}": source.fingerprint
                for name, (_, source) in respondents.items()
            },
        },
    }
    return Prepared(settings, runtime, lessons, respondents, student, card, renderer, identity)


def open_store_teacher(prepared: Prepared) -> InProcessTeacher:
    """The teacher whose signals are stored, with its weights."""
    settings, device = prepared.settings, pick_device(prepared.settings.device)
    return open_in_process(
        prepared.teacher,
        pick_dtype(settings.teacher.dtype, device),
        device,
        trust_remote_code=settings.trust_remote_code,
        load_in=settings.teacher.load_in,
        offload=settings.teacher.offload,
    )


def form_of(settings: Cache) -> Form:
    """What is kept of each distribution."""
    return Form(
        kind=settings.form,
        k=settings.k,
        temperature=settings.temperature,
        seed=settings.seed,
        proposal=settings.proposal,
    )
