"""Models and tables that are not on this machine: what their names tell, without the network.

A hub id is opened only where the hub's cache holds its config; nothing here asks the hub.

Symbols: P parameters, D width, L layers, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from preceptor.core import artifacts
from preceptor.lab.place import PREFIX
from preceptor.models.size import Size
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.shared import Source, model_location
from preceptor.selection.families import size_of

FROM_NAME = "from its name"
VOCABULARY = 128_000
TIED = 4.5  # billions of parameters up to which embedding and head are one matrix, as a rule
# billions of parameters in all, and of those that a token visits, where a name does not tell them
_SIZES = (
    (r"phi-?3(\.5)?-mini", 3.8, 3.8),  # arXiv 2404.14219
    (r"phi-?3-small", 7.0, 7.0),
    (r"phi-?3-medium", 14.0, 14.0),
    (r"mixtral-8x7b", 46.7, 12.9),  # arXiv 2401.04088
    (r"mixtral-8x22b", 141.0, 39.0),
    (r"(^|/)gpt2$", 0.124, 0.124),
)


class Named(str):
    """A hub id that is not on this machine; `billions` is given, or None where only the name is."""

    billions: float | None

    def __new__(cls, reference: str, billions: float | None = None) -> Named:
        named = super().__new__(cls, reference)
        named.billions = billions
        return named


@dataclass(frozen=True)
class Published:
    """A table of answers on the hub, as its authors describe it."""

    instructions: int
    teachers: int
    source: str


TABLES = {
    "Magpie-Align/Magpie-100K-Generator-Zoo": Published(
        100_000, 19, "the open generators of arXiv 2411.07133"
    )
}


def identity_of(settings: Settings, out: Path, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """Identity of a run whose inputs and models are not read: those that `out` names count.

    Args:
        leave_out: settings that are no part of it.
    """
    known = artifacts.read_json(out / artifacts.PROVENANCE, {})
    known = known if isinstance(known, dict) else {}
    own = {name: known.get(name) or {} for name in ("inputs", "models")}
    return {"settings": settings.model_dump(mode="json", exclude=set(leave_out)), **own}


def at_hand(source: Source) -> bool:
    """Whether a table is on this machine."""
    return source.path.startswith(PREFIX) or Path(source.path).exists()


def place_of(reference: str) -> str | None:
    """The folder with a model's config, or None where this machine has none."""
    location = model_location(reference)
    if reference.startswith(PREFIX) or Path(location).is_dir():
        return location
    try:
        found = try_to_load_from_cache(location, "config.json")
    except (HFValidationError, ValueError):
        return None
    return str(Path(found).parent) if isinstance(found, str) else None


def located(reference: str, billions: float | None = None) -> str:
    """Where a model can be opened without the network; a `Named` where it cannot."""
    return place_of(reference) or Named(reference, billions)


def parameters_of(reference: str) -> tuple[float, float] | None:
    """(billions in all, billions that a token visits) by a name; None where it tells nothing.

    Of a mixture such as `30B-A3B` the second is read from the name too.
    """
    lower = reference.lower()
    for pattern, whole, active in _SIZES:
        if re.search(pattern, lower):
            return whole, active
    told = size_of(reference)
    if told is None:
        return None
    visited = re.search(r"(?<![a-z0-9])a(\d+(?:\.\d+)?)b(?![a-z0-9])", lower)
    return told, float(visited[1]) if visited else told


def billions_of(reference: str) -> tuple[float, float] | None:
    """`parameters_of`, or what was given for a `Named`."""
    own = getattr(reference, "billions", None)
    return (own, own) if own is not None else parameters_of(str(reference))


@cache
def named_size(billions: float) -> Size:
    """Proportions of a dense decoder of so many parameters, as Llama's are, about.

    Grouped queries with a quarter of the heads and a gated feed-forward part of 3.5 D give
    P = 13 D^2 L + V D (twice, where embedding and head are two), with a layer for each 128 of
    width. P is exact, so weights, gradients and optimiser are as exact as the name; activations
    and caches follow from D and L.
    """
    heads = 1 if billions < TIED else 2

    def parameters(width: int) -> int:
        return 13 * width**3 // 128 + heads * VOCABULARY * width

    wanted = round(billions * 1e9)
    width = min(range(128, 24_576, 128), key=lambda own: abs(parameters(own) - wanted))
    layers = max(width // 128, 1)
    return Size(
        parameters=wanted,
        linear=max(wanted - heads * VOCABULARY * width, 0),
        width=width,
        layers=layers,
        inner=round(3.5 * width),
        heads=layers,
        vocabulary=VOCABULARY,
        attended=width,
        keyed=width // 4,
        valued=width // 4,
        cached_layers=layers,
    )
