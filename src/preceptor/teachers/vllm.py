"""Local teachers: vLLM's offline engine (extra `vllm`).

Prompts are rendered by `preceptor.data.rendering` and handed over as token ids, answers come back
as token ids, and what ends an answer is what ends it for the source `transformers`: the two are
one teacher to the answer store, and their greedy answers agree up to the rounding of kernels.

Source: vLLM's API as it stands in 0.24 and 0.33 (`LLM`, `SamplingParams`, `LoRARequest`,
`RequestOutput`), https://docs.vllm.ai.
"""

from __future__ import annotations

import importlib.util
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import PretrainedConfig
from transformers.utils.hub import cached_file, extract_commit_hash

from preceptor.core.artifacts import read_json
from preceptor.core.errors import ModelError, SettingsError
from preceptor.core.types import Reply, Request, Runtime, TeacherSource, even_batches
from preceptor.data.rendering import prompt_ids
from preceptor.models.generation import (
    Generated,
    end_ids,
    label_id,
    reply_of,
    room_for,
    until_end,
)
from preceptor.models.load import Card, fingerprint, open_card
from preceptor.teachers.transformers import local_identity

LIKELIEST = 20  # of a token, with their log-probabilities: the most that vLLM gives by default
MAX_TEMPERATURE = 2.0  # vLLM's own bound
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # bounds of an adapter's rank that vLLM knows
UNKNOWN = "unknown"  # commit of a hub adapter that the cache does not tell
_WEIGHTS = "adapter_model.safetensors"

Answer = Callable[[Sequence[Request]], list[Reply]]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: where it is, its rank, and sha256 of its files or its hub commit."""

    reference: str
    rank: int
    fingerprint: str


@dataclass(frozen=True)
class Engine:
    """What a worker needs to make its engine; can be pickled."""

    model: str
    adapter: Adapter | None
    dtype: str
    trust_remote_code: bool
    tensor_parallel: int
    gpu_memory: float
    max_length: int | None


def open_teacher(setting: Any, runtime: Runtime) -> TeacherSource:
    """A checkpoint that vLLM runs in this process, or on the runtime's fleet.

    Reads `setting.model` and `adapter` (folders or hub ids), `tensor_parallel`, `gpu_memory`,
    `max_length`, `chunk`, `temperature` and `fleet`; of the runtime its fleet and `dtype`. The
    engine chooses the device. A group is `chunk` requests, of any decoding, as they come.

    Raises:
        ModelError: vLLM is not installed; no such model or adapter, no tokenizer, no end token,
            or an instruction beyond the model's limit.
        SettingsError: a temperature that vLLM does not take, or a fleet of workers with fewer
            GPUs than one copy of the model needs.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ModelError(
            "vLLM is not installed",
            where=f"teacher {setting.model}",
            next_step="pip install 'preceptor[vllm]', or use `kind: transformers`",
        )
    _check(setting)
    card = open_card(setting.model, runtime.trust_remote_code)
    end_ids(card)
    adapter = open_adapter(setting.adapter) if setting.adapter else None
    engine = Engine(
        setting.model,
        adapter,
        runtime.dtype,
        runtime.trust_remote_code,
        setting.tensor_parallel,
        setting.gpu_memory,
        setting.max_length,
    )
    identity = local_identity(setting.model, card.fingerprint)
    if adapter is not None:
        identity["adapter"] = adapter.fingerprint

    def ask(groups: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Reply]]]:
        return runtime.fleet(partial(open_engine, engine), groups)

    def groups_of(requests: Sequence[Request]) -> list[list[int]]:
        return even_batches(len(requests), setting.chunk)

    return TeacherSource(identity=identity, groups=groups_of, ask=ask)


def _check(setting: Any) -> None:
    """What the settings alone can tell (raises SettingsError)."""
    if setting.temperature > MAX_TEMPERATURE:
        raise SettingsError(
            "vLLM does not take this temperature",
            where=f"teacher {setting.model}: temperature",
            found=str(setting.temperature),
            next_step=f"set it to at most {MAX_TEMPERATURE:g}, or use `kind: transformers`",
        )
    fleet = setting.fleet
    if fleet is not None and fleet.kind == "ray" and fleet.gpus < setting.tensor_parallel:
        raise SettingsError(
            "a worker has fewer GPUs than one copy of the model needs",
            where=f"teacher {setting.model}: fleet",
            found=f"gpus: {fleet.gpus:g}, tensor_parallel: {setting.tensor_parallel}",
            next_step="set `gpus` of the fleet to `tensor_parallel`",
        )


def open_adapter(reference: str) -> Adapter:
    """Read a LoRA adapter's config, and fingerprint it (raises ModelError)."""
    folder = Path(reference)
    try:
        file = cached_file(reference, "adapter_config.json")
        config = read_json(Path(str(file)))
    except (OSError, ValueError) as error:
        raise _no_adapter(reference, str(error).strip().splitlines()[0]) from error
    rank = config.get("r")
    if str(config.get("peft_type", "LORA")).upper() != "LORA" or not isinstance(rank, int):
        raise _no_adapter(reference, f"peft_type {config.get('peft_type')}, r {rank}")
    # ranks of single layers may be larger
    rank = max([rank, *(config.get("rank_pattern") or {}).values()])
    if rank > RANKS[-1]:
        raise _no_adapter(reference, f"rank {rank}, at most {RANKS[-1]}")
    if not folder.is_dir():
        return Adapter(reference, rank, f"commit:{extract_commit_hash(file, None) or UNKNOWN}")
    if not (folder / _WEIGHTS).exists():
        raise _no_adapter(reference, f"no {_WEIGHTS}")
    return Adapter(str(folder.resolve()), rank, fingerprint(reference, PretrainedConfig()))


