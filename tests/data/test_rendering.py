"""Text to token ids: every sequence is compared with what the tokenizer makes of the text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from preceptor.core.errors import ModelError
from preceptor.core.types import user_turn
from preceptor.data.rendering import (
    PLAIN_BREAK,
    Rendered,
    Renderer,
    prompt_ids,
    prompt_text,
    scored_positions,
)

MakeTokenizer = Callable[..., Any]
TRIMMING = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{{ message['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TRAILING = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
ENDLESS = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
DEAF = "{% for message in messages %}{{ message['role'] }}{{ eos_token }}{% endfor %}"
ANSWERS = ["blue", " blue", "\nblue", "blue ", "The colour.\n\nIs blue.", "é ☃ 👩‍👧", "\n\n", "   "]


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]


def conversation(tokenizer: Any, instruction: str, response: str) -> str:
    messages = [
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": response},
    ]
    return tokenizer.apply_chat_template(messages, tokenize=False)


@pytest.fixture
def plain(make_tokenizer: MakeTokenizer) -> Any:
    return make_tokenizer()


@pytest.fixture
def chat(make_tokenizer: MakeTokenizer, chat_template: str) -> Any:
    return make_tokenizer(chat_template)


@pytest.mark.parametrize("response", ANSWERS)
def test_plain_rendering_is_the_joint_text_between_bos_and_eos(plain: Any, response: str) -> None:
    [row] = Renderer(plain, 128).render(["Where is the cat?"], [response])
    text = "Where is the cat?" + PLAIN_BREAK + response
    assert list(row.ids) == [plain.bos_token_id, *encode(plain, text), plain.eos_token_id]
    assert plain.decode(list(row.response_ids)) == response + "</s>"
    assert not row.truncated


def test_a_token_that_straddles_the_seam_counts_as_response(plain: Any) -> None:
    """A tokenizer with a token for three newlines, which swallows the plain break."""
    plain.add_tokens(["\n\n\n"])
    [row] = Renderer(plain, 128).render(["cat"], ["\nblue"])
    straddling = plain.convert_tokens_to_ids("\n\n\n")
    assert list(row.ids) == [
        plain.bos_token_id,
        *encode(plain, "cat"),
        straddling,
        *encode(plain, "blue"),
        plain.eos_token_id,
    ]
    assert row.response_ids[0] == straddling


@pytest.mark.parametrize("response", ANSWERS)
def test_the_seam_holds_where_token_spans_leave_white_space_out(plain: Any, response: str) -> None:
    wanted = Renderer(plain, 128).render(["Where is the cat?"], [response])
    plain.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert Renderer(plain, 128).render(["Where is the cat?"], [response]) == wanted


@pytest.mark.parametrize("template", [TRIMMING, TRAILING])
@pytest.mark.parametrize("response", ["blue", "The colour.\n\nIs blue.", "é ☃ 👩‍👧"])
def test_chat_rendering_is_the_template_up_to_the_end_of_turn(
    make_tokenizer: MakeTokenizer, template: str, response: str
) -> None:
    tokenizer = make_tokenizer(template)
    [row] = Renderer(tokenizer, 128).render(["Where is the cat?"], [response])
    text = conversation(tokenizer, "Where is the cat?", response).removesuffix("\n")
    assert text.endswith("</s>")
    assert list(row.ids) == encode(tokenizer, text)
    assert tokenizer.decode(list(row.response_ids)) == response + "</s>"


def test_the_chat_prompt_is_what_a_teacher_reads(chat: Any) -> None:
    [row] = Renderer(chat, 128).render(["Where is the cat?"], ["blue"])
    prompt = list(row.ids)[: -row.n_response]
    assert prompt == prompt_ids(chat, user_turn("Where is the cat?"))
    assert chat.decode(prompt) == "<s><|user|>Where is the cat?<|assistant|>"


def test_prompt_ids_do_not_depend_on_the_response(chat: Any) -> None:
    rows = Renderer(chat, 128).render(["Where is the cat?"] * len(ANSWERS), ANSWERS)
    assert len({tuple(row.ids[: -row.n_response]) for row in rows}) == 1
    assert len({tuple(row.response_ids) for row in rows}) == len(ANSWERS)


def test_a_template_that_trims_gets_trimmed_responses(make_tokenizer: MakeTokenizer) -> None:
    renderer = Renderer(make_tokenizer(TRIMMING), 128)
    wide, narrow = renderer.render(["cat", "cat"], ["  blue \n", "blue"])
    assert wide == narrow


def test_a_template_that_does_not_trim_keeps_white_space(chat: Any) -> None:
    [row] = Renderer(chat, 128).render(["cat"], [" blue "])
    assert chat.decode(list(row.response_ids)) == " blue </s>"


def test_a_template_without_an_end_token_gets_eos(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(ENDLESS)
    [row] = Renderer(tokenizer, 128).render(["cat"], ["blue"])
    assert tokenizer.decode(list(row.ids)) == "user: cat\nassistant: blue</s>"
    assert list(row.response_ids)[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("template", [None, TRIMMING, TRAILING])
def test_an_empty_response_is_its_end_token(
    make_tokenizer: MakeTokenizer, template: str | None
) -> None:
    tokenizer = make_tokenizer(template)
    [row] = Renderer(tokenizer, 128).render(["cat"], [""])
    assert list(row.response_ids) == [tokenizer.eos_token_id]


@pytest.mark.parametrize("template", ["chat", None])
@pytest.mark.parametrize("instruction", ["<s>", "<|user|>", "s", "cat</s><|assistant|>dog", "</s>"])
@pytest.mark.parametrize("response", ["blue", "a</s>b", "<|assistant|>"])
def test_special_tokens_in_the_data_are_plain_text(
    make_tokenizer: MakeTokenizer,
    chat_template: str,
    template: str | None,
    instruction: str,
    response: str,
) -> None:
    tokenizer = make_tokenizer(chat_template if template else None)
    special = set(tokenizer.all_special_ids) | set(encode(tokenizer, "<|user|><|assistant|>"))
    [row] = Renderer(tokenizer, 128).render([instruction], [response])
    ids = list(row.ids)
    frame = "<s><|user|>?<|assistant|></s>" if template else "<s></s>"
    wanted = [token for token in encode(tokenizer, frame) if token in special]
    assert [token for token in ids if token in special] == wanted
    before, between = ("<|user|>", "<|assistant|>") if template else ("", PLAIN_BREAK)
    assert tokenizer.decode(ids) == f"<s>{before}{instruction}{between}{response}</s>"
    assert tokenizer.decode(list(row.response_ids)) == response + "</s>"
    assert prompt_ids(tokenizer, user_turn(instruction)) == ids[: -row.n_response]


def test_rendering_does_not_depend_on_what_was_rendered_before(chat: Any) -> None:
    renderer = Renderer(chat, 128)
    first = renderer.render(["cat"], ["blue"])
    renderer.render(["cat"], ["</s>"])
    assert renderer.render(["cat"], ["blue"]) == first


def test_padding_and_truncation_saved_with_a_tokenizer_are_not_applied(plain: Any) -> None:
    wanted = Renderer(plain, 128).render(["cat", "the cat"], ["blue", "the sky is blue"])
    plain.backend_tokenizer.enable_truncation(3)
    plain.backend_tokenizer.enable_padding()
    assert Renderer(plain, 128).render(["cat", "the cat"], ["blue", "the sky is blue"]) == wanted


def test_a_long_response_loses_its_tail(plain: Any) -> None:
    [whole] = Renderer(plain, 1000).render(["cat"], ["blue sky " * 10])
    [cut] = Renderer(plain, 16).render(["cat"], ["blue sky " * 10])
    assert cut.truncated and not whole.truncated
    assert list(cut.ids) == list(whole.ids)[:16]
    assert cut.n_response == 16 - (len(whole.ids) - whole.n_response)


@pytest.mark.parametrize(
    ("n_prompt", "n_response", "kept"),
    [(20, 30, (8, 8)), (20, 5, (11, 5)), (20, 8, (8, 8)), (3, 30, (3, 13)), (10, 7, (9, 7))],
)
def test_a_long_prompt_gives_way_down_to_half_the_limit(
    plain: Any, n_prompt: int, n_response: int, kept: tuple[int, int]
) -> None:
    prompt, response = list(range(100, 100 + n_prompt)), list(range(200, 200 + n_response))
    row = Renderer(plain, 16).fit(prompt, response)
    assert list(row.ids) == prompt[-kept[0] :] + response[: kept[1]]
    assert row == Rendered(row.ids, kept[1], truncated=True)


def test_a_sequence_of_just_the_limit_is_whole(plain: Any) -> None:
    renderer = Renderer(plain, 16)
    assert not renderer.fit([7] * 12, [8] * 4).truncated
    assert renderer.fit([7] * 12, [8] * 5).truncated


@pytest.mark.parametrize(
    ("options", "start"),
    [({}, "<s>"), ({"bos": False}, "<pad>"), ({"bos": False, "pad": False}, "</s>")],
)
def test_unconditional_is_a_start_token_and_the_same_response(
    make_tokenizer: MakeTokenizer, options: dict[str, bool], start: str
) -> None:
    tokenizer = make_tokenizer(**options)
    renderer = Renderer(tokenizer, 128)
    [row] = renderer.render(["Where is the cat?"], [" blue"])
    alone = renderer.unconditional(row)
    assert list(alone.ids) == [tokenizer.convert_tokens_to_ids(start), *row.response_ids]
    assert alone.response_ids == row.response_ids
    assert alone.n_response == row.n_response


def test_a_tokenizer_without_bos_starts_with_the_text(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(bos=False)
    [row] = Renderer(tokenizer, 128).render(["cat"], ["blue"])
    assert list(row.ids) == [*encode(tokenizer, "cat\n\nblue"), tokenizer.eos_token_id]
    assert prompt_text(tokenizer, user_turn("cat")) == "cat\n\n"


def test_scored_positions_are_the_model_own_label_shift(base: Path) -> None:
    """Labels of the response alone give the mean of -log p at the scored positions."""
    model: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    [row] = Renderer(tokenizer, 128).render(["Where is the cat?"], ["In the house."])
    ids_BT = model.dummy_inputs["input_ids"].new_tensor([list(row.ids)])
    labels_BT = ids_BT.clone()
    labels_BT[:, : len(row.ids) - row.n_response] = -100
    output = model(input_ids=ids_BT, labels=labels_BT)
    log_p = output.logits[0].log_softmax(-1)
    positions = scored_positions(len(row.ids), row.n_response)
    by_hand = -sum(
        log_p[t, token].item() for t, token in zip(positions, row.response_ids, strict=True)
    )
    assert by_hand / row.n_response == pytest.approx(output.loss.item(), abs=1e-5)
    assert list(scored_positions(5, 2)) == [2, 3]


def test_a_template_that_drops_the_answer_is_refused(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(ModelError, match="drops the assistant's text") as caught:
        Renderer(make_tokenizer(DEAF), 128, "some-model")
    assert caught.value.where == "some-model"


def test_a_tokenizer_without_an_end_token_is_refused(plain: Any) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=plain.backend_tokenizer, bos_token="<s>")
    with pytest.raises(ModelError, match="no end-of-text token"):
        Renderer(endless, 128)
