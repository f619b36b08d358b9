"""Requests and replies in the form of OpenAI-compatible servers, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from preceptor.core.types import Decoding, Reply, Request, user_turn
from preceptor.data.chat import UnreadableReplyError, chat_body, read_reply
from preceptor.data.chat_batches import batch_marks, in_files, same_batch

ASKED = Request(user_turn("Who?"), Decoding(max_new_tokens=7))
JUDGED = Request(user_turn("A or B?"), Decoding(max_new_tokens=1), labels=("A", "B", "C"))


def body(request: Request, system: str = "", **options: Any) -> dict[str, Any]:
    return chat_body(request, "m", system, "max_tokens", options)


def payload(content: Any, reason: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    choice = {"message": message, "finish_reason": reason, **more.pop("choice", {})}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}, **more}


def test_a_greedy_request_says_temperature_alone() -> None:
    assert body(ASKED) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Who?"}],
        "temperature": 0.0,
        "max_tokens": 7,
    }


def test_a_sampled_request_says_its_seed_and_a_judged_one_asks_for_probabilities() -> None:
    drawn = Request(user_turn("Who?"), Decoding(0.7, 0.9, 7), sample=2, run_seed=3)
    sent = body(drawn, system="Be brief.")
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.7, 0.9, drawn.seed)
    assert "logprobs" not in sent
    judged = body(JUDGED)
    assert (judged["logprobs"], judged["top_logprobs"]) == (True, 20)


def test_options_have_the_last_word_and_null_leaves_a_field_out() -> None:
    sent = body(ASKED, temperature=None, max_completion_tokens=99, reasoning_effort="low")
    assert "temperature" not in sent and "max_tokens" not in sent
    assert (sent["max_completion_tokens"], sent["reasoning_effort"]) == (99, "low")


def test_a_reply_with_usage() -> None:
    assert read_reply(payload("Me."), ASKED) == (Reply("Me.", "stop", 2, 5), True)
    assert read_reply(payload("", "stop"), ASKED)[0].response == ""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("eos", "stop"),
        (None, "stop"),
        ("content_filter", "content_filter"),
    ],
)
def test_finish_reasons(said: Any, reason: str) -> None:
    assert read_reply(payload("Me.", said), ASKED)[0].finish_reason == reason


def test_no_text_is_a_reply_only_where_there_is_a_reason() -> None:
    assert read_reply(payload(None, "length"), ASKED)[0].response == ""
    assert read_reply(payload(None, "content_filter"), ASKED)[0].finish_reason == "content_filter"
    refused = read_reply(payload(None, message={"refusal": "I cannot."}), ASKED)[0]
    assert (refused.response, refused.finish_reason) == ("I cannot.", "content_filter")
    with pytest.raises(UnreadableReplyError, match="no text in the reply; finish reason 'stop'"):
        read_reply(payload(None), ASKED)


@pytest.mark.parametrize(
    "sent",
    [None, [], "yes", {}, {"choices": []}, {"choices": ["x"]}, {"error": {"message": "busy"}}],
)
def test_what_is_no_completion_is_unreadable(sent: Any) -> None:
    with pytest.raises(UnreadableReplyError):
        read_reply(sent, ASKED)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 5}, {"completion_tokens": True}])
def test_without_usage_tokens_are_estimated(usage: Any) -> None:
    reply, counted = read_reply(payload("twelve bytes", usage=usage), ASKED)
    assert not counted
    assert reply.n_generated == 3
    assert reply.n_prompt == (usage or {}).get("prompt_tokens")
    assert read_reply(payload("\ud800", usage=None), ASKED)[0].n_generated == 1


def test_label_probabilities_are_those_of_the_first_token() -> None:
    first = {
        "token": "B",
        "logprob": -0.5,
        "top_logprobs": [{"token": "B", "logprob": -0.5}, {"token": " A", "logprob": -1.5}],
    }
    later = {"token": "C", "logprob": -0.25, "top_logprobs": [{"token": "C", "logprob": -0.25}]}
    choice = {"logprobs": {"content": [first, later]}}
    reply, _ = read_reply(payload("BC", choice=choice), JUDGED)
    assert reply.label_logprobs == (-1.5, -0.5, None)
    assert reply.logprob == -0.75
    silent, _ = read_reply(payload("BC"), JUDGED)
    assert silent.label_logprobs == (None, None, None) and silent.logprob is None
    unasked, _ = read_reply(payload("BC", usage=None, choice=choice), ASKED)
    assert unasked.label_logprobs == () and unasked.n_generated == 2


def test_files_are_bounded_in_lines_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preceptor.data.chat_batches.FILE_LINES", 3)
    monkeypatch.setattr("preceptor.data.chat_batches.FILE_BYTES", 100)
    assert in_files([[10]] * 7) == [[0, 1, 2], [3, 4, 5], [6]]
    assert in_files([[60], [50], [40], [500], [1, 1], [1, 1]]) == [[0], [1, 2], [3], [4], [5]]
    assert in_files([]) == []


def test_a_batch_is_known_again_by_the_keys_it_holds() -> None:
    keys = [f"{digit:x}{number:031x}" for digit in range(16) for number in range(5)]
    marks = batch_marks(keys)
    assert marks == batch_marks(reversed(keys)) and len(marks) == 8
    assert all(len(name) <= 64 and len(mark) <= 512 for name, mark in marks.items())
    assert same_batch(batch_marks(keys[3:]), marks)  # three answers were kept before the kill
    others = [key[:-1] + "f" for key in keys]
    assert not same_batch(batch_marks(others), marks)
    assert not same_batch(marks, None)
