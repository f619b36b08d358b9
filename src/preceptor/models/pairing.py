"""Which parts of a student and a teacher can be compared, decided before a weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PretrainedConfig

from preceptor.core.errors import ModelError, nearest
from preceptor.models.capture import refuse_uncapturable
from preceptor.models.load import Card

LayerSpec = str | Sequence[Any]
_SPECS = ("one_to_one", "uniform", "last_k:K")

# what normalisers and pre-tokenizers treat differently: case, spaces, digits, scripts, composition
_PROBES = (
    "The cat isn't in the house, it's in the GARDEN.",
    " leading, trailing and  double   spaces ",
    "tabs\tand\nlines\n\n\r\n    indented",
    "1234567890 3.14159 1,000,000 0x1F 50% $20",
    'def f(x_1: int) -> str:\n    return f"{x_1}" # {}[]()<>|\\/~^`@&*+=',
    "café cafe\u0301 naïve Ångström straße ﬁne ½ ① ＡＢ",
    "你好世界 こんにちは 안녕 Привет مرحبا שלום",
    "😀👨\u200d👩\u200d👧 – — “quoted” … €",
    "non\u00a0breaking\u200bzero\ufeffmark\u2028line \x07bell",
)
_VOCABULARY_PROBES = 2000


def layer_pairs(spec: LayerSpec, n_student: int, n_teacher: int) -> tuple[tuple[int, int], ...]:
    """Pairs (student layer, teacher layer), numbered from 0, in the order of the student's layers.

    Args:
        spec: `one_to_one` for equal depth; `uniform`, where student layer s looks at teacher layer
            round((s + 1) n_teacher / n_student) - 1, halves rounded up, at least 0; `last_k:K` or
            ("last", K), the last K layers of both in order; or a list of (student, teacher), where
            negative numbers count from the end and a student layer stands once.

    Raises:
        ModelError: unequal depth for `one_to_one`, an unknown name, or layers that are not there.
    """
    where = f"a student of {n_student} and a teacher of {n_teacher} layers"
    if spec == "one_to_one":
        if n_student != n_teacher:
            raise ModelError(
                "layers cannot be paired one to one",
                where=where,
                next_step="pair them with uniform, last_k:K or a list of (student, teacher)",
            )
        return tuple((layer, layer) for layer in range(n_student))
    if spec == "uniform":
        nearest_layer = [
            (2 * (s + 1) * n_teacher + n_student) // (2 * n_student) - 1 for s in range(n_student)
        ]
        return tuple((s, max(0, layer)) for s, layer in enumerate(nearest_layer))
    if isinstance(spec, str) or (len(spec) == 2 and spec[0] == "last"):
        return _last(spec, n_student, n_teacher, where)
    return _explicit(spec, n_student, n_teacher, where)


def _last(
    spec: LayerSpec, n_student: int, n_teacher: int, where: str
) -> tuple[tuple[int, int], ...]:
    name, _, count = spec.partition(":") if isinstance(spec, str) else ("last_k", "", str(spec[1]))
    if name != "last_k" or not count.isdecimal():
        raise ModelError(
            "the layer pairing is not known",
            where=where,
            found=str(spec),
            next_step=f"{nearest(str(spec), _SPECS)}; or give a list of (student, teacher)",
        )
    k = int(count)
    if not 1 <= k <= min(n_student, n_teacher):
        raise ModelError(
            "the last layers cannot be paired",
            where=where,
            found=f"the last {k}",
            next_step=f"ask for 1 to {min(n_student, n_teacher)} layers",
        )
    return tuple((n_student - k + i, n_teacher - k + i) for i in range(k))


def _explicit(
    spec: Sequence[Any], n_student: int, n_teacher: int, where: str
) -> tuple[tuple[int, int], ...]:
    pairs: dict[int, int] = {}
    for entry in spec:
        student, teacher = _pair(entry, where)
        s, t = (
            n + layer if layer < 0 else layer
            for layer, n in ((student, n_student), (teacher, n_teacher))
        )
        if not (0 <= s < n_student and 0 <= t < n_teacher):
            raise ModelError(
                "a pair names a layer that is not there",
                where=where,
                found=f"({student}, {teacher})",
                next_step=f"student layers are 0 to {n_student - 1}, "
                f"teacher layers 0 to {n_teacher - 1}, or negative from the end",
            )
        if s in pairs:
            raise ModelError(
                "a student layer is paired twice",
                where=where,
                found=f"student layer {s} with teacher layers {pairs[s]} and {t}",
                next_step="pair each student layer once",
            )
        pairs[s] = t
    if not pairs:
        raise ModelError(
            "no layers are paired", where=where, next_step="name at least one (student, teacher)"
        )
    return tuple(sorted(pairs.items()))


def _pair(entry: Any, where: str) -> tuple[int, int]:
    numbers = list(entry) if isinstance(entry, Sequence) and not isinstance(entry, str) else []
    if len(numbers) != 2 or not all(type(number) is int for number in numbers):
        raise ModelError(
            "a layer pair is not (student, teacher)",
            where=where,
            found=repr(entry),
            next_step="give two layer numbers, such as (0, 1)",
        )
    return numbers[0], numbers[1]


def check_heads(n_student: int, n_teacher: int) -> None:
    """Head counts can be compared where one divides the other: heads are then averaged in groups.

    Raises:
        ModelError: neither count divides the other.
    """
    if max(n_student, n_teacher) % min(n_student, n_teacher):
        raise ModelError(
            "attention heads cannot be paired: neither head count divides the other",
            where="attention loss",
            found=f"{n_student} heads of the student, {n_teacher} of the teacher",
            next_step="leave the attention loss out, or choose a teacher of another head count",
        )


def check_attention_pair(
    student: PretrainedConfig, teacher: PretrainedConfig, spec: LayerSpec
) -> tuple[tuple[int, int], ...]:
    """The layer pairs whose attention maps can be compared, from configs alone.

    Raises:
        ModelError: an attention that cannot be captured, or layers or heads that do not pair.
    """
    texts = [config.get_text_config() for config in (student, teacher)]
    for text in texts:
        refuse_uncapturable(text)
    pairs = layer_pairs(spec, *(int(text.num_hidden_layers) for text in texts))
    check_heads(*(int(text.num_attention_heads) for text in texts))
    return pairs


def compare_tokenizers(student: Card, teacher: Card) -> int:
    """The number V of leading token ids that mean the same to both: logits [0, V) are compared.

    Tokenizers are the same if every id has the same text, merges or scores agree, and a battery of
    texts, and the texts of up to 2000 tokens, become the same ids. Settings that change none of
    this are let pass; so are other tokens for start, end and padding. One of them may know further
    added tokens if their ids lie beyond all of the other's; `extra_tokens` names them. V is the
    smaller of the configs' vocabularies, which are often padded beyond the tokenizer.

    Raises:
        ModelError: different tokenizers, or a student's token without a row in the teacher's
            embedding, which would end training in the middle of a batch.
    """
    where = f"student {student.reference}, teacher {teacher.reference}"
    ids_student, ids_teacher = _by_id(student), _by_id(teacher)
    known, n_shared = ids_teacher | ids_student, min(max(ids_student), max(ids_teacher)) + 1
    added = student.tokenizer.get_added_vocab() | teacher.tokenizer.get_added_vocab()

    def same(i: int) -> bool:
        return ids_student.get(i) == ids_teacher.get(i) if i < n_shared else known[i] in added

    if different := [i for i in sorted(known) if not same(i)]:
        raise _different(where, _name_tokens(different, ids_student, ids_teacher))
    if max(ids_student) >= teacher.vocabulary:
        strangers = sorted(i for i in ids_student if i >= teacher.vocabulary)
        raise ModelError(
            "the student's tokenizer has tokens that the teacher has no embedding for",
            where=where,
            found=_name_tokens(strangers, ids_student, ids_teacher),
            next_step="remove the added tokens; use a known one for padding",
        )
    ranks = _ranks(student), _ranks(teacher)
    if ranks[0] and ranks[1] and ranks[0] != ranks[1]:
        raise _different(where, "the same tokens, but other merges or scores")
    shared = [token for i, token in sorted(ids_student.items()) if i < n_shared]
    _compare_encodings(student, teacher, where, shared)
    return min(student.vocabulary, teacher.vocabulary)


def extra_tokens(student: Card, teacher: Card) -> str | None:
    """A warning that names tokens which only one of two same tokenizers knows, or None."""
    ids = {"student": _by_id(student), "teacher": _by_id(teacher)}
    for name, other in (("student", "teacher"), ("teacher", "student")):
        extra = [ids[name][i] for i in sorted(ids[name]) if i > max(ids[other])]
        if extra:
            shown = ", ".join(repr(token) for token in extra[:3])
            more = f" and {len(extra) - 3} more" if len(extra) > 3 else ""
            return f"only the {name}'s tokenizer knows {shown}{more}"
    return None


def chat_templates_differ(student: Card, teacher: Card) -> str | None:
    """A warning where one question and its answer become different ids in both, or None.

    The teacher reads the student's rendering; one it was not trained on makes it a worse teacher.
    """
    rendered = [_render(card) for card in (student, teacher)]
    if rendered[0] == rendered[1]:
        return None
    shown = [
        f"{words} of {card.reference}"
        for words, card in zip(("student", "teacher"), (student, teacher), strict=True)
    ]
    for ids, name in zip(rendered, shown, strict=True):
        if ids is None:
            return f"the {name} has no chat template that can be used; the other one has"
    return f"the {shown[0]} and the {shown[1]} render chats differently"


def _render(card: Card) -> list[int] | None:
    messages = [
        {"role": "user", "content": "Name the colour of the sky."},
        {"role": "assistant", "content": "Blue."},
    ]
    if not card.tokenizer.chat_template:
        return None
    try:
        text = card.tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, ValueError, KeyError, TypeError):
        return None
    return list(card.tokenizer(text, add_special_tokens=False)["input_ids"])


def _by_id(card: Card) -> dict[int, str]:
    return {token_id: token for token, token_id in card.tokenizer.get_vocab().items()}


def _backend(card: Card) -> dict[str, Any]:
    """The tokenizer as the `tokenizers` library writes it; empty where it does not run on that."""
    backend = getattr(card.tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str()) if backend is not None else {}


def _ranks(card: Card) -> Any:
    """What decides between splits of a text: merges in order, or the scores of pieces."""
    model = _backend(card).get("model") or {}
    return model.get("merges") or (model.get("vocab") if model.get("type") == "Unigram" else None)


def _compare_encodings(student: Card, teacher: Card, where: str, tokens: list[str]) -> None:
    step = max(1, len(tokens) // _VOCABULARY_PROBES)
    words = [student.tokenizer.convert_tokens_to_string([token]) for token in tokens[::step]]
    special = {*student.tokenizer.all_special_tokens, *teacher.tokenizer.all_special_tokens}
    texts = [*_PROBES, *(word for word in words if word and word not in special)]
    ids_student, ids_teacher = (
        card.tokenizer(texts, add_special_tokens=False)["input_ids"] for card in (student, teacher)
    )
    for text, left, right in zip(texts, ids_student, ids_teacher, strict=True):
        if left != right:
            backends = _backend(student), _backend(teacher)
            parts = [
                part
                for part in ("normalizer", "pre_tokenizer", "model", "added_tokens")
                if backends[0].get(part) != backends[1].get(part)
            ]
            found = f"{text!r} becomes {left[:8]} and {right[:8]}"
            raise _different(where, found + (f"; they differ in {', '.join(parts)}" * bool(parts)))


def _name_tokens(ids: Sequence[int], student: dict[int, str], teacher: dict[int, str]) -> str:
    shown = [
        f"id {i} is {student.get(i)!r} to the student and {teacher.get(i)!r} to the teacher"
        for i in ids[:3]
    ]
    return "; ".join(shown) + (f"; and {len(ids) - 3} more" if len(ids) > 3 else "")


def _different(where: str, found: str) -> ModelError:
    return ModelError(
        "student and teacher have different tokenizers, so their logits cannot be compared",
        where=where,
        found=found,
        next_step="choose a teacher that shares the student's tokenizer, or train on its texts",
    )
