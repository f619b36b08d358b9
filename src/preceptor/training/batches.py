"""Batches on their way from the data to student and teacher.

Shapes: B samples, T tokens, N scored positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from preceptor.core.errors import DataError
from preceptor.data.rendering import scored_rows
from preceptor.models.capture import segments_of
from preceptor.models.signals import Batch

CARRIED = ("sample", "route")  # columns of the data that reach the teacher, not the student


def as_batch(inputs: Mapping[str, Any]) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """(batch, labels_BT, targets_N) of a collated batch."""
    kept = {k: v for k, v in inputs.items() if k not in ("labels", "shift_labels", *CARRIED)}
    labels_BT = inputs["labels"]
    rows_N, targets_N = scored_rows(labels_BT)
    batch = Batch(kept, rows_N, segments_of(kept), inputs.get("sample"), inputs.get("route"))
    return batch, labels_BT, targets_N


class Carrying:
    """TRL's collator, with the columns that teachers read carried past it as tensors."""

    def __init__(self, collator: Any, names: Sequence[str]) -> None:
        self.collator, self.names = collator, {name: place for place, name in enumerate(names)}

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        out = self.collator([{k: v for k, v in e.items() if k not in CARRIED} for e in examples])
        if "sample" in examples[0]:
            out["sample"] = torch.tensor([example["sample"] for example in examples])
        if self.names:
            out["route"] = torch.tensor(
                [self._number(example.get("route")) for example in examples]
            )
        return out

    def _number(self, name: Any) -> int:
        if name in self.names:
            return self.names[name]
        raise DataError(
            "a sample names a teacher that is not there",
            where="column `route`",
            found=f"{name!r}; teachers {', '.join(self.names)}",
            next_step="add the teacher, or mend the column",
        )
