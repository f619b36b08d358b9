"""What asking a teacher takes: prompts, answers the store holds, tokens still to generate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pyarrow.compute
import torch

from preceptor.core.errors import ModelError, PreceptorError
from preceptor.core.types import Decoding, Request, Runtime, TeacherSource
from preceptor.data.answer_shards import read_answers
from preceptor.data.answer_store import AnswerStore, part_name
from preceptor.data.rendering import prompt_ids
from preceptor.models import size as sizes
from preceptor.models.load import Card, open_card, pick_device, pick_dtype
from preceptor.models.size import Size
from preceptor.recipes.planning.distant import Named, billions_of, named_size
from preceptor.recipes.planning.draft import (
    BOUND,
    EXACT,
    SAMPLED,
    STORED,
    Draft,
    Need,
    Refusal,
    Stage,
    Verdict,
    halves,
)
from preceptor.recipes.settings.shared import Teacher, model_location, teacher_name

pc: Any = pyarrow.compute  # its functions are made at import and have no stubs
SAMPLE = 2000  # requests whose prompts are rendered; all, where there are no more
LONGEST = 100  # further ones: the longest by characters
MANY = 64  # answers of which the longest is taken for the longest of all
FEW = 500  # answers to other requests that are read for their texts
CHARACTERS = 4.0  # of a token, where a teacher's tokenizer is not known
ROW_BYTES = 700  # of a stored answer beside its texts, before compression


@dataclass(frozen=True)
class Asked:
    """What is known, before it is asked, of what a teacher will have answered.

    Attributes:
        instructions: text of a sample of the requests.
        responses: their answers where they are known, else None.
        n: requests in all.
        others: answers of this teacher to other requests.
        generated: mean tokens of an answer that is not known yet.
        bound: whether that is only an upper bound.
    """

    name: str
    instructions: list[str]
    responses: list[str | None]
    n: int
    others: list[str] = field(default_factory=list)
    generated: float = 0.0
    bound: bool = False

    def limited(self, n: int) -> Asked:
        """The same, where only n of the answers are used."""
        return replace(self, n=min(n, self.n))


@dataclass(frozen=True)
class _Prompts:
    """Tokens of the prompts, and what the model's limit leaves for an answer."""

    mean: float
    longest: int
    room: int = 1 << 60


@dataclass(frozen=True)
class _Held:
    """What the store holds of a teacher: which keys, and how long answers of a decoding are."""

    keys: set[str]
    other_keys: list[str]
    lengths: np.ndarray


@cache
def light_card(reference: str, trust_remote_code: bool) -> Card:
    """A card whose weight files were not hashed once more."""
    return open_card(reference, trust_remote_code, fingerprinted=False)


@lru_cache(maxsize=None, typed=True)
def known_size(reference: str, trust_remote_code: bool, classifies: bool = False) -> Size:
    """`read_size`, once for each model; of a `Named` one, what its name tells (ModelError)."""
    if not isinstance(reference, Named):
        return sizes.read_size(reference, trust_remote_code, classifies)
    told = billions_of(reference)
    if told is None:
        raise ModelError(
            "the model's name does not tell its size, and its config is not on this machine",
            where=str(reference),
            next_step="download it first, or give its size in `teacher_facts`",
        )
    return named_size(told[0])


def even_places(n: int) -> list[int]:
    """An even sample of n positions; all, where they are few."""
    return sorted(set(np.linspace(0, n - 1, min(n, SAMPLE)).astype(int).tolist())) if n else []


def sample_places(texts: Sequence[str]) -> tuple[list[int], list[int]]:
    """(an even sample of positions, positions of the longest texts beside it)."""
    n = len(texts)
    even = even_places(n)
    if len(even) == n:
        return even, []
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=n)
    return even, np.argpartition(-lengths, LONGEST)[:LONGEST].tolist()


