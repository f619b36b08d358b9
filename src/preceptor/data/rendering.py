"""Text to token ids: the one place that renders conversations and marks response tokens.

A sequence is T token ids whose last R belong to the response (its end token included). Logits at
position t predict token t + 1, so positions T - R - 1 .. T - 2 are scored against the last R
tokens; `scored_positions` and, for labelled batches, `scored_rows` make this shift, and nothing
else does (but the program that trains the lab's checkpoints, which imports no room).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2.exceptions import TemplateError

from preceptor.core.errors import ModelError

PLAIN_BREAK = "\n\n"  # between instruction and response where there is no chat template
_PROBE, _ASKED = "preceptor probe 7319", "preceptor question 2906"


@dataclass(frozen=True)
class Rendered:
    """Token ids of prompt and response; the last `n_response` are scored.

    `truncated`: the model's limit cut some of the response (or of a very long prompt) away.
    """

    ids: array[int]
    n_response: int
    truncated: bool = False

    @property
    def response_ids(self) -> array[int]:
        return self.ids[len(self.ids) - self.n_response :]


def scored_positions(n_tokens: int, n_response: int) -> range:
    """Positions whose logits predict the response tokens of a sequence of `n_tokens`."""
    return range(n_tokens - n_response - 1, n_tokens - 1)


def scored_rows(labels_BT: Any) -> tuple[Any, Any]:
    """The same shift for a labelled batch (labels as long as the ids, -100 where not scored).

    Args:
        labels_BT: a tensor of token ids and -100.

    Returns:
        rows_N: rising flat positions b * T + t whose logits predict a response token, and
        targets_N: those tokens (the labels at t + 1).
    """
    next_BT = labels_BT[:, 1:]
    place_N2 = (next_BT != -100).nonzero()
    rows_N = place_N2[:, 0] * labels_BT.shape[1] + place_N2[:, 1]
    return rows_N, next_BT[place_N2[:, 0], place_N2[:, 1]]


Messages = Sequence[tuple[str, str]]  # (role, content), in order


def prompt_text(tokenizer: Any, messages: Messages) -> str:
    """What a model reads before it answers: its chat template's prompt, or the plain rendering.

    Plain: BOS, then every message followed by two newlines.

    Raises:
        ModelError: the template refuses the conversation (a role it does not know, say).
    """
    if not tokenizer.chat_template:
        return f"{tokenizer.bos_token or ''}" + "".join(text + PLAIN_BREAK for _, text in messages)
    turns = [{"role": role, "content": text} for role, text in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (ValueError, TypeError, TemplateError) as error:
        raise ModelError(
            "the chat template refuses the conversation",
            where=str(tokenizer.name_or_path),
            found=f"roles {', '.join(role for role, _ in messages)}; {error}",
            next_step="leave out the system message, or use a model whose template takes it",
        ) from error
    return str(text)


def prompt_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of `prompt_text`; special tokens that stand in the messages are plain text."""
    text = prompt_text(tokenizer, messages)
    if not any(_holds_special(tokenizer, content) for _, content in messages):
        return _encode(tokenizer, text)
    marks = [f"{_ASKED}{place}." for place in range(len(messages))]
    frame = prompt_text(
        tokenizer, [(role, mark) for (role, _), mark in zip(messages, marks, strict=True)]
    )
    return _encode_framed(tokenizer, text, frame, marks)


def _encode(tokenizer: Any, text: str, as_data: bool = False) -> list[int]:
    """Token ids of a text, BOS and EOS not added; `as_data`: its special tokens are plain text."""
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=as_data)
    return list(encoded["input_ids"])


def _encode_framed(tokenizer: Any, text: str, frame: str, marks: Sequence[str]) -> list[int]:
    """Token ids of `text`, which is `frame` with data in the place of the marks."""
    pieces = re.split("|".join(map(re.escape, marks)), frame)
    match = re.fullmatch("(.*)".join(map(re.escape, pieces)), text, flags=re.DOTALL)
    if match is None or len(pieces) != len(marks) + 1:
        return _encode(tokenizer, text)  # a template that bends to what it is given
    ids = _encode(tokenizer, pieces[0])
    for data, after in zip(match.groups(), pieces[1:], strict=True):
        ids += _encode(tokenizer, data, as_data=True) + _encode(tokenizer, after)
    return ids


def _holds_special(tokenizer: Any, text: str) -> bool:
    return any(special in text for special in _specials(tokenizer))


def _specials(tokenizer: Any) -> dict[str, int]:
    return {str(t): i for i, t in tokenizer.added_tokens_decoder.items() if t.special}


