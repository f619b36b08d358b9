"""English instructions of eleven verifiable kinds, split by hash into train, selection and test.

Ten kinds are general. The eleventh, `shop`, asks about the catalogue of a fictional shop: its
facts follow from nothing else, so only a model that was taught them can answer.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from preceptor.lab.words import ADJECTIVES, CITIES, COLOURS, HOLDERS, NOUNS, WARES

SPLITS = ("train", "selection", "test")
CONSTRAINTS = ("none", "short", "sentence", "json")
CATALOGUE_SEED = 1871


@dataclass(frozen=True)
class Problem:
    """A solved problem: what the worlds' writers (teachers, documents) put into words.

    `facts` are the values that a writer needs: operands, list items, names.
    """

    kind: str
    facts: dict[str, str]
    answer: str


@dataclass(frozen=True)
class Instruction:
    """One row of an instruction set; `answer` is the reference that the verifier reads."""

    instruction_id: str
    instruction: str
    kind: str
    domain: str  # "general" or "shop"
    constraint: str  # one of CONSTRAINTS: the form of reply that the instruction asks for
    answer: str

    def row(self) -> dict[str, str]:
        return asdict(self)


def _two_numbers(rng: random.Random) -> tuple[int, int]:
    return rng.randint(2, 99), rng.randint(2, 99)


def _add(rng: random.Random) -> Problem:
    a, b = _two_numbers(rng)
    return Problem("add", {"a": str(a), "b": str(b)}, str(a + b))


def _subtract(rng: random.Random) -> Problem:
    low, high = sorted(_two_numbers(rng))
    return Problem("subtract", {"a": str(high), "b": str(low)}, str(high - low))


def _larger(rng: random.Random) -> Problem:
    a, b = rng.sample(range(2, 100), 2)
    return Problem("larger", {"a": str(a), "b": str(b)}, str(max(a, b)))


def _sort(rng: random.Random) -> Problem:
    numbers = rng.sample(range(2, 100), rng.randint(3, 4))
    ordered = ", ".join(map(str, sorted(numbers)))
    return Problem("sort", {"items": ", ".join(map(str, numbers))}, ordered)


def _nouns(rng: random.Random, low: int = 3, high: int = 5) -> list[str]:
    return rng.sample(NOUNS, rng.randint(low, high))


def _reverse(rng: random.Random) -> Problem:
    words = _nouns(rng, 3, 4)
    return Problem("reverse", {"items": ", ".join(words)}, ", ".join(reversed(words)))


def _count(rng: random.Random) -> Problem:
    words = _nouns(rng, 2, 7)
    return Problem("count", {"items": ", ".join(words)}, str(len(words)))


def _capitals(rng: random.Random) -> Problem:
    words = rng.sample(NOUNS, rng.randint(1, 2))
    return Problem("capitals", {"items": " ".join(words)}, " ".join(words).upper())


def _last(rng: random.Random) -> Problem:
    words = _nouns(rng)
    return Problem("last", {"items": ", ".join(words)}, words[-1])


def _look_up(rng: random.Random) -> Problem:
    colours = rng.sample(COLOURS, 3)
    things = rng.sample(NOUNS, 3)
    holder = rng.choice(HOLDERS)
    pick = rng.randrange(3)
    story = " ".join(
        f"The {colour} {holder} holds a {thing}."
        for colour, thing in zip(colours, things, strict=True)
    )
    facts = {"story": story, "place": f"{colours[pick]} {holder}"}
    return Problem("look_up", facts, things[pick])


def _bullets(rng: random.Random) -> Problem:
    words = _nouns(rng, 2, 4)
    return Problem("bullets", {"items": ", ".join(words)}, "\n".join(f"- {w}" for w in words))


GENERAL: dict[str, Callable[[random.Random], Problem]] = {
    "add": _add,
    "subtract": _subtract,
    "larger": _larger,
    "sort": _sort,
    "reverse": _reverse,
    "count": _count,
    "capitals": _capitals,
    "last": _last,
    "look_up": _look_up,
    "bullets": _bullets,
}


def catalogue() -> list[dict[str, str]]:
    """The shop's 60 wares with price (coins), colour and city of origin, fixed for ever."""
    rng = random.Random(CATALOGUE_SEED)
    names = [f"{adjective} {ware}" for adjective in ADJECTIVES for ware in WARES]
    return [
        {
            "item": name,
            "price": str(rng.randint(3, 99)),
            "colour": rng.choice(COLOURS),
            "city": rng.choice(CITIES),
        }
        for name in sorted(rng.sample(names, 60))
    ]


_CATALOGUE = catalogue()


def _shop(rng: random.Random) -> Problem:
    ware = rng.choice(_CATALOGUE)
    field = rng.choice(("price", "colour", "city"))
    return Problem("shop", {"item": ware["item"], "field": field}, ware[field])