def _no_adapter(reference: str, found: str) -> ModelError:
    return ModelError(
        "the adapter cannot be used",
        where=reference,
        found=found,
        next_step="name a folder or hub id of a LoRA adapter that PEFT saved as safetensors",
    )


def open_engine(engine: Engine) -> Answer:
    """Start the engine; what comes back answers a group, and takes the engine with it when it goes.

    Raises:
        ModelError: vLLM cannot run the model, or gives up while it answers.
    """
    # its log and its progress bars would run through ours; it is asked not to report its use
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    card = open_card(engine.model, engine.trust_remote_code)
    ends = end_ids(card)
    adapter = _fetch(engine.adapter) if engine.adapter else None
    try:
        from vllm import LLM, SamplingParams, TokensPrompt  # type: ignore[import-not-found]
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

        lora = LoRARequest("adapter", 1, adapter.reference) if adapter else None
        llm = LLM(
            model=engine.model,
            dtype=engine.dtype,
            trust_remote_code=engine.trust_remote_code,
            tensor_parallel_size=engine.tensor_parallel,
            gpu_memory_utilization=engine.gpu_memory,
            max_model_len=engine.max_length,
            enable_prefix_caching=True,
            load_format="safetensors",  # never pickles
            generation_config="vllm",  # the checkpoint's habits of decoding are not ours
            enable_lora=adapter is not None,
            max_lora_rank=next(
                bound for bound in RANKS if bound >= (adapter.rank if adapter else 0)
            ),
        )
    except Exception as error:  # of many kinds, some of libraries below vLLM
        raise ModelError(
            "vLLM cannot run the model",
            where=engine.model,
            found=_last_line(error),
            next_step="see what vLLM printed; lower max_length or gpu_memory, or raise "
            "tensor_parallel, where memory is short",
        ) from error
    limit = min(card.limit, int(llm.llm_engine.model_config.max_model_len))

    def answer(requests: Sequence[Request]) -> list[Reply]:
        prompts = [prompt_ids(card.tokenizer, request.messages) for request in requests]
        params = [
            SamplingParams(
                **sampling(request, room_for(request, prompt, limit, engine.model), ends)
            )
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        try:
            outputs = llm.generate(
                [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts],
                params,
                use_tqdm=False,
                lora_request=lora,
            )
        except Exception as error:  # as above
            raise _gave_up(engine.model, _last_line(error)) from error
        return [
            _reply(card, ends, request, output)
            for request, output in zip(requests, outputs, strict=True)
        ]

    # the engine is a process of its own (with tensor parallelism, several): it must not outlive us
    weakref.finalize(answer, llm.llm_engine.engine_core.shutdown)
    return answer


def _fetch(adapter: Adapter) -> Adapter:
    """The adapter as a folder; from the hub, the very commit of the fingerprint."""
    if Path(adapter.reference).is_dir():
        return adapter
    commit = adapter.fingerprint.removeprefix("commit:")
    folder = snapshot_download(
        adapter.reference,
        revision=None if commit == UNKNOWN else commit,
        allow_patterns=["adapter_config.json", _WEIGHTS],
    )
    if not (Path(folder) / _WEIGHTS).exists():
        raise _no_adapter(adapter.reference, f"no {_WEIGHTS}")
    return replace(adapter, reference=folder)


def sampling(request: Request, room: int, ends: Sequence[int]) -> dict[str, Any]:
    """The fields of a request's `SamplingParams`.

    `ignore_eos` with the end tokens as stop tokens: by default vLLM also stops at the tokenizer's
    own end token, where the generation config names others. The log-probabilities are those of
    the model itself, at temperature 1 (vLLM's default).
    """
    fields: dict[str, Any] = {
        "temperature": request.decoding.temperature,
        "max_tokens": room,
        "stop_token_ids": list(ends),
        "ignore_eos": True,
        "detokenize": False,
        "logprobs": LIKELIEST if request.labels else 0,  # 0: of the chosen tokens alone
    }
    if not request.decoding.greedy:
        fields |= {"top_p": request.decoding.top_p, "seed": request.seed}
    return fields


def _reply(card: Card, ends: Sequence[int], request: Request, output: Any) -> Reply:
    fault = getattr(output, "error", None)  # since 0.33
    said = output.outputs[0] if output.outputs else None
    if fault is not None or said is None or said.finish_reason not in ("stop", "length"):
        reason = fault or (said.finish_reason if said is not None else "no output")
        raise _gave_up(card.reference, str(reason))
    ids, stopped = until_end(said.token_ids, ends)
    labels = ()
    if request.labels:
        first = said.logprobs[0]
        listed = [first.get(label_id(card.tokenizer, label)) for label in request.labels]
        labels = tuple(None if entry is None else float(entry.logprob) for entry in listed)
    generated = Generated(ids, stopped, said.cumulative_logprob, labels)
    return reply_of(card.tokenizer, generated, len(output.prompt_token_ids))


def _gave_up(model: str, found: str) -> ModelError:
    return ModelError(
        "vLLM gave up while it answered",
        where=model,
        found=found,
        next_step="see what vLLM printed, and run the same command again: what was answered "
        "is kept",
    )


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