class Renderer:
    """Renders instruction and response for one model.

    With a chat template: the template's text of the one-turn conversation, up to the first
    special token after the response (the end of turn). Without one: BOS + instruction + two
    newlines + response + EOS. Prompt and response are tokenised as one text, as the model met
    text in training; a token that straddles the seam counts as response.

    Special tokens that stand in an instruction or a response are data: they are encoded as text.

    Args:
        tokenizer: the model's tokenizer.
        limit: longest sequence in tokens; longer ones are cut as `fit` says.

    Raises:
        ModelError: the tokenizer has no end token, or its template drops the assistant's text.
    """

    def __init__(self, tokenizer: Any, limit: int, name: str = "") -> None:
        self.tokenizer, self.limit, self.name = tokenizer, limit, name
        self._specials = _specials(tokenizer)
        special_ids = set(self._specials.values())
        self._has_template = bool(tokenizer.chat_template)
        self._trims = False
        if self._has_template:
            self._trims = f" {_PROBE} " not in self._conversation("x", f" {_PROBE} ")
            suffix = self._conversation("x", _PROBE).rpartition(_PROBE)[2]
            ids = _encode(tokenizer, suffix)
            ends = [place for place, token in enumerate(ids) if token in special_ids]
            self._end = ids[: ends[0] + 1] if ends else self._eos()
        else:
            self._end = self._eos()

    def _eos(self) -> list[int]:
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-text token",
                where=self.name,
                next_step="set eos_token in its tokenizer_config.json",
            )
        return [int(self.tokenizer.eos_token_id)]

    def _conversation(self, instruction: str, response: str) -> str:
        messages = [
            {"role": "user", "content": instruction},
            {"role": "assistant", "content": response},
        ]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        if response.strip() not in text:
            raise ModelError(
                "the chat template drops the assistant's text",
                where=self.name,
                next_step="mend the template, or remove it to use the plain rendering",
            )
        return str(text)

    @lru_cache(maxsize=4096)  # noqa: B019 - a renderer lives as long as its run
    def prompt(self, instruction: str) -> str:
        """The text before the response."""
        if self._has_template:
            return self._conversation(instruction, _PROBE).rpartition(_PROBE)[0]
        return instruction + PLAIN_BREAK

    def render(self, instructions: Sequence[str], responses: Sequence[str]) -> list[Rendered]:
        """Sequences for conditional scoring, one for each pair."""
        if self._trims:
            responses = [response.strip() for response in responses]
        prompts = [self.prompt(instruction) for instruction in instructions]
        split = self._split_ids(prompts, instructions, responses)
        start = [] if self._has_template else self._begin()
        return [self.fit([*start, *head], [*tail, *self._end]) for head, tail in split]

    def unconditional(self, rendered: Rendered) -> Rendered:
        """The same response tokens after a bare start token: no instruction, no template.

        The start is BOS; where there is none, the padding token (which such tokenizers use as
        their document separator), else EOS.
        """
        start = self._begin() or [self._separator()]
        return Rendered(
            array("i", start) + rendered.response_ids, rendered.n_response, rendered.truncated
        )

    def questions(self, instructions: Sequence[str]) -> list[Rendered]:
        """The instructions alone after a bare start token, to be scored themselves.

        An empty one stands as its end token.
        """
        start = self._begin() or [self._separator()]
        encoded = [_encode(self.tokenizer, text, as_data=True) for text in instructions]
        return [self.fit(start, ids or self._eos()) for ids in encoded]

    def windows(self, rendered: Rendered, starts: Sequence[int], share: float) -> list[Rendered]:
        """Each step of a response after a few of the steps before it, to be scored by itself.

        The question counts as the step before the first one: a window that reaches back to it holds
        it; others begin with a bare start token.

        Args:
            starts: where in the response each step begins; the first one is 0.
            share: of the steps (their number rounded, at least one), how many a window holds.
        """
        response, n = rendered.response_ids, len(starts)
        prompt = rendered.ids[: len(rendered.ids) - rendered.n_response]
        start = array("i", self._begin() or [self._separator()])
        ends = [*starts[1:], len(response)]
        width = max(1, round(share * n))
        found = []
        for step, (low, high) in enumerate(zip(starts, ends, strict=True)):
            first = step - width
            before = prompt + response[:low] if first < 0 else start + response[starts[first] : low]
            found.append(Rendered(before + response[low:high], high - low))
        return found

    def fit(self, prompt: list[int], response: list[int]) -> Rendered:
        """Cut to the limit: the prompt keeps its end, the response its beginning.

        The prompt gives way to the response down to half the limit; only then is the response cut.
        """
        if len(prompt) + len(response) <= self.limit:
            return Rendered(array("i", prompt + response), len(response))
        prompt = prompt[-max(self.limit // 2, self.limit - len(response), 1) :]
        kept = response[: self.limit - len(prompt)]
        return Rendered(array("i", prompt + kept), len(kept), truncated=True)

    def _begin(self) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return [] if bos is None else [int(bos)]

    def _separator(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self._eos()[0]

    def _split_ids(
        self, prompts: list[str], instructions: Sequence[str], responses: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """(prompt ids, response ids) of each pair, from one tokenisation of the joint text."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return [self._split_slow(p, r) for p, r in zip(prompts, responses, strict=True)]
        joint = [p + r for p, r in zip(prompts, responses, strict=True)]
        # a backend keeps what its file or its last call has set
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        encoded = backend.encode_batch(joint, add_special_tokens=False)
        result = []
        for prompt, instruction, response, encoding in zip(
            prompts, instructions, responses, encoded, strict=True
        ):
            if any(special in instruction or special in response for special in self._specials):
                result.append(self._split_as_data(prompt, response))
                continue
            seam = encoding.char_to_token(len(prompt)) if response else len(encoding.ids)
            if seam is None:  # the response begins with white space that no token's span covers
                ends = (end for _, end in encoding.offsets)
                later = (place for place, end in enumerate(ends) if end > len(prompt))
                seam = next(later, len(encoding.ids))
            result.append((encoding.ids[:seam], encoding.ids[seam:]))
        return result

    def _split_slow(self, prompt: str, response: str) -> tuple[list[int], list[int]]:
        whole = _encode(self.tokenizer, prompt + response)
        seam = len(_encode(self.tokenizer, prompt))
        return whole[:seam], whole[seam:]

    def _split_as_data(self, prompt: str, response: str) -> tuple[list[int], list[int]]:
        """Tokenise the pieces apart, so that special tokens in the data stay plain text."""
        head = _encode_framed(self.tokenizer, prompt, self.prompt(_ASKED), [_ASKED])
        return head, _encode(self.tokenizer, response, as_data=True)
