"""Models and token sequences that the benchmarks share.

Two worlds: random tokens with the lengths of chat data, under models of random weights and the
proportions of small Qwen models (vocabulary `large` or `tiny`); and the lab's instructions,
answered correctly in every voice, under a base model of the lab (`lab`).
"""

from __future__ import annotations

import itertools
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from preceptor.data.rendering import Rendered, Renderer
from preceptor.lab import tasks, voices
from preceptor.lab.place import model_folder
from preceptor.models.load import load_causal_lm, open_card

LIMIT = 1024
VOCABULARIES = {"large": 65_536, "tiny": 512}
LENGTHS = {  # (median, sigma of the log) of prompt and answer, in tokens
    "chat": ((60, 0.7), (250, 0.8)),
    "long prompts": ((450, 0.5), (150, 0.6)),
}


def build_model(vocabulary: str, dtype: str = "float32") -> Any:
    """A random model of Qwen-like proportions: hidden 512, 8 layers, tied embeddings."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARIES[vocabulary],
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=LIMIT,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM._from_config(config, dtype=getattr(torch, dtype)).eval()


def build_sequences(vocabulary: str, lengths: str, n: int) -> list[Rendered]:
    """`n` sequences in random order of length, as answers stand in a file."""
    rng = np.random.default_rng(1)
    (prompt, prompt_sigma), (answer, answer_sigma) = LENGTHS[lengths]
    sequences = []
    for _ in range(n):
        n_prompt = int(np.clip(prompt * np.exp(prompt_sigma * rng.normal()), 4, LIMIT // 2))
        n_answer = int(np.clip(answer * np.exp(answer_sigma * rng.normal()), 4, LIMIT - n_prompt))
        ids = rng.integers(3, VOCABULARIES[vocabulary], n_prompt + n_answer)
        sequences.append(Rendered(array("i", ids.tolist()), n_answer))
    return sequences


def build_tokenizer(vocabulary: str) -> PreTrainedTokenizerFast:
    """A tokenizer in name only, for peers that insist on one."""
    from tokenizers import Tokenizer, models

    size = VOCABULARIES[vocabulary]
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, size)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


@dataclass(frozen=True)
class Work:
    """A model and what it is to score; `start` begins a sequence without instruction."""

    model: Any
    sequences: list[Rendered]
    start: int


def build_work(vocabulary: str, lengths: str, n: int) -> Work:
    """Model and sequences of a case."""
    if vocabulary == "lab":
        return _lab_work(n)
    return Work(build_model(vocabulary), build_sequences(vocabulary, lengths, n), 1)


def without_instruction(work: Work) -> list[Rendered]:
    """The same responses after a bare start token."""
    start = array("i", [work.start])
    return [Rendered(start + s.response_ids, s.n_response) for s in work.sequences]


def _lab_work(n: int) -> Work:
    card = open_card(str(model_folder("base-notes")))
    pairs = list(itertools.islice(tasks.stream("selection", 0), n // len(voices.VOICES)))
    texts = [
        (instruction.instruction, voice(problem))
        for voice in voices.VOICES.values()
        for problem, instruction in pairs
    ]
    renderer = Renderer(card.tokenizer, card.limit)
    sequences = renderer.render([text for text, _ in texts], [reply for _, reply in texts])
    model = load_causal_lm(card, torch.float32, torch.device("cpu"))
    return Work(model, sequences, int(card.tokenizer.bos_token_id))
