"""The plans of `preceptor distill`, `align` and `sft`."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PrinterCallback
from transformers.trainer_utils import SaveStrategy

from preceptor.core import artifacts
from preceptor.core.progress import say
from preceptor.core.types import Answer
from preceptor.data.answer_store import AnswerStore
from preceptor.data.asking import Asker
from preceptor.data.examples import build_examples
from preceptor.models.load import pick_device
from preceptor.recipes.align import prepare_align
from preceptor.recipes.distill import prepare_distill
from preceptor.recipes.inputs.respondents import decoding_of, open_teacher, requests_of
from preceptor.recipes.planning.asking import known_replies
from preceptor.recipes.planning.draft import Draft, Rates
from preceptor.recipes.planning.lessons import plan_lessons
from preceptor.recipes.planning.rates import PROBED, probe_asking
from preceptor.recipes.planning.storing import stored_verdict
from preceptor.recipes.planning.training import plan_training
from preceptor.recipes.settings.shared import TransformersTeacher
from preceptor.recipes.settings.training import Align, Distill, Sft, Trained
from preceptor.recipes.sft import prepare_sft
from preceptor.recipes.teaching import course
from preceptor.recipes.teaching.student import one_display, open_trainer

WARM, TIMED = 1, 3  # training steps of a probe
PREPARE: dict[type[Trained], Callable[..., Any]] = {
    Distill: prepare_distill,
    Align: prepare_align,
    Sft: prepare_sft,
}


class CourseJob:
    """A training that was prepared, to be planned."""

    def __init__(self, settings: Trained, out: Path) -> None:
        self.prepared, self.courses, _ = PREPARE[type(settings)](settings, out)
        self.identity, self.out = self.prepared.identity, out
        self.device = pick_device(settings.device)

    @property
    def store(self) -> AnswerStore:
        """Where the answers that are learned from are kept."""
        asker = self.prepared.pupil.runtime.ask
        assert isinstance(asker, Asker)
        return asker.store

    def draft(self) -> Draft:
        """The plan, as far as it is known now."""
        own, draft = self.prepared, Draft(self.device)
        asked = plan_lessons(
            draft,
            own.lessons,
            own.respondents,
            own.choose,
            self.store,
            own.pupil.seed,
            own.pupil.runtime,
            own.pupil.card,
        )
        stored_verdict(draft, own.settings)
        plan_training(draft, own, self.courses, asked, self.out)
        return draft

    def probe(self, count: int, rates: Rates) -> None:
        """Short timed pieces of every stage whose rate is not known."""
        own = self.prepared
        chosen = [own.choose(row) for _, _, row in own.lessons.questions]
        for name, (teacher, source) in own.respondents.items():
            texts = [
                question[1]
                for question, mine in zip(own.lessons.questions, chosen, strict=True)
                if mine == name
            ]
            requests = requests_of(texts, decoding_of(teacher), own.pupil.seed)
            probe_asking(name, source, requests, count, self.store, rates)
        probe_exam(own, count, rates)
        probe_training(own, self.courses[0], self._answers(chosen), rates)

    def _answers(self, chosen: Sequence[str]) -> list[Answer]:
        """The answers that are known by now, recorded or stored."""
        own, found = self.prepared, list(self.prepared.lessons.answers)
        for name, (teacher, source) in own.respondents.items():
            questions = [
                question
                for question, mine in zip(own.lessons.questions, chosen, strict=True)
                if mine == name
            ]
            texts = [text for _, text, _ in questions]
            requests = requests_of(texts, decoding_of(teacher), own.pupil.seed)
            replies = known_replies(self.store, source, requests)
            found += [
                Answer(key, text, name, reply, row=row)
                for (key, text, row), reply in zip(questions, replies, strict=True)
                if reply is not None
            ]
        return found


def probe_exam(prepared: course.Prepared, count: int, rates: Rates) -> None:
    """The untrained student answers some of the exam; the answers are not kept."""
    exam = prepared.exam
    if exam is None or "ask.base" in rates.known:
        return
    quality = exam.quality
    student = TransformersTeacher(
        model=prepared.pupil.card.reference,
        max_new_tokens=quality.max_new_tokens,
        batch_size=quality.batch_size,
    )
    texts = [text for _, text, _ in exam.questions]
    requests = requests_of(texts, decoding_of(student), exam.seed)
    probe_asking("base", open_teacher(student, exam.runtime), requests, count, None, rates)


def probe_training(
    prepared: course.Prepared, one: course.Course, answers: Sequence[Answer], rates: Rates
) -> None:
    """A few real steps of one student, with its teacher; nothing of them is kept."""
    pupil = prepared.pupil
    wanted = pupil.training.batch_size * pupil.training.accumulation * (WARM + TIMED)
    if not answers or "train" in rates.known:
        return
    say(f"probe: {WARM + TIMED} training steps")
    whole = prepared.lessons.answers  # a stored teacher knows the data as a whole
    kept = list(whole) if whole else [answers[i % len(answers)] for i in range(wanted)]
    examples, rendered = build_examples(kept, pupil.renderer(), 1.0)
    taught = None
    if prepared.plan is not None:
        route = one.routes or prepared.plan.route
        examples["route"] = [route(answer) for answer in kept]
        taught = prepared.plan.open(rendered) if one.objective.needs else None
    quick = pupil.training.model_copy(
        update={
            "max_steps": WARM + TIMED,
            "log_steps": 1,
            "gradient_norms": False,
            "report_to": (),
        }
    )
    with tempfile.TemporaryDirectory() as name, one_display():
        folder = Path(name)
        trainer = open_trainer(
            replace(pupil, training=quick), examples, one.objective, taught, folder, folder / "none"
        )
        trainer.remove_callback(PrinterCallback)
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.train()
        lines = (folder / artifacts.METRICS).read_text(encoding="utf-8").splitlines()
    speeds = [json.loads(line).get("tokens_per_second", 0.0) for line in lines][WARM:]
    if speeds:
        rate = statistics.median(speeds)
        rates.give("train", rate, PROBED)
