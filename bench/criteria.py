"""`criteria`: every signal that comes from the one pass, against the pass for `car` alone.

`all signals` measures losses, Brier scores, log p and rank of each token (on disk), the cosines
of the activations, and each distinct instruction's own loss: what all criteria read but `ifd`,
`ic_ifd`, `local_naturalness` and `grace`, whose forwards see other texts; what `ifd` takes more has
a row of its own. Each instruction is answered by 8 teachers. `4 x the answers` is the same pass
against a quarter of its answers: the memory ratio shows what grows.
"""

from __future__ import annotations

import tempfile
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Contender, Meter, race, row
from bench.workload import build_model, build_sequences
from preceptor.core.stage import Stage
from preceptor.data.rendering import Rendered
from preceptor.data.token_store import TokenStore
from preceptor.selection.measure import (
    BATCH_TOKENS,
    COSINES,
    LOSS,
    Scorer,
    Wanted,
    make_plan,
    measure,
)

TEACHERS = 8
N_ANSWERS = {"large": 64, "tiny": 96}
EVERYTHING = Wanted(("nll", "brier", *COSINES), ("nll", "rank"))  # what the shelf of criteria reads


def one_pass(
    meter: Meter, vocabulary: str, n: int, everything: bool, also: tuple[str, ...] = ()
) -> np.ndarray:
    """nll of every answer; `also` names further passes: `alone` (no instruction)."""
    sequences = build_sequences(vocabulary, "chat", n)
    scorers = {wanted: Scorer(build_model(vocabulary), "", wanted) for wanted in (LOSS, EVERYTHING)}
    with tempfile.TemporaryDirectory() as name, meter:
        folder = Path(name)
        found = _measure(folder, "answers", sequences, scorers, EVERYTHING if everything else LOSS)
        if everything:
            questions = [_question(sequence) for sequence in sequences[::TEACHERS]]
            _measure(folder, "questions", questions, scorers, LOSS)
        if "alone" in also:
            _measure(folder, "alone", [_alone(sequence) for sequence in sequences], scorers, LOSS)
    return found


def _measure(
    folder: Path,
    name: str,
    sequences: list[Rendered],
    scorers: dict[Wanted, Scorer],
    wanted: Wanted,
) -> np.ndarray:
    plan = make_plan(sequences, BATCH_TOKENS["cpu"])
    with (
        Stage(folder / name, wanted.schema) as stage,
        TokenStore(folder / "tokens" / name, plan.n_response, wanted.tokens) as store,
    ):
        return measure(name, lambda: scorers[wanted].score, plan, stage, tokens=store)["nll"]


def _question(sequence: Rendered) -> Rendered:
    prompt = sequence.ids[: len(sequence.ids) - sequence.n_response]
    return Rendered(array("i", [1]) + prompt, len(prompt))


def _alone(sequence: Rendered) -> Rendered:
    return Rendered(array("i", [1]) + sequence.response_ids, sequence.n_response)


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `criteria` benchmark."""
    rows = []
    for vocabulary, n in N_ANSWERS.items():
        contenders = [
            Contender("all", "bench.criteria:one_pass", {"n": n, "everything": True}),
            Contender("car", "bench.criteria:one_pass", {"n": n, "everything": False}),
            Contender(
                "and alone",
                "bench.criteria:one_pass",
                {"n": n, "everything": True, "also": ("alone",)},
            ),
            Contender("less", "bench.criteria:one_pass", {"n": n // 4, "everything": True}),
        ]
        results = race(contenders, {"vocabulary": vocabulary}, repeats)
        case, car = f"{vocabulary} vocabulary", results["car"]
        rows.append(row(f"{case}, all signals", "car alone", results["all"], car))
        rows.append(row(f"{case}, all and ifd", "car alone", results["and alone"], car))
        rows.append(row(f"{case}, 4 x the answers", "a quarter", results["all"], results["less"]))
    return rows
