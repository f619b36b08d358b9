"""API teachers against a real server on 127.0.0.1 that fails in every way a script asks for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from api_server import Api, serving

from preceptor.core.errors import ModelError, PreceptorError, SettingsError
from preceptor.core.types import Decoding, Reply, Request, Runtime, TeacherSource, user_turn
from preceptor.data.answer_store import AnswerStore
from preceptor.data.asking import Asker
from preceptor.recipes.settings.shared import OpenAITeacher
from preceptor.teachers.openai import open_teacher

KEY = "sk-lab-4f1c0de5ecre7"
TEXTS = tuple(f"question {number}" for number in range(24))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny waits, a key for the lab's server, and none for the hosted API."""
    monkeypatch.setattr("preceptor.core.retrying.FIRST_WAIT", 0.01)
    monkeypatch.setattr("preceptor.data.chat_batches.POLL_SECONDS", 0.01)
    monkeypatch.setenv("LAB_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def teacher(url: str | None, **settings: Any) -> TeacherSource:
    given = {"key_env": "LAB_KEY", "timeout": 5.0, **settings}
    setting = OpenAITeacher(kind="openai", model="parrot", url=url, **given)
    return open_teacher(setting, Runtime())


def requests(texts: Sequence[str] = TEXTS, temperature: float = 0.0) -> list[Request]:
    return [Request(user_turn(text), Decoding(temperature, 1.0, 32)) for text in texts]


def ask(source: TeacherSource, wanted: Sequence[Request]) -> Iterator[tuple[int, list[Reply]]]:
    groups = source.groups(wanted)
    assert groups == [[place] for place in range(len(wanted))]
    return source.ask([[wanted[place] for place in group] for group in groups])


def answers(source: TeacherSource, texts: Sequence[str] = TEXTS) -> dict[str, str]:
    return {texts[number]: reply.response for number, [reply] in ask(source, requests(texts))}


def refused(source: TeacherSource, texts: Sequence[str] = TEXTS) -> tuple[list[str], ModelError]:
    """The texts that were answered, and the error after them."""
    got: list[str] = []
    with pytest.raises(ModelError) as caught:
        got.extend(texts[number] for number, _ in ask(source, requests(texts)))
    return got, caught.value


ASK_ALONE = """
import json, sys
from preceptor.core.types import Decoding, Request, Runtime, user_turn
from preceptor.data import chat_batches
from preceptor.recipes.settings.shared import OpenAITeacher
from preceptor.teachers.openai import open_teacher
chat_batches.POLL_SECONDS = 0.02
setting = OpenAITeacher(kind="openai", model="parrot", url=sys.argv[1], key_env="LAB_KEY",
                        timeout=5.0, batch_api=True)
texts = json.loads(sys.argv[2])
wanted = [[Request(user_turn(text), Decoding(0.0, 1.0, 32))] for text in texts]
print(list(open_teacher(setting, Runtime()).ask(wanted)))
"""
SAID = {text: f"You said {text}." for text in TEXTS}


def test_every_answer_arrives_through_every_fault(capfd: pytest.CaptureFixture[str]) -> None:
    busy = (429, {"Retry-After": "0.02"}, {"error": {"message": "slow down, HEADER"}})
    broken = (500, {}, {"error": {"message": "out of memory, HEADER"}})
    gone = (503, {}, "no upstream")
    faults = {
        TEXTS[0]: [busy],
        TEXTS[3]: [broken, busy],
        TEXTS[4]: [gone],
        TEXTS[5]: ["hang"],
        TEXTS[7]: ["truncated"],
        TEXTS[8]: ["malformed"],
        TEXTS[9]: ["empty"],
        TEXTS[10]: ["silent"],
        TEXTS[11]: ["reset"],
        TEXTS[12]: ["cut"],
        TEXTS[13]: ["malformed", broken, "empty", busy],
        TEXTS[14]: [(408, {}, {"detail": "too slow"})],
    }
    with serving(Api(faults, seconds=0.02)) as api:
        source = teacher(api.url, concurrency=5, timeout=2.0)
        assert answers(source) == SAID
    n_faults = sum(map(len, faults.values()))
    assert {k: v for k, v in source.facts.items() if "retries" in k or k == "requests"} == {
        "requests": len(TEXTS) + n_faults,
        "retries": n_faults,
        "retries_409": 0,
        "retries_429": 3,
        "retries_5xx": 3,
        "retries_timeout": 2,
        "retries_connection": 2,
        "retries_unreadable": 6,
    }
    assert len(api.seen) == len(TEXTS) + n_faults
    assert 1 < api.most_at_once <= 5
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in api.seen)
    told = capfd.readouterr()
    assert "slow down, Bearer [key]; trying again" in told.err.replace(" (wait 0.02 s)", "")
    assert "retries: 16 (429: 3, 5xx: 3, connection: 2, timeout: 2, unreadable: 6)" in told.err
    assert KEY not in told.out + told.err