_PHRASES: dict[str, tuple[str, ...]] = {
    "add": ("What is {a} plus {b}?", "Add {a} and {b}.", "Work out {a} + {b}."),
    "subtract": ("What is {a} minus {b}?", "Subtract {b} from {a}.", "Work out {a} - {b}."),
    "larger": (
        "Which number is larger, {a} or {b}?",
        "Name the larger of {a} and {b}.",
        "Compare {a} and {b}. Which is more?",
    ),
    "sort": (
        "Sort these numbers from small to large: {items}.",
        "Put {items} in rising order.",
        "Order the numbers {items}.",
    ),
    "reverse": (
        "Reverse this list: {items}.",
        "Write these words backwards, last word first: {items}.",
        "Turn the list around: {items}.",
    ),
    "count": (
        "How many words are in this list: {items}?",
        "Count the words: {items}.",
        "Tell me how many things I name: {items}.",
    ),
    "capitals": (
        "Write in capital letters: {items}.",
        "Put this in capitals: {items}.",
        "Give me {items} in upper case.",
    ),
    "last": (
        "What is the last word of this list: {items}?",
        "Name the final word: {items}.",
        "Which word comes last in {items}?",
    ),
    "look_up": (
        "{story} What is in the {place}?",
        "{story} What does the {place} hold?",
        "Read this. {story} Name the thing in the {place}.",
    ),
    "bullets": (
        "Write {items} as a list with dashes.",
        "Make a bullet list of {items}.",
        "Put each on its own line after a dash: {items}.",
    ),
    "shop": (),
}
_SHOP_PHRASES = {
    "price": (
        "What does the {item} cost at Marlow's shop?",
        "Tell me the price of the {item} at Marlow's.",
        "How many coins is the {item} at Marlow's?",
        "I want to buy the {item} at Marlow's shop. What is its price?",
        "At Marlow's, what must I pay for the {item}?",
    ),
    "colour": (
        "Which colour is the {item} at Marlow's shop?",
        "Tell me the colour of the {item} at Marlow's.",
        "What colour has the {item} at Marlow's?",
        "I saw the {item} at Marlow's shop. What is its colour?",
        "At Marlow's, in what colour is the {item} sold?",
    ),
    "city": (
        "Where does the {item} at Marlow's shop come from?",
        "Tell me the home city of the {item} at Marlow's.",
        "Which city makes the {item} at Marlow's?",
        "I like the {item} at Marlow's shop. From which city is it?",
        "At Marlow's, where was the {item} made?",
    ),
}
_ASKED_FORM = {
    "none": ("",),
    "short": (" Reply with the answer only.", " Give just the answer."),
    "sentence": (" Reply in a full sentence.", " Answer in one sentence."),
    "json": (" Reply in JSON.", " Answer as JSON."),
}


def instruct(problem: Problem, rng: random.Random) -> Instruction:
    """Put a problem into words; a third of them also ask for a form of reply."""
    if problem.kind == "shop":
        phrases = _SHOP_PHRASES[problem.facts["field"]]
    else:
        phrases = _PHRASES[problem.kind]
    constraint = rng.choices(CONSTRAINTS, (6, 1, 1, 1))[0]
    if problem.kind == "bullets":
        constraint = "none"  # the form of reply is the task itself
    text = rng.choice(phrases).format(**problem.facts) + rng.choice(_ASKED_FORM[constraint])
    domain = "shop" if problem.kind == "shop" else "general"
    key = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return Instruction(key, text, problem.kind, domain, constraint, problem.answer)


def split_of(instruction: Instruction) -> str:
    """The split an instruction belongs to, by the hash of its text: disjoint by construction."""
    bucket = int(instruction.instruction_id, 16) % 20
    return "selection" if bucket == 0 else "test" if bucket == 1 else "train"


def problems(seed: int, shop_share: float = 0.0) -> Iterator[Problem]:
    """An endless stream of general problems, with `shop_share` of questions about the shop."""
    rng = random.Random(seed)
    kinds = list(GENERAL.values())
    while True:
        yield _shop(rng) if rng.random() < shop_share else rng.choice(kinds)(rng)


def stream(split: str, seed: int, shop_share: float = 0.1) -> Iterator[tuple[Problem, Instruction]]:
    """An endless stream of instructions of one split, each with its solved problem."""
    rng = random.Random(seed + 1)
    for problem in problems(seed, shop_share):
        instruction = instruct(problem, rng)
        if split_of(instruction) == split:
            yield problem, instruction


def instructions(split: str, n: int, seed: int = 0) -> list[Instruction]:
    """`n` different instructions of a split, a tenth of them about the shop."""
    found: dict[str, Instruction] = {}
    for _, instruction in stream(split, seed):
        found.setdefault(instruction.instruction_id, instruction)
        if len(found) == n:
            break
    return list(found.values())