def plan_asking(
    draft: Draft,
    name: str,
    teacher: Teacher,
    source: TeacherSource,
    requests: Sequence[Request],
    store: AnswerStore,
    runtime: Runtime,
    stand_in: Card | None = None,
    title: str = "",
) -> Asked:
    """Add the stage of asking a teacher to the draft.

    Args:
        requests: all of them; what the store holds is taken off.
        stand_in: a card whose tokenizer stands in for one that is not known (a server's model).
        title: of the stage; "asking NAME" if empty.

    Returns:
        What later stages may expect of the answers.
    """
    keys = [request.key(source.identity) for request in requests]
    decoding = requests[0].decoding
    held = _held(store, source, set(keys), decoding)
    missing = [request for request, key in zip(requests, keys, strict=True) if key not in held.keys]
    texts = [request.messages[-1][1] for request in requests]
    prompts = _prompts(draft, name, teacher, missing, runtime, stand_in)
    bound = not len(held.lengths)
    most = min(decoding.max_new_tokens, prompts.room)
    generated = float(most if bound else held.lengths.mean())
    longest = most if len(held.lengths) < MANY else int(held.lengths.max())
    basis = EXACT if not missing else BOUND if bound else STORED
    n_prompt, n_generated = round(prompts.mean * len(missing)), round(generated * len(missing))
    stage = Stage(
        title or f"asking {name}",
        "ask",
        f"ask.{name}",
        model=getattr(teacher, "model", "") or name,
        items=len(requests),
        reused=len(requests) - len(missing),
        prompt_tokens=n_prompt,
        generated_tokens=n_generated,
        tokens=n_generated,
        unit="generated tokens",
        tokens_from=basis if basis != STORED else f"{STORED}: {len(held.lengths):,} answers",
        money=source.price(n_prompt, n_generated) if missing else 0.0,
        least_seconds=_limits(teacher, len(missing), n_prompt + n_generated),
    )
    if missing:
        _place(stage, teacher, runtime, prompts, longest)
        size = sum(len(text) for text in texts) / len(texts)
        per_answer = 2 * size + CHARACTERS * generated + ROW_BYTES
        draft.write("answer store", store.folder, round(per_answer * len(missing)))
    draft.stages.append(stage)
    places, _ = sample_places(texts)
    found = _texts(store, source, [keys[place] for place in places if keys[place] in held.keys])
    return Asked(
        name,
        [texts[place] for place in places],
        [found.get(keys[place]) for place in places],
        len(requests),
        list(_texts(store, source, held.other_keys[:FEW]).values()),
        generated,
        bound,
    )


def held_keys(store: AnswerStore, source: TeacherSource) -> set[str]:
    """Keys of the answers of a teacher that a store holds; takes no lock and writes nothing."""
    folder = store.folder / part_name(source.identity)
    if not folder.is_dir():
        return set()
    return {key for table in read_answers(folder, ["key"]) for key in table["key"].to_pylist()}


def known_replies(
    store: AnswerStore, source: TeacherSource, requests: Sequence[Request]
) -> list[str | None]:
    """The answers that a store holds, in the order of the requests."""
    keys = [request.key(source.identity) for request in requests]
    found = _texts(store, source, keys)
    return [found.get(key) for key in keys]


def _held(store: AnswerStore, source: TeacherSource, wanted: set[str], decoding: Decoding) -> _Held:
    folder = store.folder / part_name(source.identity)
    found: set[str] = set()
    others: list[str] = []
    lengths = [np.empty(0)]
    columns = ["key", "temperature", "max_new_tokens", "n_generated", "finish_reason"]
    for table in read_answers(folder, columns) if folder.is_dir() else ():
        found.update(wanted.intersection(table["key"].to_pylist()))
        # an answer that ended by itself says how long it is under every later end
        ended = pc.or_(
            pc.equal(table["finish_reason"], "stop"),
            pc.greater_equal(table["max_new_tokens"], decoding.max_new_tokens),
        )
        alike = table.filter(
            pc.and_(ended, pc.equal(table["temperature"], float(decoding.temperature)))
        )
        others += [key for key in alike["key"].to_pylist() if key not in wanted][:FEW]
        lengths.append(np.minimum(alike["n_generated"].to_numpy(), decoding.max_new_tokens))
    return _Held(found, others, np.concatenate(lengths))


def _texts(store: AnswerStore, source: TeacherSource, keys: Sequence[str]) -> dict[str, str]:
    folder = store.folder / part_name(source.identity)
    if not keys or not folder.is_dir():
        return {}
    return {
        key: response
        for table in read_answers(folder, ["key", "response"], keys)
        for key, response in zip(
            table["key"].to_pylist(), table["response"].to_pylist(), strict=True
        )
    }


def _prompts(
    draft: Draft,
    name: str,
    teacher: Teacher,
    requests: Sequence[Request],
    runtime: Runtime,
    stand_in: Card | None,
) -> _Prompts:
    """Lengths of the prompts in tokens, and the tokenizer's verdict."""
    if not requests:
        return _Prompts(0.0, 0)
    card = local_card(teacher, runtime)
    texts = ["".join(content for _, content in request.messages) for request in requests]
    even, longest = sample_places(texts)
    reader = card or stand_in
    if reader is None:
        lengths = [len(texts[place]) / CHARACTERS for place in (*even, *longest)]
    else:
        lengths = [
            float(len(prompt_ids(reader.tokenizer, requests[place].messages)))
            for place in (*even, *longest)
        ]
    mean, most = statistics.fmean(lengths[: len(even)]), round(max(lengths))
    model = getattr(teacher, "model", "") or name
    if card is None:
        other = (
            f"counted with the tokenizer of {stand_in.reference}" if stand_in else "4 to a token"
        )
        draft.tokenizers.append(Verdict(f"teacher {name}", model, "not known here", other))
        return _Prompts(mean, most)
    too_long = [length for length in lengths if length >= card.limit]
    verdict = "chat template" if card.tokenizer.chat_template else "plain rendering"
    detail = f"prompts up to {most:,} of {card.limit:,} tokens"
    detail += "" if len(even) == len(requests) else f" ({SAMPLED} of {len(lengths):,})"
    draft.tokenizers.append(Verdict(f"teacher {name}", model, verdict, detail))
    if too_long:
        draft.refusals.append(
            Refusal(
                "instructions are longer than the teacher can read",
                f"teacher {name}",
                f"{len(too_long):,} of {len(lengths):,} looked at; up to {most:,} tokens, "
                f"limit {card.limit:,}",
                f"drop instructions of {card.limit:,} tokens and more, or use a teacher with a "
                f"limit of at least {most + 1:,}",
            )
        )
    return _Prompts(mean, most, max(1, card.limit - most))