def test_answers_come_as_they_are_ready() -> None:
    wait = {TEXTS[0]: ["hang"]}
    with serving(Api(wait)) as api:
        source = teacher(api.url, concurrency=2, timeout=0.6)
        order = [number for number, _ in ask(source, requests())]
    assert sorted(order) == list(range(len(TEXTS)))
    assert order.index(0) > 5


def test_a_wait_that_the_server_asks_for_holds_everyone() -> None:
    faults = {TEXTS[0]: [(429, {"Retry-After": "0.5"}, {})]}
    with serving(Api(faults, seconds=0.01)) as api:
        source = teacher(api.url, concurrency=2)
        assert answers(source) == SAID
    first = next(seen.at for seen in api.seen if seen.text == TEXTS[0])
    quiet = [seen for seen in api.seen if first + 0.1 < seen.at < first + 0.5]
    assert quiet == []
    assert source.facts["seconds_rate_limited"] > 0.3


@pytest.mark.parametrize(
    ("status", "said", "what"),
    [
        (
            401,
            {"error": {"message": "Incorrect key: HEADER"}},
            "the server does not accept the key",
        ),
        (403, {"error": "no access for HEADER"}, "the key may not use this model"),
        (404, {"detail": "no model for HEADER"}, "the server knows no such model or address"),
        (400, {"error": {"message": "HEADER asks too much"}}, "the server refuses a request"),
        (
            429,
            {"error": {"message": "HEADER has no money", "code": "insufficient_quota"}},
            "the server answers nothing more for now",
        ),
    ],
)
def test_what_no_retry_mends_fails_at_once(status: int, said: Any, what: str) -> None:
    faults = {TEXTS[2]: [(status, {}, said)] * 9}
    with serving(Api(faults)) as api:
        source = teacher(api.url, concurrency=1)
        got, error = refused(source)
    assert got == list(TEXTS[:2]) and len(api.seen) == 3
    assert (error.what, error.where) == (what, f"parrot at 127.0.0.1:{api.port}")
    assert f"status {status}" in error.found and "Bearer [key]" in error.found
    assert error.next_step and KEY not in str(error)
    assert error.__cause__ is None and error.__suppress_context__
    if status == 400:
        assert repr(TEXTS[2]) in error.found


def test_a_failure_lets_the_others_finish_and_begins_nothing_new() -> None:
    faults = {TEXTS[0]: [(404, {}, {})], TEXTS[1]: [(503, {"Retry-After": "30"}, {})]}
    with serving(Api(faults, seconds=0.3)) as api:
        started = time.monotonic()
        got, error = refused(teacher(api.url, concurrency=6))
    assert error.what == "the server knows no such model or address"
    assert set(got) <= set(TEXTS[2:]) and len(api.seen) == len(got) + 2
    assert len(got) >= 3
    assert time.monotonic() - started < 10  # nobody sits out the half minute


def test_a_server_that_is_down_is_one_clear_error() -> None:
    with serving(Api()) as api:
        pass
    source = teacher(api.url, retries=2, concurrency=1)
    got, error = refused(source)
    assert got == []
    assert error.what == "the server gave no answer" and "(tries: 3)" in error.found
    assert "what was answered is kept" in error.next_step
    assert source.facts["retries_connection"] == 2


def test_a_run_goes_on_where_the_server_died(tmp_path: Path) -> None:
    gone = {text: [(500, {}, {"error": {"message": "dying"}})] * 9 for text in TEXTS[10:]}
    with serving(Api(gone)) as api:
        port = api.port
        source = teacher(api.url, retries=1, concurrency=2)
        with pytest.raises(ModelError, match="the server gave no answer"):
            Asker(AnswerStore(tmp_path))("parrot", source, requests())
    with serving(Api(port=port)) as api:
        asker = Asker(AnswerStore(tmp_path))
        replies = asker("parrot", teacher(api.url), requests())
    assert [reply.response for reply in replies] == list(SAID.values())
    assert sorted(api.texts()) == sorted(TEXTS[10:])
    assert asker.facts["parrot"]["reused"] == 10


