"""Asking goes on where it was left: nothing is asked twice, and the result is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from preceptor.core.errors import DataError
from preceptor.core.types import Decoding, Reply, Request, TeacherSource, user_turn
from preceptor.data.answer_store import AnswerStore
from preceptor.data.asking import Asker

TEXTS = ["three", "a", "seventeen", "bb", "four", "two words here"]


class Parrot:
    """A teacher that repeats question and seed, in pairs, last pair first; it remembers calls."""

    def __init__(self, fails_at: int | None = None, name: str = "parrot") -> None:
        self.calls: list[list[str]] = []
        self.fails_at, self.name = fails_at, name

    def source(self) -> TeacherSource:
        return TeacherSource({"model": self.name}, self.groups, self.ask)

    def groups(self, requests: Sequence[Request]) -> list[list[int]]:
        order = sorted(range(len(requests)), key=lambda place: -len(requests[place].messages[0][1]))
        return [order[low : low + 2] for low in range(0, len(order), 2)]

    def ask(self, groups: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Reply]]]:
        for number in reversed(range(len(groups))):
            if len(self.calls) == self.fails_at:
                raise ConnectionError("gone")
            self.calls.append([request.messages[0][1] for request in groups[number]])
            yield number, [self.reply(request) for request in groups[number]]

    def reply(self, request: Request) -> Reply:
        text = request.messages[0][1]
        return Reply(f"{text} {request.seed}", "stop", len(text), n_prompt=1)


def requests(
    temperature: float = 1.0, seed: int = 7, texts: Sequence[str] = TEXTS
) -> list[Request]:
    return [Request(user_turn(text), Decoding(temperature), 0, seed) for text in texts]


def ask(parrot: Parrot, folder: Path, wanted: Sequence[Request] | None = None) -> list[Reply]:
    return Asker(AnswerStore(folder))("parrot", parrot.source(), wanted or requests())


def test_replies_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    parrot = Parrot()
    replies = ask(parrot, tmp_path)
    assert replies == [parrot.reply(request) for request in requests()]
    assert parrot.calls == [["bb", "a"], ["three", "four"], ["two words here", "seventeen"]]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    whole = ask(Parrot(), tmp_path / "whole")
    failing = Parrot(fails_at=2)
    with pytest.raises(ConnectionError):
        ask(failing, tmp_path / "broken")
    rest = Parrot()
    assert ask(rest, tmp_path / "broken") == whole
    assert rest.calls == [["two words here", "seventeen"]]
    idle = Parrot()
    assert ask(idle, tmp_path / "broken") == whole
    assert idle.calls == []


def test_another_study_asks_only_what_is_new(tmp_path: Path) -> None:
    ask(Parrot(), tmp_path)
    parrot = Parrot()
    wanted = requests(texts=["bb", "new", "four"])
    assert ask(parrot, tmp_path, wanted) == [parrot.reply(request) for request in wanted]
    assert parrot.calls == [["new"]]
    other = Parrot(name="macaw")
    ask(other, tmp_path, wanted)
    assert sum(map(len, other.calls)) == 3


def test_a_request_that_stands_twice_is_asked_once(tmp_path: Path) -> None:
    parrot = Parrot()
    replies = ask(parrot, tmp_path, requests(texts=["bb", "bb", "a"]))
    assert replies[0] == replies[1] != replies[2]
    assert sum(map(len, parrot.calls)) == 2


def test_greedy_answers_have_no_seed_and_no_sample(tmp_path: Path) -> None:
    ask(Parrot(), tmp_path, requests(temperature=0.0, seed=1))
    idle = Parrot()
    ask(idle, tmp_path, requests(temperature=0.0, seed=2))
    assert idle.calls == []
    identity = {"model": "parrot"}
    keys = {
        Request(user_turn("x"), Decoding(t, p, n), sample, seed).key(identity)
        for t in (0.5, 1.0)
        for p in (0.9, 1.0)
        for n in (8, 16)
        for sample in (0, 1)
        for seed in (0, 1)
    }
    assert len(keys) == 32


def test_an_unanswered_request_is_an_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    parrot = Parrot()
    source = TeacherSource({"model": "parrot"}, lambda _: [[0, 1]], parrot.ask)
    with pytest.raises(DataError, match="did not answer everything") as caught:
        Asker(AnswerStore(tmp_path))("parrot", source, requests())
    assert caught.value.found == "4 of 6 requests without an answer"
    rest = Parrot()
    ask(rest, tmp_path)
    assert sum(map(len, rest.calls)) == 4


def test_what_was_asked_is_counted(tmp_path: Path) -> None:
    parrot = Parrot()
    source = TeacherSource(
        {"model": "parrot"}, parrot.groups, parrot.ask, lambda n_in, n_out: n_in + 2 * n_out
    )
    asker = Asker(AnswerStore(tmp_path))
    asker("polly", source, requests(texts=["bb", "a"]))
    asker("polly", source, requests(texts=["bb", "four"]))
    facts = asker.facts["polly"]
    assert (facts["answers"], facts["reused"]) == (4, 1)
    assert (facts["prompt_tokens"], facts["generated_tokens"]) == (4, 2 + 1 + 2 + 4)
    assert facts["cost"] == 4 + 2 * 9


def test_a_group_that_is_told_twice_is_kept_once(tmp_path: Path) -> None:
    parrot = Parrot()

    def twice(groups: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Reply]]]:
        for number, replies in parrot.ask(groups):
            yield number, replies
            yield number, replies

    source = TeacherSource({"model": "parrot"}, parrot.groups, twice)
    replies = Asker(AnswerStore(tmp_path))("parrot", source, requests())
    assert replies == [parrot.reply(request) for request in requests()]
    (shard,) = tmp_path.glob("*/*.parquet")
    assert pq.read_metadata(shard).num_rows == len(TEXTS)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (Reply(None, "stop", 1), "encode"),  # type: ignore[arg-type]
        (Reply("a", "stop", 1.5), "float"),  # type: ignore[arg-type]
        (Reply("a", "stop", 2**31), "more than"),
        (Reply("a", "stop", 1, label_logprobs=(-1.0,)), "1 log-probabilities"),
    ],
)
def test_an_answer_that_cannot_be_kept_costs_no_other(
    tmp_path: Path, reply: Reply, found: str
) -> None:
    good = Reply("fine", "stop", 1)
    source = TeacherSource(
        {"model": "parrot"},
        lambda requests: [[n] for n in range(len(requests))],
        lambda groups: iter([(0, [good]), (1, [good]), (2, [reply])]),
    )
    with pytest.raises(DataError, match="cannot be kept") as caught:
        Asker(AnswerStore(tmp_path))("parrot", source, requests())
    assert found in caught.value.found and "seventeen" in caught.value.where
    assert AnswerStore(tmp_path).table(["response"]).num_rows == 2


def test_a_group_with_an_answer_too_few_is_an_error(tmp_path: Path) -> None:
    source = TeacherSource(
        {"model": "parrot"},
        lambda _: [[0, 1]],
        lambda groups: iter([(0, [Reply("one", "stop", 1)])]),
    )
    with pytest.raises(DataError, match="another number of answers") as caught:
        Asker(AnswerStore(tmp_path))("parrot", source, requests())
    assert caught.value.found == "1 answers to 2 requests"


def test_numbers_beyond_the_store_are_refused_before_asking(tmp_path: Path) -> None:
    parrot = Parrot()
    with pytest.raises(DataError, match="seed is too large"):
        ask(parrot, tmp_path / "store", requests(seed=2**63))
    assert parrot.calls == [] and not (tmp_path / "store").exists()
    assert len(ask(parrot, tmp_path / "store", requests(seed=2**63 - 1))) == len(TEXTS)


def test_text_that_is_no_text_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    """Half a surrogate pair, as a cut stream may leave it; numbers of other libraries."""
    half = Reply("cut \ud83d", "stop", np.int64(3), logprob=np.float32(-0.5))  # type: ignore[arg-type]

    def source() -> TeacherSource:
        return TeacherSource(
            {"model": "parrot"}, lambda _: [[0]], lambda groups: iter([(0, [half])])
        )

    wanted = requests(texts=["why \udc00 \U0001f600"])
    first = Asker(AnswerStore(tmp_path))("parrot", source(), wanted)
    again = Asker(AnswerStore(tmp_path))("parrot", source(), wanted)
    assert first == again == [Reply("cut \ufffd", "stop", 3, logprob=-0.5)]
    stored = AnswerStore(tmp_path).table(["instruction"])["instruction"].to_pylist()
    assert stored == ["why \ufffd \U0001f600"]
