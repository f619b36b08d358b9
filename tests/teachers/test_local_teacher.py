"""Local teachers: a batch of greedy replies is what each prompt gives alone, without padding."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from preceptor.core.errors import ModelError
from preceptor.core.types import Decoding, Reply, Request, Runtime, user_turn
from preceptor.data.rendering import prompt_ids
from preceptor.models.generation import Choice
from preceptor.recipes.settings.shared import TransformersTeacher
from preceptor.teachers.transformers import open_teacher

N_NEW = 12


def ask(
    folder: Path,
    instructions: tuple[str, ...],
    seed: int = 0,
    temperature: float = 0.0,
    **more: Any,
) -> list[Reply]:
    """Replies of one batch; an instruction that stands again is asked for its next sample."""
    decoding = Decoding(temperature, more.get("top_p", 1.0), more.get("n_new", N_NEW))
    setting = TransformersTeacher(model=str(folder), batch_size=256)
    source = open_teacher(setting, Runtime(device="cpu", dtype="float32"))
    requests = [
        Request(user_turn(text), decoding, instructions[:place].count(text), seed)
        for place, text in enumerate(instructions)
    ]
    assert sorted(source.groups(requests)[0]) == list(range(len(requests)))
    [(number, replies)] = source.ask([requests])
    assert number == 0
    return replies


def greedy_ids(folder: Path, instruction: str) -> list[int]:
    """The reply by hand: one prompt, no padding, no cache, the likeliest token each time."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = prompt_ids(AutoTokenizer.from_pretrained(folder), user_turn(instruction))
    start = len(ids)
    with torch.inference_mode():
        for _ in range(N_NEW):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            ids = [*ids, int(logits.argmax())]
    return ids[start:]


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen3"])
def teacher(
    request: pytest.FixtureRequest,
    tiny_model: Callable[..., Path],
    chat_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    instruction_texts: tuple[str, ...],
) -> Path:
    """A teacher with a second end token: one that its first greedy reply has in the middle."""
    made = tiny_model(
        f"teacher-{request.param}",
        architecture=request.param,
        chat_template=chat_template,
        seed=3,
        **({"head_dim": 16} if request.param == "qwen3" else {}),
    )
    folder = tmp_path_factory.mktemp("teacher") / request.param
    shutil.copytree(made, folder)
    free = greedy_ids(folder, instruction_texts[0])
    end = next(token for place, token in enumerate(free) if place >= 3 and token not in free[:3])
    GenerationConfig(eos_token_id=[2, end], pad_token_id=0).save_pretrained(folder)
    return folder