def test_cost_is_what_the_price_table_says(tmp_path: Path) -> None:
    """Prompts count their characters (10 or 11), answers their words (4), as the server says."""
    with serving(Api()) as api:
        source = teacher(api.url, price={"input": 3.0, "output": 15.0})
        asker = Asker(AnswerStore(tmp_path))
        asker("parrot", source, requests())
    n_prompt, n_generated = 10 * 10 + 14 * 11, 24 * 4
    facts = asker.facts["parrot"]
    assert (facts["prompt_tokens"], facts["generated_tokens"]) == (n_prompt, n_generated)
    assert facts["cost"] == pytest.approx((254 * 3 + 96 * 15) / 1e6)
    assert facts["retries"] == 0 and facts["without_usage"] == 0


def test_rate_limits_hold_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """600 a minute are 10 a second after the first 6; the bucket itself is tested apart."""
    monkeypatch.setattr("preceptor.core.rate_limit.BURST", 0.01)
    with serving(Api()) as api:
        source = teacher(api.url, requests_per_minute=600)
        answers(source, TEXTS[:12])
    at = [seen.at for seen in api.seen]
    assert at[-1] - at[0] >= 0.4
    assert source.facts["seconds_rate_limited"] > 0.5
    with serving(Api(usage=False)) as api:  # reserved: 32 tokens, and an estimate of the prompt
        source = teacher(api.url, tokens_per_minute=6000)
        answers(source, TEXTS[:3])
    at = [seen.at for seen in api.seen]
    assert at[-1] - at[0] >= 0.4
    assert source.facts["without_usage"] == 3


def test_closing_lets_go_of_what_is_in_flight() -> None:
    faults = {text: ["hang"] for text in TEXTS[1:]}
    with serving(Api(faults)) as api:
        started = time.monotonic()
        with closing(ask(teacher(api.url, concurrency=4), requests())) as stream:  # type: ignore[type-var]
            assert next(stream)[0] == 0
        assert time.monotonic() - started < 3
        assert len(api.seen) <= 5
    assert "asking" not in {thread.name for thread in threading.enumerate()}


def test_the_length_limit_goes_by_the_name_that_the_server_reads() -> None:
    said = {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this "
                      "model. Use 'max_completion_tokens' instead."}}  # fmt: skip
    with serving(Api({TEXTS[0]: [(400, {}, said)]})) as api:
        assert answers(teacher(api.url, concurrency=1)) == SAID
    names = ["max_completion_tokens" in seen.body for seen in api.seen]
    assert names == [False] + [True] * len(TEXTS)
    too_many = {"error": {"message": "max_tokens is too large: at most 16"}}
    with serving(Api({TEXTS[0]: [(400, {}, too_many)]})) as api:
        _, error = refused(teacher(api.url, concurrency=1))
    assert "max_tokens is too large" in error.found and len(api.seen) == 1


def test_every_answer_has_a_seed_of_its_own_and_options_go_along() -> None:
    wanted = requests(TEXTS[:4], temperature=0.5)
    with serving(Api()) as api:
        source = teacher(api.url, options={"min_p": 0.1}, system="Be brief.")
        replies = dict(ask(source, wanted))
    assert len(replies) == 4
    seeds = {seen.text: seen.body["seed"] for seen in api.seen}
    assert seeds == {text: asked.seed for text, asked in zip(TEXTS, wanted, strict=False)}
    assert {(seen.body["min_p"], seen.body["messages"][0]["role"]) for seen in api.seen} == {
        (0.1, "system")
    }


