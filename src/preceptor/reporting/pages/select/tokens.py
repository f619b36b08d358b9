"""The quoted answers token by token, as the page shows them: `sample_tokens.parquet` made small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError


@dataclass(frozen=True)
class Tokens:
    """One answer.

    Attributes:
        text: the pieces joined.
        lengths: characters of each piece; 0 for the tokens that end the answer.
        nll: of each piece, nats.
        rank: of each piece; None where it was not measured.
    """

    text: str
    lengths: list[int]
    nll: list[float]
    rank: list[int] | None


def read(folder: Path) -> dict[tuple[str, str], Tokens]:
    """(instruction id, teacher) -> its tokens; empty where the run has kept none.

    Raises:
        RunFolderError: the file is there, but of another layout.
    """
    path = folder / artifacts.SAMPLE_TOKENS
    if not path.exists():
        return {}
    try:
        table = pq.read_table(path).cast(artifacts.SAMPLE_TOKENS_SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise RunFolderError(
            "the tokens of the quoted answers cannot be read",
            where=str(path),
            found=str(error).splitlines()[0],
            next_step="remove the file: the page then quotes the answers without them",
        ) from error
    starts = np.append(np.flatnonzero(table["piece"].to_numpy() == 0), table.num_rows)
    found = {}
    for low, high in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        own = table.slice(low, high - low)
        texts = own["text"].to_pylist()
        ranked = own["rank"].null_count == 0
        key = own["instruction_id"][0].as_py(), own["teacher"][0].as_py()
        found[key] = Tokens(
            "".join(texts),
            [len(text) for text in texts],
            own["nll"].to_pylist(),
            own["rank"].to_pylist() if ranked else None,
        )
    return found


def cut(tokens: Tokens | None, limit: int) -> dict[str, Any]:
    """What the script needs of the pieces within the first `limit` characters.

    `pieces` (characters of each, the last one maybe cut), `nll` (hundredths of a nat), `rank`
    (where known), `end` (nll and rank of what ends the answer; only where nothing was cut).
    Nothing of an answer that was not measured token by token.
    """
    if tokens is None:
        return {}
    lengths, left = [], limit
    for length in tokens.lengths:
        if left <= 0 or length == 0:
            break
        lengths.append(min(length, left))
        left -= length
    n = len(lengths)
    nll = [round(100 * value) for value in tokens.nll]
    found: dict[str, Any] = {"pieces": lengths, "nll": nll[:n]}
    if tokens.rank is not None:
        found["rank"] = tokens.rank[:n]
    if n == len(tokens.lengths) - 1 and tokens.lengths[n] == 0:
        found["end"] = [nll[n], None if tokens.rank is None else tokens.rank[n]]
    return found
