"""From settings to the teachers of a training run, checked before a weight is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from preceptor.core.errors import DataError, SettingsError
from preceptor.core.plugs import plug
from preceptor.core.types import Answer, Runtime
from preceptor.data.rendering import Rendered
from preceptor.data.signal_store import STORE, StoreReader, data_fingerprint
from preceptor.models.load import Card, open_card, pick_device, pick_dtype, tokenizer_fingerprint
from preceptor.models.pairing import chat_templates_differ, compare_tokenizers, extra_tokens
from preceptor.models.signals import SignalTeacher
from preceptor.recipes.settings.shared import model_location, model_name
from preceptor.recipes.settings.training import Cached, Ensemble, InProcess, Routed
from preceptor.teachers import SIGNAL_TEACHERS
from preceptor.training.objective import Objective

AnyTeacher = InProcess | Ensemble | Routed | Cached


@dataclass(frozen=True)
class TeacherPlan:
    """Teachers that were checked against the student and can be opened.

    Attributes:
        fingerprints: for the run's identity.
        open: sequences that are learned from -> the teacher, weights loaded.
        column: of the data, whose value names a row's teacher (routed teachers).
        names: values that name a teacher; every other value goes to `otherwise`.
        warnings: what the user should know.
    """

    fingerprints: dict[str, str]
    open: Callable[[Sequence[Rendered]], SignalTeacher]
    column: str = ""
    names: tuple[str, ...] = ()
    otherwise: str = ""
    warnings: list[str] = field(default_factory=list)

    def route(self, answer: Answer) -> str:
        """Name of the teacher of a row (raises DataError where it has none)."""
        if not self.column:
            return ""
        value = str(answer.row.get(self.column))
        if value in self.names:
            return value
        if self.otherwise and self.column in answer.row:
            return self.otherwise
        raise DataError(
            "a row has no teacher",
            where=f"column {self.column!r}, instruction {answer.instruction_id}",
            found=f"{value!r}; teachers for {', '.join(self.names)}",
            next_step="add a teacher for it, set `otherwise`, or mend the column",
        )


def plan_teacher(
    setting: AnyTeacher, student: Card, runtime: Runtime, objective: Objective
) -> TeacherPlan:
    """Open every teacher's card and refuse what cannot teach this student.

    Raises:
        ModelError: another tokenizer, layers or heads that cannot be compared.
        SettingsError: a loss that this kind of teacher cannot serve.
    """
    kind = setting.kind
    if kind != "in_process" and objective.needs - {"logits"}:
        raise SettingsError(
            f"a teacher of kind {kind} gives next-token distributions only",
            where="losses",
            found=f"needed: {', '.join(sorted(objective.needs))}",
            next_step="drop the other losses, or use one teacher in process",
        )
    check = partial(_checked, student=student, runtime=runtime, objective=objective)
    if isinstance(setting, Cached):
        return _cached(setting, student, objective)
    if isinstance(setting, InProcess):
        card, warnings = check(setting)
        paired = objective.paired(student.config, card.config)
        opener = partial(_open, setting, card, runtime, paired)
        return TeacherPlan({"teacher": card.fingerprint}, lambda _: opener(), warnings=warnings)
    if isinstance(setting, Ensemble):
        return _ensemble(setting, check, runtime)
    return _routed(setting, check, runtime)


def _checked(
    setting: InProcess, student: Card, runtime: Runtime, objective: Objective
) -> tuple[Card, list[str]]:
    card = open_card(model_location(setting.model), runtime.trust_remote_code)
    compare_tokenizers(student, card)
    objective.paired(student.config, card.config)
    warnings = [chat_templates_differ(student, card), extra_tokens(student, card)]
    return card, [warning for warning in warnings if warning]


def _open(setting: InProcess, card: Card, runtime: Runtime, paired: Objective | None = None) -> Any:
    """The teacher, which shows only the layers that `paired` compares."""
    device = pick_device(runtime.device)
    terms = (paired.attention, paired.hidden) if paired else (None, None)
    attention, hidden = ([other for _, other in t.pairs] if t else None for t in terms)
    return plug("training teacher", SIGNAL_TEACHERS, "in_process")(
        card,
        pick_dtype(setting.dtype, device),
        device,
        trust_remote_code=runtime.trust_remote_code,
        load_in=setting.load_in,
        offload=setting.offload,
        attention_layers=attention,
        hidden_layers=hidden,
    )


def _ensemble(setting: Ensemble, check: Any, runtime: Runtime) -> TeacherPlan:
    checked = [(own, *check(own)) for own in setting.teachers]

    def opened(_: Sequence[Rendered]) -> SignalTeacher:
        teachers = {
            f"{place}: {own.model}": _open(own, card, runtime)
            for place, (own, card, _) in enumerate(checked)
        }
        return plug("training teacher", SIGNAL_TEACHERS, "ensemble")(
            teachers, list(setting.weights), setting.mixture
        )

    prints = {f"teacher {i}": card.fingerprint for i, (_, card, _) in enumerate(checked)}
    return TeacherPlan(prints, opened, warnings=[w for *_, own in checked for w in own])


def _routed(setting: Routed, check: Any, runtime: Runtime) -> TeacherPlan:
    settings = dict(setting.teachers)
    otherwise = ""
    if setting.otherwise is not None:
        otherwise = model_name(setting.otherwise.model)
        otherwise += " (otherwise)" if otherwise in settings else ""
        settings[otherwise] = setting.otherwise
    checked = {name: (own, *check(own)) for name, own in settings.items()}

    def opened(_: Sequence[Rendered]) -> SignalTeacher:
        return plug("training teacher", SIGNAL_TEACHERS, "routed")(
            {name: _open(own, card, runtime) for name, (own, card, _) in checked.items()}
        )

    prints = {f"teacher {name}": card.fingerprint for name, (_, card, _) in checked.items()}
    warnings = [warning for *_, own in checked.values() for warning in own]
    return TeacherPlan(prints, opened, setting.column, tuple(setting.teachers), otherwise, warnings)


def _cached(setting: Cached, student: Card, objective: Objective) -> TeacherPlan:
    folder = Path(setting.path)
    facts = StoreReader(folder).facts  # refuses a store that is not finished
    term = objective.divergence
    if term is not None and facts["kind"] == "sampled" and not term.from_samples:
        raise SettingsError(
            "this divergence cannot be estimated from sampled tokens",
            where=f"losses, {term.name!r}",
            found=f"{folder} holds draws, not the likeliest tokens",
            next_step="use forward_kl, or store with `form: top_k`",
        )
    temperature = term.temperature if term else 1.0

    def opened(rendered: Sequence[Rendered]) -> SignalTeacher:
        return plug("training teacher", SIGNAL_TEACHERS, "cached")(
            folder,
            teacher_fingerprint=None,
            tokenizer_fingerprint=tokenizer_fingerprint(student),
            data_fingerprint=data_fingerprint(rendered),
            temperature=temperature,
        )

    mark = "sha256:" + hashlib.sha256((folder / STORE).read_bytes()).hexdigest()
    return TeacherPlan({"teacher": mark}, opened)