def local_card(teacher: Teacher, runtime: Runtime) -> Card | None:
    """The card of a teacher whose checkpoint is at hand; None for servers and own code."""
    if teacher.kind not in ("transformers", "vllm"):
        return None
    try:
        return light_card(
            model_location(str(getattr(teacher, "model", ""))), runtime.trust_remote_code
        )
    except PreceptorError:
        return None


def _limits(teacher: Any, requests: int, tokens: int) -> float:
    """Seconds below which a server's own limits do not let it finish."""
    by_requests = getattr(teacher, "requests_per_minute", None)
    by_tokens = getattr(teacher, "tokens_per_minute", None)
    return 60 * max(
        requests / by_requests if by_requests else 0.0, tokens / by_tokens if by_tokens else 0.0
    )


def _place(stage: Stage, teacher: Any, runtime: Runtime, prompts: _Prompts, new: int) -> None:
    """Where the teacher runs, and the memory that it takes there."""
    fleet = getattr(teacher, "fleet", None)
    if fleet is not None and fleet.kind != "here":
        stage.here = False
        stage.workers = fleet.workers if isinstance(fleet.workers, int) else fleet.workers[1]
    if teacher.kind == "transformers":
        where = f"{teacher_name(teacher)}: "
        stage.need = generating_need(
            model_location(teacher.model),
            runtime,
            prompts.longest,
            new,
            {f"{where}batch_size": teacher.batch_size},
        )
        stage.host = _host_bytes(teacher.model, runtime)
    elif teacher.kind == "vllm":
        stage.need = vllm_need(teacher, runtime, prompts.longest + new)
    else:
        stage.here = False


def _host_bytes(model: str, runtime: Runtime) -> int:
    return known_size(model_location(model), runtime.trust_remote_code).parameters * itemsize(
        runtime, runtime.dtype
    )


def itemsize(runtime: Runtime, dtype: str) -> int:
    """Bytes of a value in a dtype of the settings."""
    return pick_dtype(dtype, pick_device(runtime.device)).itemsize


def dtype_ways(runtime: Runtime) -> dict[str, list[str]]:
    """Half precision, where the run is not in it already."""
    return {"dtype": ["bfloat16"]} if itemsize(runtime, runtime.dtype) > 2 else {}


def generating_need(
    location: str, runtime: Runtime, prompt: int, new: int, batch: dict[str, int]
) -> Need:
    """Memory of a model that answers: weights, and cache and passes of the longest batch."""
    size = known_size(location, runtime.trust_remote_code)
    ((setting, rows),) = batch.items()

    def parts(knobs: Any) -> dict[str, int]:
        s = itemsize(runtime, knobs["dtype"])
        return {
            "weights": sizes.weight_bytes(size, s),
            "cache": sizes.generating_bytes(size, knobs[setting], prompt, new, s),
        }

    knobs = {setting: rows, "dtype": runtime.dtype}
    return Need(parts, knobs, {setting: halves(rows)} | dtype_ways(runtime))


def vllm_need(teacher: Any, runtime: Runtime, longest: int) -> Need:
    """Weights and one whole conversation, within the share of each GPU that the engine takes."""
    size = known_size(model_location(teacher.model), runtime.trust_remote_code)
    s = itemsize(runtime, runtime.dtype)
    setting = f"{teacher_name(teacher)}: tensor_parallel"

    def parts(knobs: Any) -> dict[str, int]:
        whole = {
            "weights": sizes.weight_bytes(size, s),
            "cache": sizes.cache_bytes(size, 1, teacher.max_length or longest, s),
        }
        return {name: -(-count // knobs[setting]) for name, count in whole.items()}

    gpus = max(torch.cuda.device_count(), 1)
    more = [n for n in (2, 4, 8, 16) if teacher.tensor_parallel < n <= gpus]
    return Need(parts, {setting: teacher.tensor_parallel}, {setting: more}, teacher.gpu_memory)
