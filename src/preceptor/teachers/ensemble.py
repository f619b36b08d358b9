"""Several teachers over one vocabulary, mixed into one distribution at every position."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from preceptor.core.errors import ModelError, SettingsError
from preceptor.kernels.teacher_rows import DenseRows, MixtureRows
from preceptor.models.signals import Batch, TeacherSignals
from preceptor.teachers.in_process import InProcessTeacher

KINDS = ("probability", "geometric")


class EnsembleTeacher:
    """A mixture of teachers in process; each runs once on every batch.

    Args:
        teachers: name -> teacher. They share a tokenizer; their hidden sizes may differ.
        weights: of each teacher, in order: >= 0, with sum 1. A teacher of weight 0 is not run.
        kind: `probability`: the weighted mean of the distributions; `geometric`: their weighted
            geometric mean, normalised (the mean of the logits).

    Attributes:
        name, precision: of the members.
        vocabulary: number of token ids that all members give logits for.
        per_sample: False: rows of a batch may be packed.

    Raises:
        SettingsError: weights that are no distribution over the teachers, or an unknown kind.
    """

    gives: frozenset[str] = frozenset({"logits"})
    per_sample = False

    def __init__(
        self,
        teachers: Mapping[str, InProcessTeacher],
        weights: Sequence[float],
        kind: Literal["probability", "geometric"],
    ) -> None:
        _check(teachers, weights, kind)
        pairs = zip(teachers.items(), weights, strict=True)
        self._members = [(name, t, float(w)) for (name, t), w in pairs if w > 0]
        self.kind: Literal["probability", "geometric"] = kind
        marks = (f"{w} {name}: {t.fingerprint}" for name, t, w in self._members)
        self.name = f"{kind} mixture of {', '.join(name for name, _, _ in self._members)}"
        self.vocabulary = min(teacher.vocabulary for _, teacher, _ in self._members)
        self.precision = ", ".join(teacher.precision for _, teacher, _ in self._members)
        self.fingerprint = f"{kind} mixture ({', '.join(marks)})"

    def signals(self, batch: Batch, needs: frozenset[str]) -> TeacherSignals:
        """The mixture at every scored position.

        Raises:
            ModelError: `needs` names another signal.
        """
        if needs - self.gives:
            raise ModelError(
                "an ensemble gives logits only",
                found=f"needed {', '.join(sorted(needs))}",
                next_step="drop the losses on attention and hidden states",
            )
        if not needs:
            return TeacherSignals()
        parts = []
        for _, teacher, _ in self._members:
            [rows] = teacher.signals(batch, needs).logits
            assert isinstance(rows, DenseRows)
            parts.append(rows)
        weights = [weight for _, _, weight in self._members]
        return TeacherSignals([MixtureRows(parts, weights, self.kind)])


def _check(teachers: Mapping[str, InProcessTeacher], weights: Sequence[float], kind: str) -> None:
    if len(weights) != len(teachers) or not teachers:
        raise SettingsError(
            "an ensemble needs a weight for each teacher",
            where="weights",
            found=f"{len(weights)} weights, {len(teachers)} teachers",
            next_step="list as many weights as teachers",
        )
    if not (min(weights) >= 0 and math.isclose(sum(weights), 1.0, abs_tol=1e-6)):
        raise SettingsError(
            "the weights of an ensemble are no distribution",
            where="weights",
            found=f"{list(weights)}, sum {sum(weights):g}",
            next_step="give weights of 0 or more that sum to 1",
        )
    if kind not in KINDS:
        raise SettingsError(
            f"unknown kind of mixture {kind!r}",
            where="kind",
            next_step=f"use {' or '.join(KINDS)}",
        )
