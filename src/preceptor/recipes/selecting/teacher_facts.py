"""What is known of teachers beside their answers: family, size and price, for the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preceptor.core.criterion import Criterion
from preceptor.core.errors import SettingsError, nearest
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import model_name, teacher_name
from preceptor.selection.families import family_of, size_of


@dataclass(frozen=True)
class Facts:
    """Facts of teachers by name; None where nothing is known.

    Attributes:
        base_family: of the base.
        family: of each teacher.
        size: billions of parameters.
        price: money for a million tokens.
    """

    base_family: str | None
    family: dict[str, str | None]
    size: dict[str, float | None]
    price: dict[str, float | None]

    def arrays(self, teachers: Sequence[str]) -> dict[str, np.ndarray | None]:
        """`family_M` (1 for the base's own, else 0), `size_M` and `price_M`; None if unknown."""
        own = None if self.base_family is None else [self.family[t] for t in teachers]
        grids = {
            "family_M": own and [None if f is None else f == self.base_family for f in own],
            "size_M": [self.size[t] for t in teachers],
            "price_M": [self.price[t] for t in teachers],
        }
        return {
            name: None if not values or None in values else np.array(values, dtype=np.float64)
            for name, values in grids.items()
        }


def teacher_facts(
    settings: Select, criteria: Sequence[Criterion], teachers: Sequence[str]
) -> Facts:
    """Facts from the settings, else from names and prices.

    Raises:
        SettingsError: facts of a teacher that is not there, or none where a criterion needs them.
    """
    for name in settings.teacher_facts:
        if name not in teachers:
            raise SettingsError(
                "facts are given of a teacher that is not in the run",
                where="teacher_facts",
                found=nearest(name, teachers),
                next_step="correct the name",
            )
    known = settings.teacher_facts
    price: dict[str, float | None] = dict.fromkeys(teachers)
    models = {name: name for name in teachers}
    for teacher in settings.teachers:
        own = getattr(teacher, "price", None)
        price[teacher_name(teacher)] = own.output if own and own.output else None
        models[teacher_name(teacher)] = model_name(getattr(teacher, "model", ""))
    found = Facts(
        settings.base_family or family_of(model_name(settings.base)),
        {t: (known[t].family if t in known else None) or family_of(models[t]) for t in teachers},
        {t: (known[t].size if t in known else None) or size_of(models[t]) for t in teachers},
        {
            t: known[t].price if t in known and known[t].price is not None else price[t]
            for t in teachers
        },
    )
    needed = {need for criterion in criteria for need in criterion.needs}
    if "family" in needed and found.base_family is None:
        raise SettingsError(
            "the base's family is not known",
            where="base_family",
            found=f"nothing in the name {model_name(settings.base)!r}",
            next_step="set `base_family`, or drop the criterion that needs it",
        )
    for need, values in (("family", found.family), ("size", found.size), ("price", found.price)):
        unknown = [name for name in teachers if values[name] is None]
        if need in needed and unknown:
            raise SettingsError(
                f"a criterion needs the {need} of every teacher",
                where="teacher_facts",
                found=f"none known of {', '.join(unknown[:5])}"
                + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""),
                next_step=f"add `teacher_facts: {{{unknown[0]}: {{{need}: ...}}}}`",
            )
    return found
