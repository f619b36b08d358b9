"""The plan of `preceptor study`: answers, criteria, trainings, benchmarks; how long, for how much.

A model or table that is not on this machine is not opened: a size is read from its name, and counts
come from the settings. What is here is planned as the recipes of the single steps plan it.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from preceptor.models.load import pick_device
from preceptor.recipes.ask import points_of
from preceptor.recipes.inputs.respondents import open_runtime, open_teacher, requests_of
from preceptor.recipes.planning.asking import known_size
from preceptor.recipes.planning.benchmarks import (
    keys_missing,
    note_unread,
    plan_answers,
    plan_judging,
    read_sheet,
)
from preceptor.recipes.planning.distant import (
    FROM_NAME,
    Named,
    at_hand,
    billions_of,
    identity_of,
    located,
)
from preceptor.recipes.planning.draft import Draft, Rates, Stage
from preceptor.recipes.planning.rates import probe_asking
from preceptor.recipes.planning.study_answers import (
    Learned,
    open_pool,
    place_of_teacher,
    plan_asked,
    plan_scored,
)
from preceptor.recipes.planning.study_students import (
    arm_of,
    disk_of_student,
    plan_criteria,
    plan_trainings,
    read_lengths,
    short_name,
    workers_of,
)
from preceptor.recipes.planning.training import teachers_of
from preceptor.recipes.settings.asking import Ask
from preceptor.recipes.settings.shared import model_name, teacher_name
from preceptor.recipes.settings.study import Study
from preceptor.recipes.studying import preparing as study_preparing
from preceptor.reporting.parts.wording import in_bytes

# operations a second of dense products in bf16, from the makers' data sheets
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
REACHED = 0.4  # share of the peak that training and reading are taken to reach
STANDS_IN = "-"  # for the teacher of an arm, which is looked at by itself
TRAINING, READING = 6, 2  # operations a token and parameter


class StudyJob:
    """A study, to be planned."""

    def __init__(self, settings: Study, out: Path) -> None:
        self.settings, self.out, self.device = settings, out, pick_device(settings.device)
        self.runtime, self.asker = open_runtime(settings, out)
        self.prepared = None if is_distant(settings) else study_preparing.prepare(settings, out)
        self.identity = (
            self.prepared.identity
            if self.prepared
            else identity_of(settings, out, study_preparing.NOT_OF_THE_IDENTITY)
        )
        self.places = {base: located(base) for base in settings.bases}
        self.pool = open_pool(settings)
        self.sheets = [read_sheet(setting, self.runtime) for setting in settings.benchmarks]
        self._operations: dict[str, float] = {}  # name of a rate -> operations a token
        self._cells = 0

    def draft(self) -> Draft:
        """The plan, as far as it is known now."""
        own, draft = self.settings, Draft(self.device)
        learned, scored = plan_asked(draft, self.pool, self.runtime, self.asker.store)
        rewards = plan_scored(draft, self.pool, scored, self.runtime)
        self._operations = {name: READING * count for name, count in rewards.items()}
        for base, place in self.places.items():
            plan_criteria(draft, self.pool, learned, place, base, self.runtime, self.out)
            self._note_operations(base, place)
        students = {base: self._train(draft, learned, base) for base in own.bases}
        self._cells = sum(students.values())
        for sheet in self.sheets:
            for base, place in self.places.items():
                plan_answers(
                    draft,
                    sheet,
                    f"{short_name(base)} and {students[base]:,} students",
                    place,
                    self.runtime,
                    rate=f"ask.{model_name(base)}",
                    models=1 + students[base],
                    batch=own.student.batch_size,
                    workers=workers_of(own.runs),
                )
            plan_judging(draft, sheet, len(own.bases) + self._cells)
        self._write(draft, students)
        self._say(draft, learned)
        note_unread(draft, self.sheets)
        return draft

    def probe(self, count: int, rates: Rates) -> None:
        """Teachers that are here answer some of the instructions, at their first point."""
        own = self.settings
        for teacher in own.teachers:
            if self.pool.texts and not isinstance(place_of_teacher(own, teacher), Named):
                first = points_of(cast(Ask, own), teacher)[0]
                requests = requests_of(self.pool.texts, first, own.seed, own.decodings.samples)
                source = open_teacher(teacher, self.runtime)
                name = teacher_name(teacher)
                probe_asking(name, source, requests, count, self.asker.store, rates)

    def settle(self, draft: Draft, rates: Rates) -> None:
        """Rates from the device's peak where no other is known, and what the budget allows."""
        peak = self._peak()
        for name, operations in self._operations.items():
            if peak and rates.find(name) is None:
                rates.give(name, REACHED * peak / operations, f"{REACHED:.0%} of the device's peak")
        known = [(stage, rates.seconds(stage)[0]) for stage in draft.stages]
        workers = workers_of(self.settings.runs)
        if workers > 1:
            draft.notes.append(
                f"{workers} workers share trainings and exams; the memory is that of one training"
            )
        if self.settings.budget is not None:
            draft.notes.append(self._budget_words(known))

    def _train(self, draft: Draft, learned: list[Learned], base: str) -> int:
        """Add the trainings of a base; how many there are."""
        own, place = self.settings, self.places[base]
        found = read_lengths(self.pool, learned, place, own, self.runtime)
        impossible = self.prepared.impossible if self.prepared else {}
        cells = self.prepared.cells if self.prepared else []
        sources = list(self.prepared.sources) if self.prepared else []
        lost = {
            (cell.arm, sources.index(cell.source))
            for cell in cells
            if cell.base == model_name(base) and cell.folder in impossible
        }
        students = {
            name: [
                (one, read)
                for number, (one, read) in enumerate(zip(learned, found, strict=True))
                if (name, number) not in lost and arm_of(arm, own, base, one.model) is not None
            ]
            for name, arm in own.arms.items()
        }
        plan_trainings(draft, students, place, base, own, self.runtime)
        return own.seeds * sum(map(len, students.values()))

    def _note_operations(self, base: str, place: str) -> None:
        if isinstance(place, Named):
            told = billions_of(place)
            count = told[1] * 1e9 if told else 0.0
        else:
            count = float(known_size(place, self.runtime.trust_remote_code).parameters)
        if count:
            self._operations[f"train.{model_name(base)}"] = TRAINING * count
            self._operations[f"measure.{model_name(base)}"] = READING * count

    def _peak(self) -> float | None:
        if self.device.type != "cuda":
            return None
        name = torch.cuda.get_device_name(self.device)
        return next((peak for key, peak in PEAKS.items() if key in name), None)

    def _write(self, draft: Draft, students: dict[str, int]) -> None:
        """Models and checkpoints: a note, where they are of another machine's size."""
        workers, kept = workers_of(self.settings.runs), self.settings.keep_models
        sizes = {
            base: disk_of_student(place, self.settings, self.runtime)
            for base, place in self.places.items()
        }
        models = sum(students[base] * model for base, (model, _) in sizes.items()) if kept else 0
        checkpoints = workers * max((size for _, size in sizes.values()), default=0)
        if any(isinstance(place, Named) for place in self.places.values()):
            draft.notes.append(
                f"disk: {in_bytes(models)} for {self._cells:,} models"
                + ("" if kept else " (keep_models is false)")
                + f", and {in_bytes(checkpoints)} for the checkpoints of {workers} at a time; "
                f"{FROM_NAME}, so not compared"
            )
            return
        draft.write("models", self.out, models)
        draft.write("checkpoints", self.out, checkpoints)

    def _say(self, draft: Draft, learned: list[Learned]) -> None:
        """Notes: what the study is made of, and what of it is only known by name."""
        own, pool = self.settings, self.pool
        n = f"{pool.n:,}" if pool.n is not None else "an unknown number of"
        whole = len(own.bases) * len(learned) * len(own.arms) * own.seeds
        draft.notes.insert(
            0,
            f"{len(own.bases)} bases x {len(learned)} sources x {len(own.arms)} arms x {own.seeds} "
            f"seeds: {self._cells:,} trainings, each on {n} instructions"
            + (f"; {whole - self._cells:,} are not possible" if whole > self._cells else ""),
        )
        for path, source in pool.published.items():
            draft.notes.append(f"{path} is not on this machine; its teachers: {source}")
        if pool.n_unread:
            draft.notes.append(
                f"{pool.n_unread} tables of answers are not on this machine, and how many teachers "
                "they hold is not known: their students are not counted"
            )
        places = [
            *self.places.values(),
            *(place_of_teacher(own, teacher) for teacher in own.teachers),
        ]
        named = {str(place): billions_of(place) for place in places if isinstance(place, Named)}
        shown = [f"{name} {told[0]:g} B" for name, told in named.items() if told]
        lost = [name for name, told in named.items() if told is None]
        if shown:
            draft.notes.append(
                f"not opened, size {FROM_NAME}: {', '.join(shown)}; their memory is not compared "
                "with this machine's"
            )
        if lost:
            draft.notes.append(f"not opened, and no size in the name: {', '.join(lost)}")

    def _budget_words(self, known: list[tuple[Stage, float | None]]) -> str:
        """How many of the trainings fit into the budget."""
        hours = self.settings.budget
        assert hours is not None
        if any(seconds is None for _, seconds in known):
            return f"a budget of {hours:g} hours: what it allows is known once all rates are"
        exams = tuple(f"{sheet.name}: " for sheet in self.sheets)
        of_cells = [
            s for stage, s in known if stage.kind == "train" or stage.name.startswith(exams)
        ]
        fixed = sum(s or 0.0 for _, s in known) - sum(s or 0.0 for s in of_cells)
        each = sum(s or 0.0 for s in of_cells) / max(self._cells, 1)
        allowed = int(max(0.0, 3600 * hours - fixed) / each) if each else self._cells
        return (
            f"a budget of {hours:g} hours allows about {min(allowed, self._cells):,} of the "
            f"{self._cells:,} trainings; answers and criteria take {fixed / 3600:,.1f} hours of it"
        )


