"""`preceptor tour`: the whole way on the lab, from a selection to an aligned student, as one table.

Every step is an ordinary run with a folder of its own, so a killed tour goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from preceptor.core import artifacts
from preceptor.core.errors import DataError, ModelError, RunFolderError
from preceptor.core.progress import say
from preceptor.core.types import Runtime
from preceptor.lab.place import PREFIX
from preceptor.models.load import open_card
from preceptor.models.pairing import check_attention_pair, compare_tokenizers
from preceptor.recipes.align import ALIGNED, align
from preceptor.recipes.distill import distill
from preceptor.recipes.settings.shared import model_location
from preceptor.recipes.settings.training import Align, Distill, Quality, Sft
from preceptor.recipes.sft import sft
from preceptor.recipes.teaching.grading import quality_table, read_exam
from preceptor.reporting.pages.training import report as training_report

ROWS = {  # row of the table: (run, model in it)
    "base": ("sft", "base"),
    "SFT on answers": ("sft", "SFT"),
    "KD": ("distill", "KD"),
    "KD + DAE": ("align", ALIGNED),
}
CONTROLS = {
    "KD + SFT on the same rows": ("align", "SFT on the same rows"),
    "KD + expert only": ("align", "expert only (shop)"),
    "KD + reference only": ("align", "reference only"),
}


def tour(selection: Path, out: Path, seeds: Sequence[int], controls: bool) -> dict[str, Any]:
    """Distil from the selected teacher, align with the expert, compare.

    Args:
        selection: run folder of `preceptor select` on the lab.
        out: folder of the tour; one run a step and seed inside.
        seeds: of training.
        controls: also train align's three controls.

    Returns:
        The content of `quality.json`: base, SFT on answers, KD, KD + DAE (and controls) by group.

    Raises:
        PreceptorError: no finished selection there, or none of its teachers fits the base.
    """
    ranking = artifacts.read_json(selection / artifacts.RANKING)
    if ranking is None:
        raise RunFolderError(
            "there is no finished selection",
            where=str(selection),
            next_step="`preceptor select CONFIG --out FOLDER` makes one",
        )
    base, teacher = ranking["base"], _first_that_fits(ranking)
    say(f"the student is {base}, its teacher {teacher}")
    graded: dict[str, dict[int, np.ndarray]] = {}
    for seed in seeds:
        folder = out / f"seed-{seed}"
        for step in ("distill", "sft", "align"):  # distill asks the teacher, sft reads its answers
            _step(step, folder, base, teacher, seed, controls)
        for name, (step, model) in (ROWS | (CONTROLS if controls else {})).items():
            graded.setdefault(name, {})[seed] = _grades(folder / step, model, seed)
    graded["base"] = {seeds[0]: graded["base"][seeds[0]]}  # it was not trained: one is all
    quality = Quality.model_validate(_starter("distill")["quality"])
    exam = read_exam(quality, Runtime(), seeds[0], {})
    names = list(graded)
    against = [("KD + DAE", "KD"), ("KD", "SFT on answers")]
    against += [("KD + DAE", name) for name in names if name in CONTROLS]
    against += [(name, "base") for name in names[1:]]
    table = quality_table(exam, graded, against)
    artifacts.write_json(out / artifacts.QUALITY, table)
    training_report.write(out)
    return table


def _first_that_fits(ranking: Mapping[str, Any]) -> str:
    """The best-ranked teacher whose tokenizer, layers and heads can be compared with the base's."""
    student = open_card(model_location(PREFIX + ranking["base"]))
    rows = ranking["criteria"][ranking["recommended_by"]]["teachers"]
    for place, row in enumerate(rows):
        card = open_card(model_location(PREFIX + row["teacher"]))
        try:
            compare_tokenizers(student, card)
            check_attention_pair(student.config, card.config, "one_to_one")
        except ModelError as error:
            say(f"{row['teacher']}, number {place + 1}, cannot teach by attention: {error.what}")
            continue
        return str(row["teacher"])
    raise DataError(
        "no teacher of the selection can teach this base by attention",
        where=ranking["base"],
        next_step="choose another base",
    )


def _step(
    step: str, folder: Path, base: str, teacher: str, seed: int, controls: bool
) -> dict[str, Any]:
    """One run: the starter file of its recipe, with the tour's own student and teacher."""
    tree = _starter(step if step != "sft" else "distill")
    student, of = PREFIX + base, PREFIX + teacher
    tree |= {"base": student, "seed": seed}
    place = folder / step
    command = f"preceptor tour (step {step})"
    if step == "align":
        tree |= {"reference": of, "controls": controls}
        tree["base"] = str((folder / "distill" / "model").resolve())
        return align(Align.model_validate(tree), place, command)
    if step == "distill":
        tree["data"]["ask"]["model"] = tree["teacher"] = of
        return distill(Distill.model_validate(tree), place, command)
    kept = {name: tree[name] for name in ("base", "training", "quality", "seed")}
    answers = str((folder / "distill" / artifacts.ANSWERS).resolve())
    return sft(Sft.model_validate(kept | {"data": {"answers": answers}}), place, command)


def _starter(recipe: str) -> dict[str, Any]:
    text = resources.files("preceptor.recipes").joinpath(f"{recipe}.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def _grades(run: Path, model: str, seed: int) -> np.ndarray:
    """reward_N of a model of a run, in the order of the exam."""
    table = pq.read_table(run / artifacts.GRADES).to_pylist()
    return np.array([r["reward"] for r in table if r["model"] == model and r["seed"] == seed])
