"""Family and size as names tell them; the names are those of public models."""

import pytest

from preceptor.selection.families import family_of, size_of

FAMILIES = {
    "Qwen/Qwen2-1.5B": "qwen",
    "Qwen2.5-72B-Instruct": "qwen",
    "Qwen-14B-Chat": "qwen",
    "CodeQwen1.5-7B": "qwen",
    "QwQ-32B-Preview": "qwen",
    "meta-llama/Llama-3.2-3B": "llama",
    "llama2-13b": "llama",
    "Meta-Llama-3.1-405B-Instruct": "llama",
    "nvidia/Llama-3.1-Minitron-4B-Width-Base": "llama",
    "TinyLlama-1.1B-Chat-v1.0": "llama",
    "openbuddy-llama2-70b-v10.1": "llama",
    "CodeLlama-34b": "llama",
    "vicuna-13b-v1.5": "llama",
    "alpaca-7b": "llama",
    "FuseChat-Llama-3.2-1B-Instruct": "llama",
    "google/gemma-2-27b-it": "gemma",
    "recurrentgemma-2b": "gemma",
    "gemma-3n-E4B-it": "gemma",
    "FuseChat-Gemma-2-9B-Instruct": "gemma",
    "microsoft/phi-2": "phi",
    "phi-2-sft": "phi",
    "Phi-3-mini-4k-instruct": "phi",
    "phi3.5": "phi",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "mistral",
    "Mistral-7B-v0.3": "mistral",
    "Ministral-8B-Instruct": "mistral",
    "Codestral-22B": "mistral",
    "OpenHermes-2.5-Mistral-7B": "mistral",
    "zephyr-7b-beta": "mistral",
    "falcon-40b-instruct": "falcon",
    "gpt-3.5-turbo-1106": "gpt",
    "gpt4_1106_preview": "gpt",
    "gpt-4o-mini": "gpt",
    "chatgpt-4o-latest": "gpt",
    "openai/gpt-oss-20b": "gpt",
    "text-davinci-003": "gpt",
    "openai-community/gpt2-xl": "gpt2",
    "distilgpt2": "gpt2",
    "claude-2": "claude",
    "anthropic/claude-3-5-sonnet": "claude",
    "gemini-1.5-pro": "gemini",
    "01-ai/Yi-1.5-34B-Chat": "yi",
    "facebook/opt-125m": "opt",
    "EleutherAI/pythia-410m": "pythia",
    "dolly-v2-12b": "pythia",
    "allenai/OLMo-2-1124-7B": "olmo",
    "OLMoE-1B-7B-0924": "olmo",
    "HuggingFaceTB/SmolLM2-135M": "smollm",
    "THUDM/glm-4-9b-chat": "glm",
    "chatglm3-6b": "glm",
    "CohereForAI/c4ai-command-r-plus": "cohere",
    "deepseek-llm-67b-chat": "deepseek",
    "bigscience/bloomz-7b1": "bloom",
    "nemotron-4-340b-instruct": "nemotron",
    "grok-1": "grok",
}


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_family(name, family):
    assert family_of(name) == family
    assert family_of(name.upper()) == family


@pytest.mark.parametrize(
    ("name", "family"),
    {
        # the weights decide, not who made the recipe or whence the data came
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "qwen",
        "DeepSeek-R1-Distill-Llama-8B": "llama",
        "Llama-3.1-Nemotron-70B-Instruct": "llama",
        "Mistral-NeMo-Minitron-8B-Base": "mistral",
        "alpaca-gpt4": "llama",
        "gpt4-x-vicuna-13b": "llama",
        "stablelm-zephyr-3b": "stablelm",
        "zephyr-7b-gemma-v0.1": "gemma",
    }.items(),
)
def test_of_several_marks_the_weights_decide(name, family):
    assert family_of(name) == family


@pytest.mark.parametrize(
    "name",
    [
        "",
        "en-verbose",
        "aster-l",
        "base-prose",
        "my-finetune",
        "checkpoint-1200",
        "philosopher",  # holds phi
        "sapphire",  # holds phi
        "yield-model",  # begins with yi
        "optimal-7b",  # begins with opt
        "bloomberg-reader",
        "EleutherAI/gpt-neox-20b",  # GPT in name only
        "gpt-j-6b",
        "gptneo",
    ],
)
def test_a_name_without_a_mark(name):
    assert family_of(name) is None


def test_the_owner_counts_only_where_the_name_tells_nothing():
    assert family_of("Qwen/my-llama-7b") == "llama"
    assert family_of("mistralai/secret-preview") == "mistral"


@pytest.mark.parametrize(
    ("name", "billions"),
    {
        "Qwen/Qwen2-1.5B": 1.5,
        "qwen2.5-72b-instruct": 72,
        "Llama-3.1-405B": 405,
        "gemma-2-2b-it": 2,
        "vicuna13b": 13,
        "SmolLM2-135M": 0.135,
        "gemma-3-270m": 0.27,
        "opt-125m": 0.125,
        "Mixtral-8x7B-Instruct-v0.1": 56,
        "mixtral-8x22b": 176,
        "Flip-2x7B-alpha": 14,
        "Qwen3-30B-A3B": 30,
        "some-1T-model": 1000,
        # the first one: what follows is a context, a number of tokens, a format
        "Qwen2.5-7B-Instruct-1M": 7,
        "TinyLlama-1.1B-intermediate-step-1431k-3T": 1.1,
        "Llama-2-65B-4bit": 65,
        "deepseek-coder-6.7b-base": 6.7,
        "org-9B/student-0.5B": 0.5,
        "7B": 7,
    }.items(),
)
def test_size(name, billions):
    assert size_of(name) == pytest.approx(billions)


@pytest.mark.parametrize(
    "name",
    ["", "gpt-4", "claude-2", "Phi-3-mini-128k", "model-4bit", "Qwen1.5-MoE-A2.7B", "v2beta", "b"],
)
def test_a_name_without_a_size(name):
    assert size_of(name) is None
