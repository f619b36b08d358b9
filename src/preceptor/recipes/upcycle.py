"""`preceptor upcycle`: dense checkpoints of one architecture become a mixture of experts."""

from __future__ import annotations

from pathlib import Path

from preceptor.core.errors import RunFolderError
from preceptor.models.load import open_card
from preceptor.models.upcycle import upcycle as write_mixture
from preceptor.recipes.settings.shared import model_location
from preceptor.recipes.settings.training import Upcycle


def upcycle(settings: Upcycle, out: Path) -> Path:
    """Write the mixture as a plain checkpoint folder (raises ModelError, RunFolderError)."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(
            "the folder for the mixture is taken",
            where=str(out),
            next_step="give --out a new or empty folder",
        )
    cards = [open_card(model_location(model)) for model in settings.models]
    return write_mixture(
        cards,
        settings.experts,
        settings.per_token,
        out,
        router=settings.router,
        merge=settings.merge,
        router_aux_loss_coef=settings.router_aux_loss_coef,
        seed=settings.seed,
        dtype=settings.dtype,
    )
