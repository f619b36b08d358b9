"""What distill, sft and align share: read and check, gather answers, train, grade, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.progress import say
from preceptor.core.run import Run, open_run
from preceptor.core.types import Answer, Runtime, TeacherSource
from preceptor.data.answers import answers_table
from preceptor.data.asking import Asker
from preceptor.data.examples import build_examples
from preceptor.models.load import open_card, pick_device
from preceptor.models.signals import SignalTeacher
from preceptor.recipes.inputs.respondents import open_asker, open_teacher
from preceptor.recipes.settings.shared import Teacher, model_location
from preceptor.recipes.settings.training import Trained
from preceptor.recipes.teaching.grading import Exam, grades_table, quality_table, read_exam, sit
from preceptor.recipes.teaching.lessons import Lessons, gather, read_lessons
from preceptor.recipes.teaching.signal_teachers import TeacherPlan
from preceptor.recipes.teaching.student import Pupil, train_student
from preceptor.reporting.pages.training import report as training_report
from preceptor.training.objective import Objective


@dataclass(frozen=True)
class Course:
    """One student of a run: its name in tables, its folder in the run, and what it learns by.

    `routes` replaces each row's teacher (controls of align); None leaves it to the data.
    """

    name: str
    folder: str
    objective: Objective
    routes: Callable[[Answer], str] | None = None


@dataclass(frozen=True)
class Prepared:
    """Everything that can be read and checked before a weight is loaded.

    Attributes:
        respondents: name -> who answers the questions of `lessons`, and how it decodes.
        choose: row -> name of its respondent.
        select: which of the gathered answers are learned from.
    """

    settings: Trained
    pupil: Pupil
    lessons: Lessons
    respondents: dict[str, tuple[Teacher, TeacherSource]]
    choose: Callable[[Mapping[str, Any]], str]
    plan: TeacherPlan | None
    exam: Exam | None
    identity: dict[str, Any]


def open_pupil(settings: Trained, out: Path) -> Pupil:
    """The student's card, checked, and where the run's models run (raises ModelError)."""
    pick_device(settings.device)  # refuses one that is not there
    runtime = Runtime(
        settings.device,
        settings.dtype,
        None,
        settings.trust_remote_code,
        ask=open_asker(settings.data.store, out),
        seed=settings.seed,
    )
    card = open_card(model_location(settings.base), settings.trust_remote_code)
    pupil = Pupil(card, settings.training, runtime, settings.seed)
    pupil.renderer()  # refuses what it cannot render
    return pupil


def prepare(
    settings: Trained,
    pupil: Pupil,
    respondents: Mapping[str, Teacher],
    choose: Callable[[Mapping[str, Any]], str],
    plan: TeacherPlan | None,
    keep: Callable[[Lessons], Lessons] = lambda lessons: lessons,
) -> Prepared:
    """Read data and exam, open every card, and make the run's identity.

    Args:
        respondents: who may be asked; opened only if there is something to ask.
        choose: row -> name of its respondent.
        keep: picks the rows to learn from.
    """
    inputs: dict[str, str] = {}
    lessons = keep(read_lessons(settings.data, inputs))
    quality = settings.quality
    exam = read_exam(quality, pupil.runtime, settings.seed, inputs) if quality else None
    opened = {
        name: (teacher, open_teacher(teacher, pupil.runtime))
        for name, teacher in respondents.items()
        if lessons.questions
    }
    for warning in plan.warnings if plan else ():
        say(f"warning: {warning}")
    models = {"base": pupil.card.fingerprint}
    models |= {f"respondent {name}": source.fingerprint for name, (_, source) in opened.items()}
    models |= plan.fingerprints if plan else {}
    models |= {"reward": exam.reward.fingerprint} if exam and exam.reward.fingerprint else {}
    identity = {"settings": settings.model_dump(mode="json"), "inputs": inputs, "models": models}
    return Prepared(settings, pupil, lessons, opened, choose, plan, exam, identity)


def run_courses(
    prepared: Prepared,
    courses: Sequence[Course],
    against: Sequence[tuple[str, str]],
    out: Path,
    command: str,
) -> dict[str, Any]:
    """Train every student, grade base and students, and write the run folder.

    Args:
        against: (model, other) whose difference in quality is wanted.

    Returns:
        The content of `quality.json`, empty where no quality was asked for.
    """
    with open_run(out, prepared.identity, command) as run:
        if run.finished:
            say(f"{out} holds the finished run of these settings")
        else:
            pupil, asker = prepared.pupil, prepared.pupil.runtime.ask
            assert isinstance(asker, Asker)
            answers = gather(
                prepared.lessons,
                prepared.respondents,
                prepared.choose,
                asker,
                pupil.seed,
                run,
            )
            if prepared.lessons.questions and not run.path(artifacts.ANSWERS).exists():
                artifacts.write_table(run.path(artifacts.ANSWERS), answers_table(answers))
            places = _train(prepared, courses, answers, run)
            if prepared.exam is not None and run.leads:
                _grade(prepared, prepared.exam, places, against, run)
                run.facts["asked"] = asker.facts
            run.finish()
        quality = artifacts.read_json(run.path(artifacts.QUALITY), {})
        if run.leads:
            training_report.write(out)
    return quality


def _train(
    prepared: Prepared, courses: Sequence[Course], answers: list[Answer], run: Run
) -> dict[str, Path]:
    """Student -> folder of its finished checkpoint."""
    plan, pupil = prepared.plan, prepared.pupil
    renderer = pupil.renderer()
    examples, rendered = build_examples(
        answers, renderer, prepared.settings.data.max_truncated_share
    )

    @cache
    def teacher() -> SignalTeacher:
        assert plan is not None
        return plan.open(rendered)

    places = {}
    for course in courses:
        columns = dict(examples)
        if plan is not None:
            route = course.routes or plan.route
            columns["route"] = [route(answer) for answer in answers]
        taught = teacher() if course.objective.needs else None
        places[course.name] = train_student(
            pupil, columns, course.objective, taught, run, course.folder
        )
    run.facts["examples"] = len(answers)
    run.facts["tokens"] = sum(map(len, examples["input_ids"]))
    return places


def _grade(
    prepared: Prepared,
    exam: Exam,
    places: Mapping[str, Path],
    against: Sequence[tuple[str, str]],
    run: Run,
) -> None:
    seed = prepared.pupil.seed
    graded = {"base": {seed: sit(exam, run, "base", prepared.pupil.card.reference)}}
    for name, place in places.items():
        graded[name] = {seed: sit(exam, run, name, str(place))}
    artifacts.write_table(run.path(artifacts.GRADES), grades_table(exam, graded))
    artifacts.write_json(run.path(artifacts.QUALITY), quality_table(exam, graded, against))
