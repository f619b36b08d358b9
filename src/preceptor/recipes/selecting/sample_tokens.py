"""The few answers that the page of a selection quotes, token by token: `sample_tokens.parquet`.

What is quoted is known when the ranking is, so the base measures these answers once more; where a
criterion has kept the numbers of every token, they are read from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from preceptor.core import artifacts
from preceptor.core.progress import say
from preceptor.core.run import Run
from preceptor.data.pieces import Piece, Pieces
from preceptor.data.rendering import Rendered, Renderer
from preceptor.data.token_store import TokenStore, gather, read_tokens
from preceptor.models.load import pick_device
from preceptor.recipes.inputs.respondents import open_fleet
from preceptor.recipes.selecting.preparing import Prepared
from preceptor.recipes.settings.shared import model_name
from preceptor.reporting.pages.select import samples
from preceptor.selection.measure import BATCH_TOKENS, Wanted, make_plan, measure, open_scorer

MOST = 150  # answers that are measured again, about
SIGNALS = ("nll", "rank")
STAGE = "sample-tokens"

Numbers = Mapping[str, np.ndarray]
"""Signal -> a number a token, answer after answer; no `rank` where none was kept."""


def quoted(n_instructions: int, n_teachers: int) -> int:
    """How many answers the page quotes at most, and the base so measures again."""
    count = min(n_instructions, samples.COUNT)
    return count * min(n_teachers, _shown(count))


def _shown(n_instructions: int) -> int:
    """Of how many teachers each quoted instruction's answers are measured."""
    return max(1, MOST // max(n_instructions, 1))


def keep_sample_tokens(prepared: Prepared, run: Run, ranking: Mapping[str, Any]) -> None:
    """Write `sample_tokens.parquet`, unless it is there or no criterion reads the base.

    Args:
        run: its folder holds `answers.parquet` and `signals.parquet`.
        ranking: the content of `ranking.json`.
    """
    path = run.path(artifacts.SAMPLE_TOKENS)
    if path.exists() or not run.leads:
        return
    rows = _rows(run, ranking)
    if not rows or any(row["nll"] is None for row in rows):
        return
    renderer = Renderer(prepared.base.tokenizer, prepared.base.limit, prepared.base.reference)
    texts = [row["instruction"] for row in rows], [row["response"] for row in rows]
    sequences = renderer.render(*texts)
    numbers = _kept(run, rows)
    if numbers is None:
        numbers = _measured(prepared, run, sequences)
    pieces = Pieces(prepared.base.tokenizer)
    cut = [
        pieces.cut(list(sequence.response_ids), row["response"])
        for sequence, row in zip(sequences, rows, strict=True)
    ]
    artifacts.write_table(path, _table(rows, cut, numbers))


def _rows(run: Run, ranking: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The quoted answers with their signals: of many teachers, those that rank first."""
    chosen = [name for name, _ in samples.choose(run.folder, ranking)]
    if not chosen:
        return []
    found = samples.read_rows(run.folder, chosen)
    criterion = ranking["criteria"][ranking["recommended_by"]]
    order = [row["teacher"] for row in criterion["teachers"]]
    kept = order[: _shown(len(chosen))]
    keys = ((name, teacher) for name in chosen for teacher in kept)
    return [found[key] for key in keys if "n_tokens" in found.get(key, {})]


def _kept(run: Run, rows: Sequence[Mapping[str, Any]]) -> Numbers | None:
    """What the run has kept of every token; None where it has not."""
    folder = run.path(artifacts.TOKENS)
    starts = [row.get("token_start") for row in rows]
    if None in starts or not (folder / "nll.npy").exists():
        return None
    lengths = np.array([row["n_tokens"] for row in rows], dtype=np.int64)
    return {
        name: gather(read_tokens(folder, name), np.array(starts, dtype=np.int64), lengths)
        for name in SIGNALS
        if (folder / f"{name}.npy").exists()
    }


def _measured(prepared: Prepared, run: Run, sequences: Sequence[Rendered]) -> Numbers:
    """A pass of the base over these answers, resumed where it was killed.

    They are few: of a fleet one worker is started for them, whatever the settings say.
    """
    runtime, base = prepared.runtime, prepared.base
    say(f"measuring the {len(sequences):,} answers that the report quotes, token by token")
    wanted = Wanted(("nll",), SIGNALS)
    device = pick_device(runtime.device)
    budget = runtime.batch_tokens or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
    plan = make_plan(sequences, budget)
    place = (base.reference, runtime.dtype, runtime.device, runtime.trust_remote_code)
    folder = run.path(f"{artifacts.WORK}/{STAGE}-{artifacts.TOKENS}")
    fleet = open_fleet(prepared.settings.fleet.model_copy(update={"workers": 1}))
    with (
        TokenStore(folder, plan.n_response, SIGNALS) as store,
        run.stage(STAGE, wanted.schema) as stage,
    ):
        title = f"measuring quoted answers under {model_name(base.reference)}"
        opener = partial(open_scorer, *place, wanted)
        measure(title, opener, plan, stage, fleet, store)
        run.note_seconds("measuring quoted answers", stage)
        own = plan.item_to_unique
        starts, lengths = store.starts[:-1][own], plan.n_response[own].astype(np.int64)
    return {name: gather(read_tokens(folder, name), starts, lengths) for name in SIGNALS}


def _table(
    rows: Sequence[Mapping[str, Any]], cut: Sequence[Sequence[Piece]], numbers: Numbers
) -> pa.Table:
    """A row a piece, answer after answer."""
    pieces = [piece for own in cut for piece in own]
    lengths = np.array([piece.n_tokens for piece in pieces], dtype=np.int32)
    begins = np.cumsum(lengths, dtype=np.int64) - lengths
    owners = [row for row, own in zip(rows, cut, strict=True) for _ in own]
    columns = {
        "instruction_id": [row["instruction_id"] for row in owners],
        "teacher": [row["teacher"] for row in owners],
        "piece": [place for own in cut for place in range(len(own))],
        "text": [piece.text.encode("utf-8", "replace").decode() for piece in pieces],
        "n_tokens": lengths,
        "nll": np.add.reduceat(numbers["nll"].astype(np.float64), begins).astype(np.float32),
        "rank": np.maximum.reduceat(numbers["rank"], begins).astype(np.int32)
        if "rank" in numbers
        else pa.nulls(len(pieces), pa.int32()),
    }
    return pa.table(columns, schema=artifacts.SAMPLE_TOKENS_SCHEMA)
