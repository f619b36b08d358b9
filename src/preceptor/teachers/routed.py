"""A teacher for each sample: every sample goes through its own teacher and through no other.

Domain Alignment from Expert (arXiv 2406.19112) routes whole samples: the expert where a sample is
from its domain, the reference elsewhere. Its public code runs both on every sample and throws half
away; here a batch is split by teacher, and the parts that come back say which scored positions
they are for.

Shapes: B samples of a batch, T tokens, N scored positions; R samples of one teacher, K of their
positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch

from preceptor.core.errors import DataError, ModelError
from preceptor.models.signals import Batch, SignalTeacher, TeacherSignals


class RoutedTeacher:
    """Several teachers, one of which teaches each sample.

    Args:
        teachers: name -> teacher; `Batch.route_B` holds places in this order. Their hidden sizes
            may differ.

    Attributes:
        names: of the teachers, in their order.
        per_sample: True: a batch must say each row's teacher, and rows must not be packed.

    Raises:
        ModelError: no teachers, or one that gives no logits.
    """

    gives: frozenset[str] = frozenset({"logits"})
    per_sample = True

    def __init__(self, teachers: Mapping[str, SignalTeacher]) -> None:
        mute = [name for name, teacher in teachers.items() if "logits" not in teacher.gives]
        if mute or not teachers:
            raise ModelError(
                "a routed teacher needs teachers that give logits",
                where=", ".join(mute),
                found="" if mute else "no teachers",
                next_step="name teachers in process, or stored ones",
            )
        self.names, self._teachers = tuple(teachers), tuple(teachers.values())
        marks = (f"{name}: {teacher.fingerprint}" for name, teacher in teachers.items())
        self.fingerprint = f"routed ({', '.join(marks)})"

    def signals(self, batch: Batch, needs: frozenset[str]) -> TeacherSignals:
        """The logits' parts, teacher by teacher; a teacher without scored positions is not run.

        Raises:
            DataError: no routes, a route without a teacher, or packed rows.
            ModelError: `needs` names another signal.
        """
        if needs - self.gives:
            raise ModelError(
                "a routed teacher gives logits only",
                found=f"needed {', '.join(sorted(needs))}",
                next_step="drop the losses on attention and hidden states",
            )
        if not needs:
            return TeacherSignals()
        route_B = self._routes(batch)
        device, length = batch.rows_N.device, batch.segments_BT.shape[1]
        route_N = torch.tensor(route_B, device=device)[batch.rows_N // length]
        parts = []
        for number, teacher in enumerate(self._teachers):
            samples = [place for place, route in enumerate(route_B) if route == number]
            index_K = (route_N == number).nonzero()[:, 0] if samples else batch.rows_N[:0]
            if index_K.numel():
                part = _part(batch, torch.tensor(samples, device=device), index_K)
                for rows in teacher.signals(part, needs).logits:
                    own = rows.index_K
                    whole_K = index_K if own is None else index_K[own]
                    parts.append(replace(cast(Any, rows), index_K=whole_K))
        return TeacherSignals(parts)

    def _routes(self, batch: Batch) -> list[int]:
        """Number of the teacher of each sample, checked."""
        if batch.route_B is None:
            raise DataError(
                "the batch does not say which teacher teaches each sample",
                where="routed teacher",
                next_step="name the column of the data that routes",
            )
        segments_BT = batch.segments_BT
        last_B1 = segments_BT.amax(1, keepdim=True)
        if not bool(((segments_BT == last_B1) | (segments_BT < 0)).all()):
            raise DataError(
                "packed rows cannot be routed: their documents may need other teachers",
                where="routed teacher",
                next_step="turn packing off",
            )
        route_B = [int(route) for route in batch.route_B.tolist()]
        strange = [
            (sample, route)
            for sample, route in enumerate(route_B)
            if not 0 <= route < len(self._teachers)
        ]
        if strange:
            sample, route = strange[0]
            raise DataError(
                "a sample is routed to a teacher that is not there",
                where=f"row {sample} of the batch",
                found=f"teacher {route}, there are 0 to {len(self._teachers) - 1} "
                f"({', '.join(self.names)})",
                next_step="mend the column of the data that routes",
            )
        return route_B


def _part(batch: Batch, samples_R: torch.Tensor, index_K: torch.Tensor) -> Batch:
    """The batch of some of the samples, padding on the right cut to the longest of them."""
    n_samples, length = batch.segments_BT.shape
    segments_RT = batch.segments_BT[samples_R]
    real_RT = segments_RT >= 0
    width = length
    if bool(real_RT[:, 0].all()):  # padding on the left stays as it is
        width = int(real_RT.any(0).nonzero().max()) + 1
    inputs = {
        name: _cut(value, samples_R, n_samples, length, width)
        for name, value in batch.inputs.items()
    }
    place_B = torch.empty(n_samples, dtype=torch.long, device=samples_R.device)
    place_B[samples_R] = torch.arange(len(samples_R), device=samples_R.device)
    rows_K = batch.rows_N[index_K]
    return Batch(
        inputs,
        place_B[rows_K // length] * width + rows_K % length,
        segments_RT[:, :width],
        None if batch.samples_B is None else batch.samples_B.to(samples_R.device)[samples_R],
    )


def _cut(value: Any, samples_R: torch.Tensor, n_samples: int, length: int, width: int) -> Any:
    """An input of the model for some of the samples: (B, ...), or (1, ...) shared by all."""
    if not isinstance(value, torch.Tensor) or value.ndim == 0:
        return value
    if value.shape[0] == n_samples:
        value = value[samples_R.to(value.device)]
    if value.ndim == 4 and value.shape[2:] == (length, length):  # a mask of queries and keys
        return value[:, :, :width, :width]
    if value.ndim >= 2 and value.shape[0] in (1, len(samples_R)) and value.shape[1] == length:
        return value[:, :width]
    return value