def is_distant(settings: Study) -> bool:
    """Whether some model, table or key of the study is not on this machine."""
    judged = [getattr(own, "judge", None) for own in settings.benchmarks]
    judged += [getattr(own, "teacher", None) for own in settings.rewards]
    rivals = [getattr(own, "baseline", None) for own in (*settings.benchmarks, *settings.rewards)]
    asked = [*settings.teachers, *judged, *(getattr(own, "model", None) for own in rivals)]
    tables = [*settings.answers, settings.instructions]
    tables += [getattr(own, "questions", None) for own in settings.benchmarks]
    tables += [getattr(own, "table", None) for own in rivals]
    models = [*settings.bases, settings.selection.get("reference")]
    models += [getattr(own, "model", None) for own in settings.rewards]
    places = [located(str(model)) for model in models if model]
    places += [place_of_teacher(settings, own) for own in asked if own is not None]
    arms = [arm_of(arm, settings, settings.bases[0], STANDS_IN) for arm in settings.arms.values()]
    beside = [one.model for own in arms if own for one in teachers_of(own).values()]
    places += [located(model) for model in beside if model != STANDS_IN]
    return (
        any(isinstance(place, Named) for place in places)
        or any(table is not None and not at_hand(table) for table in tables)
        or bool(keys_missing(asked))
    )