def test_greedy_batches_agree_with_one_by_one(
    teacher: Path, instruction_texts: tuple[str, ...]
) -> None:
    """Text, finish_reason and n_generated, for replies that end and replies that are cut."""
    tokenizer: Any = AutoTokenizer.from_pretrained(teacher)
    ends = GenerationConfig.from_pretrained(teacher).eos_token_id
    wanted = []
    for text in instruction_texts:
        ids = greedy_ids(teacher, text)
        stop = next((place for place, token in enumerate(ids) if token in ends), None)
        said = tokenizer.decode(ids[:stop], skip_special_tokens=True)
        n_prompt = len(prompt_ids(tokenizer, user_turn(text)))
        wanted.append(
            Reply(said, "length", N_NEW, n_prompt)
            if stop is None
            else Reply(said, "stop", stop + 1, n_prompt)
        )
    replies = ask(teacher, instruction_texts)
    assert [replace(reply, logprob=None) for reply in replies] == wanted
    assert wanted[0].finish_reason == "stop" and 4 <= wanted[0].n_generated < N_NEW
    assert "length" in {reply.finish_reason for reply in wanted}
    alone = [reply for text in instruction_texts for reply in ask(teacher, (text,))]
    assert [replace(reply, logprob=None) for reply in alone] == wanted
    for one, other in zip(replies, alone, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_greedy_replies_do_not_depend_on_the_seed(
    chatter: Path, instruction_texts: tuple[str, ...]
) -> None:
    assert ask(chatter, instruction_texts, seed=1) == ask(chatter, instruction_texts, seed=2)


def test_sampling_depends_on_the_seed_alone(
    chatter: Path, instruction_texts: tuple[str, ...]
) -> None:
    first = ask(chatter, instruction_texts, seed=1, temperature=1.0)
    assert ask(chatter, instruction_texts, seed=1, temperature=1.0) == first
    assert ask(chatter, instruction_texts, seed=2, temperature=1.0) != first
    assert ask(chatter, instruction_texts, seed=1, temperature=0.2) != first


def test_a_tiny_top_p_is_greedy(chatter: Path, instruction_texts: tuple[str, ...]) -> None:
    narrow = ask(chatter, instruction_texts, seed=1, temperature=1.0, top_p=1e-6)
    assert narrow == ask(chatter, instruction_texts)


def test_sampling_settings_are_ours_not_the_checkpoint_s(chatter: Path, tmp_path: Path) -> None:
    """A checkpoint that says `top_k: 5` is sampled from its whole vocabulary all the same."""
    folder = tmp_path / "narrow"
    shutil.copytree(chatter, folder)
    GenerationConfig(
        eos_token_id=2, pad_token_id=0, do_sample=True, top_k=5, top_p=0.1, temperature=0.1
    ).save_pretrained(folder)
    question = ("Where is the cat?",)
    replies = ask(folder, question * 256, temperature=1e4, n_new=1)
    assert len({reply.response for reply in replies}) > 50
    assert ask(folder, question, seed=1) == ask(chatter, question, seed=2)


def test_penalties_of_the_checkpoint_change_nothing(
    chatter: Path, tmp_path: Path, instruction_texts: tuple[str, ...]
) -> None:
    folder = tmp_path / "penal"
    shutil.copytree(chatter, folder)
    GenerationConfig(
        eos_token_id=2, pad_token_id=0, repetition_penalty=9.0, no_repeat_ngram_size=1
    ).save_pretrained(folder)
    assert ask(folder, instruction_texts) == ask(chatter, instruction_texts)


DRAWS = 20_000


def draw(
    logits: list[float], decoding: Decoding, steps: int = 1, first: int = 0
) -> tuple[np.ndarray, Choice]:
    """Tokens (DRAWS, steps) of the same logits, a row for each of DRAWS samples of a request."""
    requests = [Request(user_turn("Draw."), decoding, first + n) for n in range(DRAWS)]
    choice = Choice(requests, None, steps, torch.device("cpu"))
    scores = torch.tensor(logits).repeat(DRAWS, 1)
    tokens = [choice(None, scores).argmax(dim=-1).numpy() for _ in range(steps)]
    return np.stack(tokens, axis=1), choice


LOGITS = [2.0, 1.5, 0.0, -0.5, -1.0, -3.0, 1.0, 0.5]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.7, 0.8)])
def test_draws_follow_the_warped_distribution(temperature: float, top_p: float) -> None:
    """Chi-square over 20,000 requests; tokens outside the nucleus never come."""
    tokens, choice = draw(LOGITS, Decoding(temperature, top_p))
    p = torch.tensor(LOGITS, dtype=torch.float64).div(temperature).softmax(-1).numpy()
    order = np.argsort(-p)
    inside = np.zeros(len(p), dtype=bool)
    inside[order[np.cumsum(p[order]) - p[order] < top_p]] = True
    assert inside.all() == (top_p == 1)
    counts = np.bincount(tokens[:, 0], minlength=len(p))
    assert counts[~inside].sum() == 0
    wanted = p[inside] / p[inside].sum() * DRAWS
    tested: Any = chisquare(counts[inside], wanted)
    assert tested.pvalue > 0.001
    raw = torch.tensor(LOGITS).log_softmax(-1)
    assert torch.equal(choice.logprobs[0], raw[torch.from_numpy(tokens[:, 0])])


def test_draws_of_neighbours_and_of_steps_are_independent() -> None:
    """Pairs of requests that differ by one sample, and pairs of tokens of one answer."""
    tokens, _ = draw(LOGITS[:4], Decoding(1.0), steps=3)
    for one, other in (
        (tokens[:-1:2, 0], tokens[1::2, 0]),
        (tokens[:, 0], tokens[:, 1]),
        (tokens[:, 1], tokens[:, 2]),
    ):
        table = np.zeros((4, 4))
        np.add.at(table, (one, other), 1)
        tested: Any = chi2_contingency(table)
        assert tested.pvalue > 0.001


