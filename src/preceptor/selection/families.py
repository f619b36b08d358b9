"""Family and size of a model, guessed from its name alone.

A guess for controls and for words: does a likelihood criterion merely prefer the base's relatives,
does a ranking merely follow size? Names are free text, so both functions may find nothing.
"""

from __future__ import annotations

import re


def _word(*marks: str) -> str:
    """Marks that stand by themselves: no letter before or after, digits may follow (`phi3`)."""
    return rf"(?<![a-z])(?:{'|'.join(marks)})(?![a-z])"


# A family is that of the pre-trained weights: Vicuna and Alpaca are llama, Zephyr is mistral. Of
# several marks in a name the earlier row decides. So what tells the weights stands before what
# names a maker, a recipe or the source of the data (deepseek-r1-distill-qwen, alpaca-gpt4).
_FAMILIES = (
    ("qwen", r"qwen|qwq|qvq"),
    ("llama", r"llama"),
    ("gemma", r"gemma"),
    ("mistral", r"mi[sx]tral|ministral|magistral|(?:code|math|dev|pix)stral"),
    ("phi", _word("phi")),
    ("falcon", r"falcon"),
    ("stablelm", r"stablelm"),
    ("olmo", r"olmoe?(?![a-z])"),
    ("smollm", r"smollm"),
    ("pythia", r"pythia|dolly"),
    ("yi", _word("yi")),
    ("mpt", _word("mpt")),
    ("opt", _word("opt")),
    ("bloom", r"(?<![a-z])bloomz?(?![a-z])"),
    ("internlm", r"internlm"),
    ("baichuan", r"baichuan"),
    ("glm", r"(?<![a-z])(?:chat)?glm(?![a-z])"),
    ("granite", r"granite"),
    ("cohere", r"(?<![a-z])(?:c4ai|command-?[ar]|aya)(?![a-z])"),
    ("minicpm", r"minicpm"),
    ("deepseek", r"deepseek"),
    ("mistral", r"zephyr|starling"),
    ("llama", r"vicuna|alpaca|guanaco|koala|(?<![a-z])tulu(?![a-z])|minitron"),
    ("nemotron", r"nemotron"),
    ("gpt2", r"gpt-?2(?!\d)"),
    ("gpt", r"(?<![a-z])(?:chat)?gpt(?![a-z]|-?(?:neo|j(?![a-z])))|davinci"),
    ("claude", r"claude"),
    ("gemini", r"gemini"),
    ("grok", r"(?<![a-z])grok"),
)
# 7b, 1.5B, 8x7B, 270m; not the active part of a mixture (-A3B), nor 4bit
_SIZE = re.compile(r"(?<![\d.])(?<!\ba)(?<!_a)(?:(\d+)x)?(\d+(?:\.\d+)?)([bmt])(?![a-z0-9])")
_BILLIONS = {"m": 1e-3, "b": 1.0, "t": 1e3}


def family_of(name: str) -> str | None:
    """Family of the pre-trained weights behind a model, as its name tells it.

    Args:
        name: of a checkpoint, a hosted model or a generator; `owner/name` or the name alone. The
            owner counts only where the name itself tells nothing.

    Returns:
        A lower-case name (`qwen`, `llama`, `gemma`, `mistral`, `phi`, `gpt` ...), or None where
        the name tells none. GPT-2 is `gpt2`, apart from the hosted `gpt`.
    """
    lower = name.lower()
    for text in (lower.rpartition("/")[2], lower):
        for family, pattern in _FAMILIES:
            if re.search(pattern, text):
                return family
    return None


def size_of(name: str) -> float | None:
    """Billions of parameters that a model's name tells: 1.5 of `Qwen2-1.5B`; None if it tells none.

    The first size in the name counts. `8x7B` gives the product, 56: the experts of a mixture share
    weights, so its true size is smaller. Of `30B-A3B` it is the whole, 30.
    """
    found = _SIZE.search(name.lower().rpartition("/")[2])
    if found is None:
        return None
    experts, number, unit = found.groups()
    return int(experts or 1) * float(number) * _BILLIONS[unit]
