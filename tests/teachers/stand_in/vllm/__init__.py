"""A stand-in for vLLM on a CPU: the part of its documented API that a teacher uses.

Names, parameters and their defaults, checks and results are those of vLLM 0.33 (entrypoints/llm.py,
sampling_params.py, outputs.py); what is not here is refused, not ignored. A tiny model of
`transformers`, run one token at a time without a cache, takes the place of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypedDict

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .lora.request import LoRARequest


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] = field(default_factory=list)
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 2.0:
            raise ValueError(f"temperature must be in [0, 2], got {self.temperature}.")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}.")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass
class CompletionOutput:
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    error: Any = None


class LLM:
    made: list[LLM] = []  # noqa: RUF012 - for the tests to look at

    def __init__(
        self,
        model: str,
        *,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.92,
        max_model_len: int | None = None,
        enable_prefix_caching: bool | None = None,
        enable_lora: bool = False,
        max_lora_rank: int = 16,
        load_format: str = "auto",
        generation_config: str = "auto",
    ) -> None:
        self.options = {key: value for key, value in locals().items() if key != "self"}
        if max_lora_rank not in (1, 8, 16, 32, 64, 128, 256, 320, 512):
            raise ValueError(f"max_lora_rank ({max_lora_rank}) is not one of the known bounds")
        self.engine = AutoModelForCausalLM.from_pretrained(model).eval()
        self.eos = AutoTokenizer.from_pretrained(model).eos_token_id
        own = self.engine.config.max_position_embeddings
        if max_model_len is not None and max_model_len > own:
            raise ValueError(
                f"User-specified max_model_len ({max_model_len}) is greater than {own}"
            )
        self.stopped = False
        self.calls: list[tuple[Any, Any, Any]] = []
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=max_model_len or own),
            engine_core=SimpleNamespace(shutdown=self._shutdown()),
        )
        LLM.made.append(self)

    def _shutdown(self) -> Any:
        record = self.record = {"down": False}  # without a reference to the engine, as vLLM's

        def shutdown(timeout: float | None = None) -> None:
            record["down"] = True

        return shutdown

    def generate(
        self,
        prompts: list[TokensPrompt],
        sampling_params: list[SamplingParams],
        *,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[RequestOutput]:
        assert len(prompts) == len(sampling_params) and not use_tqdm
        self.calls.append((prompts, sampling_params, lora_request))
        engine = self.engine
        if lora_request is not None:
            from peft import PeftConfig, PeftModel

            assert self.options["enable_lora"]
            rank = PeftConfig.from_pretrained(lora_request.lora_path).r  # type: ignore[attr-defined]
            assert rank <= self.options["max_lora_rank"]
            engine = PeftModel.from_pretrained(engine, lora_request.lora_path).eval()
        return [
            self._answer(engine, prompt["prompt_token_ids"], params)
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]

    def _answer(self, engine: Any, prompt: list[int], params: SamplingParams) -> RequestOutput:
        limit = self.llm_engine.model_config.max_model_len
        if len(prompt) >= limit:
            raise ValueError(f"The decoder prompt (length {len(prompt)}) is too long")
        generator = None if params.seed is None else torch.Generator().manual_seed(params.seed)
        ids: list[int] = []
        listed: list[dict[int, Logprob]] = []
        total, reason = 0.0, "length"
        while len(ids) < (params.max_tokens or limit) and len(prompt) + len(ids) < limit:
            with torch.inference_mode():
                logits_V = engine(input_ids=torch.tensor([prompt + ids])).logits[0, -1]
            logp_V = logits_V.log_softmax(-1)
            token = int(logp_V.argmax())
            if params.temperature > 0:
                p_V, order_V = (logits_V / params.temperature).softmax(-1).sort(descending=True)
                p_V = p_V * (p_V.cumsum(-1) - p_V < params.top_p)
                token = int(order_V[torch.multinomial(p_V, 1, generator=generator)])
            ids.append(token)
            total += float(logp_V[token])
            top = logp_V.topk(params.logprobs or 0).indices.tolist()
            listed.append({t: Logprob(float(logp_V[t])) for t in (token, *top)})
            if token in params.stop_token_ids or (token == self.eos and not params.ignore_eos):
                reason = "stop"
                break
        said = CompletionOutput(
            "" if not params.detokenize else "text",
            ids,
            None if params.logprobs is None else total,
            None if params.logprobs is None else listed,
            reason,
        )
        return RequestOutput(prompt, [said])