def test_a_sampled_answer_does_not_depend_on_the_batch(
    chatter: Path, instruction_texts: tuple[str, ...]
) -> None:
    decoding = Decoding(0.9, 0.95, N_NEW)
    setting = TransformersTeacher(model=str(chatter), batch_size=256)
    source = open_teacher(setting, Runtime(device="cpu", dtype="float32"))
    requests = [
        Request(user_turn(text), decoding, sample)
        for text in instruction_texts
        for sample in range(3)
    ]
    groups = [requests, requests[::-1], *([request] for request in requests[:4])]
    [together, backwards, *alone] = [replies for _, replies in source.ask(groups)]
    wanted = [replace(reply, logprob=None) for reply in together]
    assert [replace(reply, logprob=None) for reply in backwards[::-1]] == wanted
    assert [replace(reply, logprob=None) for [reply] in alone] == wanted[:4]
    assert len({reply.response for reply in together}) > len(requests) // 2


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_logprob_is_the_sum_over_the_generated_tokens(teacher: Path, temperature: float) -> None:
    """Under the model itself: neither temperature nor top_p moves it."""
    text = "Where is the cat?"
    [reply] = ask(teacher, (text,), seed=4, temperature=temperature, top_p=0.7)
    model: Any = AutoModelForCausalLM.from_pretrained(teacher).eval()
    prompt = prompt_ids(AutoTokenizer.from_pretrained(teacher), user_turn(text))
    request = Request(user_turn(text), Decoding(temperature, 0.7, N_NEW), 0, 4)
    ids, total = list(prompt), 0.0
    choice = Choice([request], None, N_NEW, torch.device("cpu"))
    with torch.inference_mode():
        for _ in range(reply.n_generated):
            logits = model(input_ids=torch.tensor([ids])).logits[:, -1]
            ids.append(int(choice(None, logits).argmax()))
            total += float(logits[0].log_softmax(-1)[ids[-1]])
    assert reply.logprob == pytest.approx(total, abs=1e-4)


def test_labels_are_read_off_the_first_token(chatter: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(chatter).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(chatter)
    source = open_teacher(
        TransformersTeacher(model=str(chatter)), Runtime(device="cpu", dtype="float32")
    )
    requests = [
        Request(user_turn("Where?"), Decoding(max_new_tokens=3), labels=labels)
        for labels in ((), ("A", "B"), ("B",))
    ]
    [(_, replies)] = source.ask([requests])
    ids = prompt_ids(tokenizer, user_turn("Where?"))
    with torch.inference_mode():
        logp = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    [a], [b] = (tokenizer(label)["input_ids"] for label in ("A", "B"))
    assert [reply.label_logprobs for reply in replies] == [
        (),
        pytest.approx((float(logp[a]), float(logp[b])), abs=1e-5),
        pytest.approx((float(logp[b]),), abs=1e-5),
    ]
    with pytest.raises(ModelError, match="a label is not one token"):
        list(source.ask([[Request(user_turn("Where?"), Decoding(), labels=("cat, dog",))]]))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_longer_neighbour_takes_no_room_away(
    architecture: str, tiny_model: Callable[..., Path]
) -> None:
    """Near the model's limit each answer has the room its own prompt leaves, and no more."""
    kv = {} if architecture == "llama" else {"num_key_value_heads": 2}
    folder = tiny_model(f"near-{architecture}", architecture=architecture, seed=8, **kv)
    texts = tuple("the cat is in the house and " * n for n in (15, 14, 14, 1))
    together = ask(folder, texts, n_new=500)
    alone = [reply for text in texts for reply in ask(folder, (text,), n_new=500)]
    lengths = [(reply.finish_reason, reply.n_generated) for reply in together]
    assert lengths == [(reply.finish_reason, reply.n_generated) for reply in alone]
    assert [reply.response for reply in together] == [reply.response for reply in alone]
    cut = [reply for reply in together if reply.finish_reason == "length"]
    assert len({reply.n_generated for reply in cut}) > 1
    assert all(reply.n_generated + (reply.n_prompt or 0) == 128 for reply in cut)


def test_the_length_limit_of_the_model_bounds_the_reply(base: Path) -> None:
    long = "the cat is in the house and " * 14
    width = len(prompt_ids(AutoTokenizer.from_pretrained(base), user_turn(long)))
    assert 100 < width < 128
    [reply] = ask(base, (long,), n_new=500)
    assert (reply.finish_reason, reply.n_generated) == ("length", 128 - width)


def test_an_instruction_too_long_to_answer_is_refused(base: Path) -> None:
    with pytest.raises(ModelError, match="longer than the teacher can read") as caught:
        ask(base, ("blue sky " * 100,))
    assert caught.value.where == str(base)
    assert caught.value.found.endswith("tokens, limit 128")


def test_a_teacher_without_an_end_token_is_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "endless"
    shutil.copytree(base, folder)
    for name, lines in (
        ("tokenizer_config.json", ('"eos_token": "</s>",',)),
        ("config.json", ('"eos_token_id": 2,',)),
        ("generation_config.json", ('"eos_token_id": 2,',)),
    ):
        text = (folder / name).read_text()
        for line in lines:
            assert line in text
            text = text.replace(line, "")
        (folder / name).write_text(text)
    (folder / "model.safetensors").unlink()  # said before a weight is loaded
    with pytest.raises(ModelError, match="the teacher has no end-of-text token"):
        ask(folder, ("Where?",))
