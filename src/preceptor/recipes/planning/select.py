"""The plans of `preceptor select` and `preceptor ask`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.core.errors import ModelError
from preceptor.core.types import Request, Runtime, TeacherSource
from preceptor.data.answer_table import Answers
from preceptor.data.paired import pair
from preceptor.models.load import Card, pick_device
from preceptor.models.pairing import compare_tokenizers
from preceptor.recipes import ask, select
from preceptor.recipes.inputs.respondents import decoding_of, requests_of
from preceptor.recipes.planning.asking import Asked, local_card, plan_asking
from preceptor.recipes.planning.draft import Draft, Rates
from preceptor.recipes.planning.measuring import plan_measuring
from preceptor.recipes.planning.rates import probe_asking, probe_measuring
from preceptor.recipes.planning.scoring import plan_reward, recorded_as_asked
from preceptor.recipes.selecting import preparing
from preceptor.recipes.selecting.measuring import needs_of
from preceptor.recipes.selecting.sample_tokens import quoted
from preceptor.recipes.settings.asking import Ask
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import Fleet, Teacher
from preceptor.selection.measure import LOSS, Wanted

MEASURED = 40  # bytes of a row of numbers in `signals.parquet`
RUN = select.select  # a run imports this too: it is part of the memory that a plan starts from


class SelectJob:
    """A selection that was prepared, to be planned."""

    def __init__(self, settings: Select, out: Path) -> None:
        self.prepared, self.out = preparing.prepare(settings, out), out
        self.identity, self.device = self.prepared.identity, pick_device(settings.device)
        self._asked: list[Asked] = []

    def draft(self) -> Draft:
        """The plan, as far as it is known now."""
        own, draft = self.prepared, Draft(self.device)
        _verdicts(draft, own.base, own.teachers, own.runtime)
        self._asked = []
        live = {}
        for name, requests in self._requests().items():
            teacher, source = own.teachers[name]
            live[name] = plan_asking(
                draft, name, teacher, source, requests, own.asker.store, own.runtime, own.base
            )
        parts = [own.recorded] if len(own.recorded) else []
        parts += [preparing.live_answers(name, own.questions) for name in live]
        paired = pair(
            Answers.join(parts), own.settings.min_paired_share, own.settings.max_instructions
        )
        n = len(paired.instruction_ids)
        for place, name in enumerate(paired.teachers):
            if name in live:
                self._asked.append(live[name].limited(n))
            else:
                rows = paired.answers[place * n : (place + 1) * n]
                self._asked.append(recorded_as_asked(rows, name))
        for reward in own.settings.rewards:
            plan_reward(draft, reward, self._asked, own.runtime)
        for role, card in self._cards().items():
            needs = needs_of(own.criteria, reference=role == "reference")
            again = quoted(n, len(paired.teachers)) if role == "base" else 0
            plan_measuring(
                draft, card, role, self._asked, own.runtime, needs, own.settings, self.out, again
            )
        _spread(draft, own.settings.fleet)
        if own.settings.pilot is not None:
            from preceptor.recipes.planning.pilot import plan_pilot  # needs the extra `train`

            plan_pilot(draft, own, self._asked, n, self.out)
        if own.settings.race is not None:
            draft.notes.append("a race takes this at most: every teacher asked to the end")
        texts = sum(disk.size for disk in draft.disks if disk.what == "answer store")
        rows = MEASURED * len(paired.answers) * (1 + len(own.settings.rewards))
        draft.write("run folder", self.out, 2 * texts + rows)
        return draft

    def probe(self, count: int, rates: Rates) -> None:
        """Short timed pieces of every stage whose rate is not known."""
        own = self.prepared
        for name, requests in self._requests().items():
            probe_asking(name, own.teachers[name][1], requests, count, own.asker.store, rates)
        self.draft()  # the answers of the probe are known now
        for role, card in self._cards().items():
            needs = needs_of(own.criteria, reference=role == "reference")
            wanted = Wanted(needs.sums, needs.tokens) if needs.sums or needs.tokens else LOSS
            probe_measuring(role, card, self._asked, own.runtime, count, rates, wanted)

    def _cards(self) -> dict[str, Card]:
        reference = self.prepared.reference
        return {"base": self.prepared.base} | ({"reference": reference} if reference else {})

    def _requests(self) -> dict[str, list[Request]]:
        own = self.prepared
        texts = [text for _, text, _ in own.questions]
        return {
            name: requests_of(texts, decoding_of(teacher), own.settings.seed)
            for name, (teacher, _) in own.teachers.items()
        }


class AskJob:
    """Asking that was prepared, to be planned."""

    def __init__(self, settings: Ask, out: Path) -> None:
        self.prepared, self.out = ask.prepare(settings, out), out
        self.identity, self.device = self.prepared.identity, pick_device(settings.device)

    def draft(self) -> Draft:
        """The plan, as far as it is known now: each point of the grid is a stage."""
        own, draft = self.prepared, Draft(self.device)
        asked = []
        for name, point, requests in self._requests():
            teacher, source = own.teachers[name]
            asked.append(
                plan_asking(
                    draft,
                    name,
                    teacher,
                    source,
                    requests,
                    own.asker.store,
                    own.runtime,
                    title=f"asking {name} ({point})",
                )
            )
        by_teacher: dict[str, list[Any]] = {}
        for answer in own.recorded:
            by_teacher.setdefault(answer.teacher, []).append(answer)
        asked += [recorded_as_asked(rows, name) for name, rows in by_teacher.items()]
        for reward in own.settings.rewards:
            plan_reward(draft, reward, asked, own.runtime)
        _spread(draft, own.settings.fleet)
        texts = sum(disk.size for disk in draft.disks)
        draft.write("run folder", self.out, 2 * texts)
        return draft

    def probe(self, count: int, rates: Rates) -> None:
        """Each teacher is timed at its first point."""
        own, seen = self.prepared, set[str]()
        for name, _, requests in self._requests():
            if name not in seen:
                seen.add(name)
                probe_asking(name, own.teachers[name][1], requests, count, own.asker.store, rates)

    def _requests(self) -> list[tuple[str, str, list[Request]]]:
        own = self.prepared
        return [
            (
                name,
                f"temperature {point.temperature:g}, top-p {point.top_p:g}",
                requests_of(texts, point, own.settings.seed, own.settings.decodings.samples),
            )
            for name, (teacher, _) in own.teachers.items()
            if (texts := [q[1] for q in ask.questions_of(own.settings, own.questions, name)])
            for point in ask.points_of(own.settings, teacher)
        ]


def _verdicts(
    draft: Draft,
    base: Card,
    teachers: Mapping[str, tuple[Teacher, TeacherSource]],
    runtime: Runtime,
) -> None:
    """Which teachers could later teach the base by their distributions, too."""
    same, other = [], []
    for name, (teacher, _) in teachers.items():
        card = local_card(teacher, runtime)
        if card is not None:
            try:
                compare_tokenizers(base, card)
                same.append(name)
            except ModelError:
                other.append(name)
    for names, what in ((same, "have the base's tokenizer"), (other, "have another tokenizer")):
        if names:
            draft.notes.append(f"teachers that {what}: {', '.join(names)}")


def _spread(draft: Draft, fleet: Fleet) -> None:
    """On a fleet, work is shared, and memory is that of machines not seen from here."""
    if fleet.kind == "here":
        return
    workers = fleet.workers if isinstance(fleet.workers, int) else fleet.workers[1]
    for stage in draft.stages:
        if stage.here and not stage.free:
            stage.here, stage.workers = False, 1 if stage.alone else workers
    draft.notes.append(
        f"on the fleet, {workers} workers share the work; their memory is not compared"
    )
