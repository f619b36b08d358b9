"""Programs of the answer store's tests: they are killed, or run beside one another."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from preceptor.core.types import Decoding, Reply, Request, TeacherSource, user_turn
from preceptor.data import answer_shards, answer_store
from preceptor.data.answer_store import AnswerStore
from preceptor.data.asking import Asker

IDENTITY = {"model": "org/parrot", "fingerprint": "commit:1"}


def questions(n: int) -> list[Request]:
    return [Request(user_turn(f"question {number}"), Decoding(0.7), 0, 7) for number in range(n)]


def answer(request: Request) -> Reply:
    return Reply(f"{request.messages[0][1]}! {request.seed}", "stop", 3, n_prompt=2)


def parrot(log: Path, seconds: float, name: str = "parrot") -> TeacherSource:
    """Answers in groups of three, at a pace; what it answers is noted at once, in `log`."""
    identity = {**IDENTITY, "model": f"org/{name}"}

    def ask(groups: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Reply]]]:
        with open(log, "a") as noted:
            for number, group in enumerate(groups):
                time.sleep(seconds)
                for request in group:
                    noted.write(f"{request.key(identity)} {time.time()} {os.getpid()}\n")
                noted.flush()
                yield number, [answer(request) for request in group]

    def groups(requests: Sequence[Request]) -> list[list[int]]:
        places = list(range(len(requests)))
        return [places[low : low + 3] for low in range(0, len(places), 3)]

    return TeacherSource(identity, groups, ask)


def ask(folder: str, log: str, n: int, seconds: float, name: str = "parrot") -> None:
    """Ask n questions; shards are small, and merge often."""
    answer_store.COMMIT_SECONDS = 0.02
    answer_store.MANY = answer_shards.MANY = 8
    answer_shards.LEVELS = (8, 64, 512)
    _be_quiet()
    replies = Asker(AnswerStore(Path(folder)))(name, parrot(Path(log), seconds, name), questions(n))
    assert replies == [answer(request) for request in questions(n)]


def compact_for_ever(folder: str, log: str) -> None:
    """Write little shards and merge them, over and over; what was committed is noted."""
    answer_shards.ROW_GROUP = 16
    _be_quiet()
    while True:
        with AnswerStore(Path(folder)).part(IDENTITY) as part, open(log, "a") as noted:
            stored = AnswerStore(Path(folder)).table(["key"]).num_rows
            for low in range(stored, stored + 12, 4):
                own = questions(low + 4)[low:]
                keys = [request.key(IDENTITY) for request in own]
                part.add(keys, own, [answer(r) for r in own], lambda n_in, n_out: 0.0)
                part.commit()
                noted.write("".join(f"{key}\n" for key in keys))
                noted.flush()
            part.compact()


def hold(folder: str, ready: str) -> None:
    """Take a teacher's lock and keep it."""
    with AnswerStore(Path(folder)).part(IDENTITY):
        Path(ready).touch()
        time.sleep(600)


def _be_quiet() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
