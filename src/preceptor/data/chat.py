"""Conversations as OpenAI-compatible servers read them, and replies as they write them.

Source: the Chat Completions API, https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preceptor.core.types import Reply, Request

ALTERNATIVES = 20  # of a token, with their log-probabilities: the most that the API gives
OURS = frozenset({"messages", "model", "n", "stream"})  # fields that `options` may not set
LIMITS = ("max_completion_tokens", "max_tokens")
_FINISHED = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
}
_BYTES = 4  # bytes of a token, where nothing better is known


class UnreadableReplyError(ValueError):
    """What a server sent is no chat completion."""


def chat_body(
    request: Request, model: str, system: str, limit: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of a request.

    Greedy requests say temperature 0 alone; the others say `temperature`, `top_p` and the seed of
    this answer. Log-probabilities are asked for where the request has labels.

    Args:
        request: what is asked.
        model: the model's name at the server.
        system: message before the conversation; none when empty.
        limit: which of LIMITS the server reads; not sent where `options` has one of them.
        options: fields merged last; one that is None is left out of the body.
    """
    turns = [("system", system)] if system else []
    messages = [{"role": role, "content": text} for role, text in (*turns, *request.messages)]
    decoding = request.decoding
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "temperature": decoding.temperature,
    }
    if not decoding.greedy:
        body |= {"top_p": decoding.top_p, "seed": request.seed}
    if request.labels:
        body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
    if not any(name in options for name in LIMITS):
        body[limit] = decoding.max_new_tokens
    return {name: value for name, value in {**body, **options}.items() if value is not None}


def estimated_tokens(texts: Sequence[str]) -> int:
    """Tokens of some texts, about: four bytes of UTF-8 each, and four for the turn."""
    return sum(len(text.encode("utf-8", "replace")) // _BYTES + 4 for text in texts)


def read_reply(payload: Any, request: Request) -> tuple[Reply, bool]:
    """The first choice of a chat completion.

    Finish reasons: `length` where the limit was reached, `content_filter` where the server
    withheld text or the model refused in the API's own field, `stop` for everything else. A reply
    without text is one only if the limit or a filter explains it (a model that was still
    reasoning, say).

    Returns:
        The reply, and whether the server said how many tokens there were. Where it did not,
        `n_prompt` is None, or `n_generated` is counted from log-probabilities or estimated.

    Raises:
        UnreadableReplyError: no choices, no text, an error in the place of a completion.
    """
    choice = _first_choice(payload)
    message = _mapping(choice.get("message"))
    reason = _FINISHED.get(str(choice.get("finish_reason")), "stop")
    text = message.get("content")
    if not isinstance(text, str):
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal:
            text, reason = refusal, "content_filter"
        elif reason == "stop":
            found = _short(choice.get("finish_reason"))
            raise UnreadableReplyError(f"no text in the reply; finish reason {found}")
        else:
            text = ""
    tokens = _tokens(choice)
    usage = _mapping(payload.get("usage"))
    n_prompt, n_generated = (
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )
    counted = n_prompt is not None and n_generated is not None
    if n_generated is None:
        n_generated = len(tokens) or max(len(text.encode("utf-8", "replace")) // _BYTES, 1)
    reply = Reply(
        text,
        reason,
        n_generated,
        n_prompt,
        _sum_of(tokens),
        _label_logprobs(tokens, request.labels),
    )
    return reply, counted


def _first_choice(payload: Any) -> Mapping[str, Any]:
    if not isinstance(payload, Mapping):
        raise UnreadableReplyError(f"no JSON object but a {type(payload).__name__}")
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        said = payload.get("error") or payload.get("message") or sorted(payload)
        raise UnreadableReplyError(f"no choices in the reply: {_short(said)}")
    return choices[0]


def _tokens(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The generated tokens with their log-probabilities; empty where the server gave none."""
    content = _mapping(choice.get("logprobs")).get("content")
    if not isinstance(content, list):
        return []
    return [token for token in content if isinstance(_mapping(token).get("logprob"), int | float)]


def _sum_of(tokens: Sequence[Mapping[str, Any]]) -> float | None:
    return sum(float(token["logprob"]) for token in tokens) if tokens else None


def _label_logprobs(
    tokens: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> tuple[float | None, ...]:
    """Log-probability of each label as the first token; None where it is not listed.

    A label that is listed only with white space around it counts as that token.
    """
    if not labels:
        return ()
    listed: dict[str, float] = {}
    for first in tokens[:1]:
        others = first.get("top_logprobs")
        for token in [first, *(others if isinstance(others, list) else [])]:
            text, logprob = _mapping(token).get("token"), _mapping(token).get("logprob")
            if isinstance(text, str) and isinstance(logprob, int | float):
                listed[text] = float(logprob)
    bare: dict[str, float] = {}
    for text, logprob in listed.items():
        bare[text.strip()] = max(logprob, bare.get(text.strip(), logprob))
    return tuple(listed.get(label, bare.get(label)) for label in labels)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
