"""Asking goes on where it was left: nothing is asked twice, and the result is the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from preceptor.core.stage import Stage
from preceptor.core.types import Reply
from preceptor.selection.asking import REPLIES_SCHEMA, ask_teacher, batch_seed

INSTRUCTIONS = ["three", "a", "seventeen", "bb", "four", "two words here"]


class Parrot:
    """A teacher that repeats the question and the seed, and remembers its calls."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls: list[tuple[list[str], int]] = []
        self.fails_at, self.opened = fails_at, 0

    def open(self) -> Parrot:
        self.opened += 1
        return self

    def __call__(self, instructions: Sequence[str], seed: int) -> list[Reply]:
        if len(self.calls) == self.fails_at:
            raise ConnectionError("gone")
        self.calls.append((list(instructions), seed))
        return [Reply(f"{text} {seed}", "stop", len(text)) for text in instructions]


def run(parrot: Parrot, folder: Path, seed: int = 7) -> list[Reply]:
    with Stage(folder, REPLIES_SCHEMA) as stage:
        return ask_teacher("parrot", parrot.open, INSTRUCTIONS, 2, seed, stage)


def test_replies_come_in_the_order_of_the_instructions(tmp_path: Path) -> None:
    parrot = Parrot()
    replies = run(parrot, tmp_path)
    assert [reply.response.rpartition(" ")[0] for reply in replies] == INSTRUCTIONS
    assert [reply.n_generated for reply in replies] == [len(text) for text in INSTRUCTIONS]
    assert parrot.calls == [
        (["two words here", "seventeen"], batch_seed(7, "parrot", 0)),
        (["three", "four"], batch_seed(7, "parrot", 1)),
        (["bb", "a"], batch_seed(7, "parrot", 2)),
    ]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    whole = run(Parrot(), tmp_path / "whole")
    failing = Parrot(fails_at=2)
    with pytest.raises(ConnectionError):
        run(failing, tmp_path / "broken")
    rest = Parrot()
    assert run(rest, tmp_path / "broken") == whole
    assert [texts for texts, _ in failing.calls + rest.calls] == [
        ["two words here", "seventeen"],
        ["three", "four"],
        ["bb", "a"],
    ]
    idle = Parrot()
    assert run(idle, tmp_path / "broken") == whole
    assert (idle.opened, rest.opened) == (0, 1)


def test_seeds_differ_between_batches_teachers_and_seeds(tmp_path: Path) -> None:
    seeds = {
        batch_seed(seed, teacher, batch)
        for seed in (0, 1)
        for teacher in ("ash", "beech")
        for batch in range(3)
    }
    assert len(seeds) == 12
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert run(Parrot(), tmp_path / "a", seed=1) != run(Parrot(), tmp_path / "b", seed=2)
