"""Asking live teachers: planned batches, each committed when it is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pyarrow as pa

from preceptor.core.progress import progress
from preceptor.core.stage import Stage
from preceptor.core.types import Ask, Reply

REPLIES_SCHEMA = pa.schema(
    [
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("n_generated", pa.int32(), nullable=False),
    ]
)


def batch_seed(seed: int, teacher: str, batch: int) -> int:
    """Seed of one batch: the same whichever batches an earlier run has answered."""
    digest = hashlib.blake2b(f"{seed}/{teacher}/{batch}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def ask_teacher(
    teacher: str,
    open_teacher: Callable[[], Ask],
    instructions: Sequence[str],
    batch_size: int,
    seed: int,
    stage: Stage,
) -> list[Reply]:
    """Ask one teacher everything that the stage does not hold yet.

    Instructions of about equal length share a batch. The teacher is opened only if there is
    something left to ask.

    Returns:
        Replies in the order of the instructions.
    """
    order = sorted(range(len(instructions)), key=lambda item: (-len(instructions[item]), item))
    batches = [order[low : low + batch_size] for low in range(0, len(order), batch_size)]
    done = set(stage.table()["batch"].to_pylist())
    n_done = sum(len(batch) for number, batch in enumerate(batches) if number in done)
    if len(done) < len(batches):
        with progress(f"asking {teacher}", len(order), "answers", n_done) as advance:
            ask = open_teacher()
            for number, batch in enumerate(batches):
                if number in done:
                    continue
                replies = ask(
                    [instructions[item] for item in batch], batch_seed(seed, teacher, number)
                )
                stage.add(
                    batch=[number] * len(batch),
                    item=batch,
                    response=[reply.response for reply in replies],
                    finish_reason=[reply.finish_reason for reply in replies],
                    n_generated=[reply.n_generated for reply in replies],
                )
                advance(len(batch), sum(reply.n_generated for reply in replies))
            stage.commit()
    found: list[Reply | None] = [None] * len(order)
    for row in stage.table().to_pylist():
        found[row["item"]] = Reply(row["response"], row["finish_reason"], row["n_generated"])
    return [reply for reply in found if reply is not None]
