"""Continuous batching gives what padded batches give, and leaves nothing behind."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preceptor.core.errors import ModelError
from preceptor.core.types import Decoding, Reply, Request, Runtime, TeacherSource, user_turn
from preceptor.lab.tasks import instructions
from preceptor.models import continuous
from preceptor.recipes.inputs.respondents import open_teacher
from preceptor.recipes.settings.shared import TransformersTeacher

pytest.importorskip("psutil")  # the engine reads the memory of a CPU through it
RUNTIME = Runtime(device="cpu", dtype="float32")


def opened(model: Path | str, refill: bool, batch_size: int = 4) -> TeacherSource:
    setting = TransformersTeacher(model=str(model), continuous=refill, batch_size=batch_size)
    return open_teacher(setting, RUNTIME)


def replies(source: TeacherSource, requests: list[Request]) -> list[Reply]:
    found: list[Any] = [None] * len(requests)
    groups = source.groups(requests)
    for number, answers in source.ask([[requests[place] for place in g] for g in groups]):
        for place, answer in zip(groups[number], answers, strict=True):
            found[place] = answer
    return found


def assert_alike(found: list[Reply], wanted: list[Reply]) -> None:
    """The same answers, and log-probabilities up to rounding."""
    for one, other in zip(found, wanted, strict=True):
        assert (one.response, one.finish_reason) == (other.response, other.finish_reason)
        assert (one.n_prompt, one.n_generated) == (other.n_prompt, other.n_generated)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_a_teacher_of_the_lab_answers_as_in_batches() -> None:
    texts = [row.instruction for row in instructions("selection", 24)]
    requests = [Request(user_turn(text), Decoding(max_new_tokens=12)) for text in texts]
    refilled, batched = opened("lab:birch-m", True), opened("lab:birch-m", False)
    assert [len(group) for group in refilled.groups(requests)] == [24]
    assert [len(group) for group in batched.groups(requests)] == [4] * 6
    assert refilled.identity == batched.identity
    found = replies(refilled, requests)
    assert_alike(found, replies(batched, requests))
    assert len({reply.n_generated for reply in found}) > 3
    assert {reply.finish_reason for reply in found} == {"stop", "length"}


@pytest.mark.parametrize("architecture", ["mistral", "qwen3"])
def test_answers_over_several_pages_and_near_the_limit(
    architecture: str,
    tiny_model: Callable[..., Path],
    chat_template: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Small pages, a sliding window of 8, prompts with a common start, answers that are cut."""
    monkeypatch.setattr(continuous, "PAGE", 16)
    extra = {"sliding_window": 8} if architecture == "mistral" else {"head_dim": 16}
    folder = tiny_model(
        f"paged-{architecture}",
        architecture=architecture,
        chat_template=chat_template,
        seed=2,
        **extra,
    )
    start = "the cat is in the house and the dog "
    texts = [start * n + word for n in (0, 2, 9) for word in ("sum", "blue", "garden")]
    requests = [Request(user_turn(text), Decoding(max_new_tokens=60)) for text in texts]
    found = replies(opened(folder, True, 3), requests)
    assert_alike(found, replies(opened(folder, False, 3), requests))
    cut = {reply.n_generated for reply in found if reply.finish_reason == "length"}
    assert 60 in cut and min(cut) < 60


def test_what_samples_or_has_labels_is_answered_in_batches(chatter: Path) -> None:
    """One stream of random numbers for all rows would tie answers to their neighbours."""
    warm, cold = Decoding(0.8, 1.0, 6), Decoding(max_new_tokens=6)
    requests = [Request(user_turn("Where is the cat?"), warm, sample) for sample in range(6)]
    requests += [Request(user_turn(f"Name {n}."), cold, labels=("A",)) for n in range(5)]
    requests += [Request(user_turn(f"Name {n}."), cold) for n in range(10)]
    refilled, batched = opened(chatter, True), opened(chatter, False)
    groups = refilled.groups(requests)
    assert [len(group) for group in groups] == [4, 2, 4, 1, 10]
    found, wanted = replies(refilled, requests), replies(batched, requests)
    assert_alike(found, wanted)
    assert len({reply.response for reply in found[:6]}) > 3
    for one, other in zip(found[6:11], wanted[6:11], strict=True):
        assert one.label_logprobs == pytest.approx(other.label_logprobs, abs=1e-4)


def test_no_thread_is_left_behind(chatter: Path) -> None:
    requests = [Request(user_turn(f"Name {n}."), Decoding(max_new_tokens=3)) for n in range(4)]
    before = set(threading.enumerate())
    stream: Any = opened(chatter, True).ask([requests[:2], requests[2:]])
    next(stream)
    assert set(threading.enumerate()) == before
    stream.close()
    assert set(threading.enumerate()) == before


def test_an_engine_that_gives_up_is_an_error_of_ours(
    tiny_model: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """GPT-2 has as many keys as queries; a config that says otherwise makes a cache too narrow."""
    folder = tiny_model("narrow-cache", architecture="gpt2", num_key_value_heads=1)
    before = set(threading.enumerate())
    capfd.readouterr()
    with pytest.raises(ModelError, match="continuous batching gave up") as caught:
        replies(opened(folder, True), [Request(user_turn("Where?"), Decoding())])
    assert "slice shapes" in caught.value.found
    assert "`continuous: false`" in caught.value.next_step
    assert set(threading.enumerate()) == before
    assert "Traceback" not in capfd.readouterr().err


def test_a_prompt_that_fills_the_limit_is_refused(chatter: Path) -> None:
    with pytest.raises(ModelError, match="longer than the teacher can read"):
        replies(opened(chatter, True), [Request(user_turn("blue sky " * 100), Decoding())])


@pytest.mark.parametrize(
    ("architecture", "words", "shape"),
    [
        ("bloom", "BloomForCausalLM computes its attention", {}),
        ("gemma2", "Gemma2ForCausalLM computes its attention", {"head_dim": 16}),
        ("qwen3_next", "linear_attention", {"head_dim": 16, "num_experts": 2}),
    ],
)
def test_models_that_do_not_fit_are_refused_before_weights(
    architecture: str,
    words: str,
    shape: dict[str, int],
    tiny_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Layers with a state, and attention that the engine's would not reproduce."""
    folder = tmp_path / architecture
    made = tiny_model(f"unfit-{architecture}", architecture=architecture, **shape)
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelError, match="cannot be asked with continuous batching") as caught:
        opened(folder, True)
    assert words in caught.value.found
    assert opened(folder, False).identity


def test_an_older_library_is_refused(chatter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous.transformers, "__version__", "5.4.0")
    with pytest.raises(ModelError, match=r"needed 5\.23 or newer"):
        opened(chatter, True)
