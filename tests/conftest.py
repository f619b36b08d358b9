"""Tiny real checkpoints and answer tables, made on the spot: no downloads, no mocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# transformers and torch are imported inside functions: tests without models start at once

TESTS = Path(__file__).parent
# the slowest first: a worker takes a file after the other, and a long one at the end is waited for
SLOWEST = (
    "fleets/test_ray.py",
    "docs/test_pages.py",
    "docs/test_tutorial.py",
    "recipes/test_study_examples.py",
    "recipes/test_study.py",
    "recipes/test_kill_and_resume.py",
    "recipes/test_plan.py",
    "recipes/test_four_sources.py",
    "teachers/test_cached_teacher.py",
    "teachers/test_openai_runs.py",
    "recipes/test_evaluate.py",
    "data/test_store_kills.py",
    "recipes/test_race.py",
    "recipes/test_select.py",
    "recipes/test_pilot.py",
    "lab/test_build.py",
    "recipes/test_route.py",
    "recipes/test_training_recipes.py",
    "recipes/test_training_kill_and_resume.py",
    "architecture/test_newcomers.py",
    "training/test_fsdp.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first; the others stay in their order."""
    places = {TESTS / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(SLOWEST)))


SENTENCES = (
    "The cat is in the house and the dog is in the garden.",
    "What is the sum of one and two? The sum of one and two is three.",
    "Name the colour of the sky.\n\nThe colour of the sky is blue.",
)
SPECIALS = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>")
CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<|assistant|>{{ message['content'] }}{{ eos_token }}"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
INSTRUCTIONS = (
    "Name the colour of the sky.",
    "What is the sum of one and two?",
    "Where is the cat?",
    "Where is the dog?",
    "Say the sum of two and two.",
    "Name a house.",
)
RESPONSES = {
    "ash": "It is {n} in the house.",
    "beech": "The answer is the number {n} and the cat.",
    "cherry": "{n}",
}


def build_tokenizer(
    chat_template: str | None = None, bos: bool = True, pad: bool = True, vocab: int = 320
) -> Any:
    """A byte-level BPE trained on three sentences; any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    built: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>" if pad else None,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
    built.chat_template = chat_template
    return built


def save_model(
    folder: Path,
    architecture: str = "llama",
    chat_template: str | None = None,
    bos: bool = True,
    seed: int = 0,
    labels: int = 0,
    **shape: Any,
) -> Path:
    """A checkpoint of random weights: width 32, 2 layers; `labels` > 0 makes a classifier."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    tokenizer = build_tokenizer(chat_template, bos)
    proportions = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
    }
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **({"num_labels": labels} if labels else {}),
        **(proportions | shape),
    )
    factory: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = factory.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """`make_tokenizer(chat_template=None, bos=True, pad=True)`."""
    return build_tokenizer


@pytest.fixture(scope="session")
def chat_template() -> str:
    """A chat template with special tokens for user, assistant and end of turn."""
    return CHAT


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_model(name, **options of save_model)`: a checkpoint folder, made once a session."""
    root = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, dict[str, Any]] = {}

    def make(name: str, **options: Any) -> Path:
        if made.setdefault(name, options) != options:
            raise ValueError(f"{name} was made with other options: {made[name]}")
        folder = root / name
        return folder if folder.exists() else save_model(folder, **options)

    return make


@pytest.fixture(scope="session")
def base(tiny_model: Callable[..., Path]) -> Path:
    """A base model without a chat template."""
    return tiny_model("base")


@pytest.fixture(scope="session")
def chatter(tiny_model: Callable[..., Path]) -> Path:
    """A teacher with a chat template."""
    return tiny_model("chatter", chat_template=CHAT, seed=1)


@pytest.fixture(scope="session")
def instruction_texts() -> tuple[str, ...]:
    return INSTRUCTIONS


@pytest.fixture
def tall() -> list[dict[str, Any]]:
    """Three teachers' recorded answers to six instructions, a row an answer."""
    return [
        {
            "instruction": instruction,
            "generator": teacher,
            "response": form.format(n=number),
            "reward": 0.1 * number + 0.2 * place,
        }
        for number, instruction in enumerate(INSTRUCTIONS)
        for place, (teacher, form) in enumerate(RESPONSES.items())
    ]