def test_opening_calls_no_server_and_says_who_answers() -> None:
    plain = teacher("http://127.0.0.1:9/v1")
    assert plain.identity == {"model": "parrot", "endpoint": "127.0.0.1:9", "revision": ""}
    hosted = teacher(None, revision="2026-01-01", system="Be brief.", options={"a": 1})
    assert hosted.identity["endpoint"] == "api.openai.com"
    assert set(hosted.identity) == {"model", "endpoint", "revision", "system", "options"}
    assert KEY not in json.dumps(dict(hosted.identity))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"url": None, "key_env": ""}, "the server's key is missing"),
        ({"url": "http://h/v1", "key_env": "NOWHERE"}, "the server's key is missing"),
        ({"url": None, "key_env": KEY}, "key_env is no name of an environment variable"),
        ({"url": None, "options": {"h": KEY}}, "the key stands in the settings"),
        ({"url": f"http://me:{KEY}@h/v1"}, "the url may hold a secret"),
        ({"url": f"http://h/v1?key={KEY}"}, "the url may hold a secret"),
        ({"url": "localhost:8000/v1"}, "the url is no address of a server"),
        ({"url": "http://[h/v1"}, "the url is no address of a server"),
        ({"url": "http://h/v1", "options": {"stream": True}}, "an option is not for the user"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        teacher(settings.pop("url"), **settings)
    assert KEY not in str(caught.value)


def test_the_library_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(SettingsError, match=r"preceptor\[openai\]"):
        teacher("http://h/v1")


def test_the_hosted_key_goes_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(Api()) as api:
        answers(teacher(api.url, key_env=""), TEXTS[:2])
    assert {seen.headers["authorization"] for seen in api.seen} == {"Bearer none"}


def test_a_key_that_the_server_repeats_is_cut_out_of_its_answers() -> None:
    with serving(Api(answer=lambda text, model: f"Your key is {KEY}.")) as api:
        assert answers(teacher(api.url), TEXTS[:1]) == {TEXTS[0]: "Your key is [key]."}


# batches


def test_a_batch_answers_everything_and_lines_that_failed_go_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("preceptor.data.chat_batches.FILE_LINES", 10)
    bad = {TEXTS[1]: [500], TEXTS[2]: [0, 429], TEXTS[12]: [503]}
    with serving(Api(bad_lines=bad, polls=3)) as api:
        source = teacher(api.url, batch_api=True)
        assert answers(source) == SAID
    assert api.seen == []  # no request of the usual kind
    assert source.facts["batches"] == len(api.batches) == 3 + 2 + 1
    assert source.facts["batch_lines_failed"] == 4
    lines = [json.loads(line) for line in api.files["file-0"].decode().strip().split("\n")]
    assert {line["url"] for line in lines} == {"/v1/chat/completions"}
    assert max(content.count(b"\n") for content in api.files.values()) == 10
    assert "requests was sent" in capfd.readouterr().err


def test_a_batch_of_a_run_that_was_killed_is_found_and_not_paid_again(tmp_path: Path) -> None:
    with serving(Api(polls=10**9)) as api:
        command = [sys.executable, "-c", ASK_ALONE, api.url, json.dumps(TEXTS)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not api.calls["GET batches"] > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        [batch] = api.batches.values()
        api.polls = 0
        asker, source = Asker(AnswerStore(tmp_path)), teacher(api.url, batch_api=True)
        replies = asker("parrot", source, requests())
        assert list(api.batches.values()) == [batch]
    assert [reply.response for reply in replies] == list(SAID.values())
    assert source.facts["batches_found_again"] == 1 and "batches" not in source.facts


def test_what_a_killed_run_had_not_kept_is_taken_from_its_batch() -> None:
    with serving(Api()) as api:
        assert answers(teacher(api.url, batch_api=True)) == SAID
        rest = teacher(api.url, batch_api=True)
        assert answers(rest, TEXTS[1:]) == {text: SAID[text] for text in TEXTS[1:]}
        assert rest.facts["batches_found_again"] == 1 and len(api.batches) == 1
        del api.files["batch_0-output"]  # as servers do after some weeks
        late = teacher(api.url, batch_api=True)
        assert answers(late) == SAID
    assert late.facts["batches"] == 1 and len(api.batches) == 2


def test_a_batch_that_was_made_without_our_hearing_of_it_is_not_made_again() -> None:
    with serving(Api(lost_batches=1)) as api:
        source = teacher(api.url, batch_api=True)
        assert answers(source) == SAID
    assert len(api.batches) == 1 and len(api.files) == 2
    assert source.facts["retries_5xx"] == 1 and source.facts["batches_found_again"] == 1


def test_a_line_that_is_refused_is_named_after_the_rest_was_given() -> None:
    with serving(Api(bad_lines={TEXTS[4]: [400] * 9})) as api:
        got, error = refused(teacher(api.url, batch_api=True))
    assert sorted(got) == sorted(set(TEXTS) - {TEXTS[4]})
    assert error.what == "the server refuses a request of a batch"
    assert "no question 4" in error.found and len(api.batches) == 1


@pytest.mark.parametrize(
    ("settings", "what", "found", "n_batches"),
    [
        ({"batch_status": "failed"}, "the batch batch_0 failed", "not to our taste", 1),
        ({"bad_lines": {TEXTS[0]: [500] * 9}}, "left requests unanswered", "batches sent: 3", 3),
    ],
)
def test_batches_that_come_to_nothing(
    settings: dict[str, Any], what: str, found: str, n_batches: int
) -> None:
    with serving(Api(**settings)) as api:
        _, error = refused(teacher(api.url, batch_api=True, retries=2))
    assert what in error.what and found in error.found
    assert len(api.batches) == n_batches
    assert isinstance(error, PreceptorError)
