"""The plan of `preceptor evaluate`: who answers what, and what judges are asked.

A model that is not on this machine is not opened: its size is read from its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preceptor.core.types import Decoding, Request, Runtime, user_turn
from preceptor.data.asking import Asker
from preceptor.data.sources import read_source
from preceptor.models.load import pick_device
from preceptor.recipes.inputs.respondents import open_asker, open_fleet, open_teacher
from preceptor.recipes.planning.asking import plan_asking
from preceptor.recipes.planning.benchmarks import (
    Sheet,
    note_unread,
    plan_answers,
    plan_judging,
    read_sheet,
)
from preceptor.recipes.planning.distant import FROM_NAME, Named, at_hand, identity_of, located
from preceptor.recipes.planning.draft import Draft, Rates
from preceptor.recipes.planning.rates import probe_asking
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.recipes.settings.shared import Source, Teacher, teacher_name

TEACHERS = ("teacher", "generator", "model", "source_model")  # usual names of the column


class EvaluateJob:
    """An evaluation, to be planned."""

    def __init__(self, settings: Evaluate, out: Path) -> None:
        self.settings, self.out, self.device = settings, out, pick_device(settings.device)
        self.asker: Asker = open_asker(settings.store, out)
        self.runtime = Runtime(
            settings.device,
            settings.dtype,
            None,
            settings.trust_remote_code,
            open_fleet(settings.fleet),
            self.asker,
            settings.seed,
        )
        self.identity = identity_of(settings, out, ("fail_if",))
        self.sheets = [read_sheet(setting, self.runtime) for setting in settings.benchmarks]
        self.places = {teacher_name(own): _place(own) for own in settings.models}

    def draft(self) -> Draft:
        """The plan, as far as it is known now."""
        draft = Draft(self.device)
        recorded = sum(_recorded(source) for source in self.settings.answers)
        n_models = len(self.settings.models) + recorded
        for sheet in self.sheets:
            for model in self.settings.models:
                self._plan_model(draft, sheet, model)
            rival = getattr(getattr(sheet.setting, "baseline", None), "model", None)
            if rival is not None:
                self._plan_model(draft, sheet, rival)
            plan_judging(draft, sheet, n_models)
        note_unread(draft, self.sheets)
        distant = [name for name, place in self.places.items() if isinstance(place, Named)]
        if distant:
            draft.notes.append(
                f"not on this machine, size {FROM_NAME}: {', '.join(distant)}; their memory is not "
                "compared with this machine's, and the hub was not asked"
            )
        texts = sum(disk.size for disk in draft.disks if disk.what == "answer store")
        draft.write("run folder", self.out, 2 * texts)
        return draft

    def probe(self, count: int, rates: Rates) -> None:
        """Each model that is here answers some questions of the first benchmark."""
        sheet = next((one for one in self.sheets if one.texts), None)
        for model in self.settings.models:
            name = teacher_name(model)
            if sheet is not None and self.places[name] and not isinstance(self.places[name], Named):
                source = open_teacher(model, self.runtime)
                requests = self._requests(sheet, model)
                probe_asking(name, source, requests, count, self.asker.store, rates)

    def _plan_model(self, draft: Draft, sheet: Sheet, model: Teacher) -> None:
        """A model answers a benchmark: exactly, where it and the questions are on this machine."""
        name, place = teacher_name(model), _place(model)
        if sheet.texts and all(sheet.texts) and sheet.turns == 1 and not isinstance(place, Named):
            source = open_teacher(model, self.runtime)
            requests = self._requests(sheet, model)
            title = f"{sheet.name}: {name}"
            plan_asking(
                draft, name, model, source, requests, self.asker.store, self.runtime, title=title
            )
            return
        price = getattr(model, "price", None)
        batch = getattr(model, "batch_size", 64)
        plan_answers(
            draft, sheet, name, place, self.runtime, rate=f"ask.{name}", batch=batch, price=price
        )

    def _requests(self, sheet: Sheet, model: Teacher) -> list[Request]:
        """The first turns, as `converse` asks them."""
        top_p = 1.0 if model.temperature == 0 else model.top_p
        how = Decoding(model.temperature, top_p, sheet.new)
        return [Request(user_turn(text), how, run_seed=self.settings.seed) for text in sheet.texts]


def _place(model: Any) -> str:
    """Where the checkpoint of a model is; "" for servers and own code."""
    return located(model.model) if model.kind in ("transformers", "vllm") else ""


def _recorded(source: Source) -> int:
    """How many models' answers a table holds; one, where the table is not on this machine."""
    if not at_hand(source):
        return 1
    table = read_source(source.path, source.split)
    names = (source.columns.teacher, *TEACHERS)
    column = next((name for name in names if name and name in table.column_names), None)
    return 1 if column is None else len(set(table[column].to_pylist()))
