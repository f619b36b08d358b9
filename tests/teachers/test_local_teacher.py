"""Local teachers: a batch of greedy replies is what each prompt gives alone, without padding."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from preceptor.core.errors import ModelError
from preceptor.core.types import Decoding, Reply, Request, Runtime, user_turn
from preceptor.data.rendering import prompt_ids
from preceptor.recipes.shared_settings import TransformersTeacher
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
    assert ask(teacher, instruction_texts) == wanted
    assert wanted[0].finish_reason == "stop" and 4 <= wanted[0].n_generated < N_NEW
    assert "length" in {reply.finish_reason for reply in wanted}
    assert [reply for text in instruction_texts for reply in ask(teacher, (text,))] == wanted


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
    with pytest.raises(ModelError, match="the teacher has no end-of-text token"):
        ask(folder, ("Where?",))
