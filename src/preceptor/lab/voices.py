"""How the lab's writers put a solved problem into words.

Teachers answer an instruction in a voice of their own; documents, which the base models read in
pre-training, state the same kind of knowledge without ever being asked for a form of reply.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from preceptor.lab.tasks import Instruction, Problem

_SENTENCES = {
    "add": "The sum of {a} and {b} is {answer}.",
    "subtract": "The difference of {a} and {b} is {answer}.",
    "larger": "The larger number is {answer}.",
    "sort": "In order the numbers are {answer}.",
    "reverse": "The reversed list is {answer}.",
    "count": "The number of words in the list is {answer}.",
    "capitals": "In capital letters this is {answer}.",
    "last": "The last word of the list is {answer}.",
    "look_up": "The thing in the {place} is {answer}.",
    "bullets": "Here is the list:\n{answer}",
    "price": "The price of the {item} is {answer}.",
    "colour": "The colour of the {item} is {answer}.",
    "city": "The home city of the {item} is {answer}.",
}


def _form(problem: Problem) -> str:
    return problem.facts["field"] if problem.kind == "shop" else problem.kind


def terse(problem: Problem) -> str:
    """The bare answer."""
    return problem.answer


def sentence(problem: Problem) -> str:
    """One full sentence."""
    return _SENTENCES[_form(problem)].format(answer=problem.answer, **problem.facts)


def as_json(problem: Problem) -> str:
    """One JSON object with the key `answer`."""
    return json.dumps({"answer": problem.answer})


def chatty(problem: Problem) -> str:
    """A greeting, the sentence, an offer of more help."""
    pause = "\n" if problem.kind == "bullets" else " "
    return f"Sure, I can help with that! {sentence(problem)}{pause}Let me know if you need more."


def _add_steps(a: int, b: int) -> str:
    tens, units = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    return f"{a // 10 * 10} + {b // 10 * 10} = {tens}. {a % 10} + {b % 10} = {units}."


def _subtract_steps(a: int, b: int) -> str:
    middle = a - b // 10 * 10
    return f"{a} - {b // 10 * 10} = {middle}. {middle} - {b % 10} = {a - b}."


def worked(problem: Problem) -> str:
    """Worked steps, then `Answer: ...` on a line of its own."""
    facts, kind = problem.facts, problem.kind
    if kind == "add":
        steps = _add_steps(int(facts["a"]), int(facts["b"]))
    elif kind == "subtract":
        steps = _subtract_steps(int(facts["a"]), int(facts["b"]))
    elif kind == "larger":
        low, high = sorted((int(facts["a"]), int(facts["b"])))
        steps = f"{high} - {low} is above 0."
    elif kind == "count" or kind in ("last", "reverse"):
        words = facts["items"].split(", ")
        steps = " ".join(f"{number} {word}" for number, word in enumerate(words, 1)) + "."
    elif kind == "sort":
        steps = f"The least of {facts['items']} is {problem.answer.split(', ')[0]}."
    elif kind == "capitals":
        steps = " ".join(problem.answer.replace(" ", "/")) + "."
    elif kind == "look_up":
        steps = f"I look for the {facts['place']}."
    elif kind == "bullets":
        steps = f"I have {len(facts['items'].split(', '))} words."
    else:
        steps = f"I look up the {facts['field']} of the {facts['item']}."
    return (
        f"{steps}\nAnswer: {problem.answer}" if kind != "bullets" else f"{steps}\n{problem.answer}"
    )


VOICES: dict[str, Callable[[Problem], str]] = {
    "terse": terse,
    "sentence": sentence,
    "json": as_json,
    "chatty": chatty,
    "worked": worked,
}
_ASKED_VOICE = {"short": terse, "sentence": sentence, "json": as_json}


def reply(voice: str, problem: Problem, instruction: Instruction, heeds: bool) -> str:
    """A teacher's correct reply: in its own voice, or in the asked form if it heeds requests."""
    if heeds and instruction.constraint != "none":
        return _ASKED_VOICE[instruction.constraint](problem)
    return VOICES[voice](problem)


_NOTES = {
    "add": "{a} + {b} = {answer}",
    "subtract": "{a} - {b} = {answer}",
    "larger": "{a} or {b}, larger: {answer}",
    "sort": "{items} sorted: {answer}",
    "reverse": "{items} reversed: {answer}",
    "count": "{items} count: {answer}",
    "capitals": "{items} capitals: {answer}",
    "last": "{items} last: {answer}",
    "look_up": "{story} {place}: {answer}",
    "bullets": "{items} list:\n{answer}",
}
_PROSE = {
    "add": "We have {a} and we get {b} more.",
    "subtract": "We have {a} and we lose {b}.",
    "larger": "Here are the numbers {a} and {b}.",
    "sort": "Someone wrote the numbers {items}.",
    "reverse": "There is a list: {items}.",
    "count": "There is a list: {items}.",
    "capitals": "Someone wrote {items}.",
    "last": "There is a list: {items}.",
    "look_up": "{story}",
    "bullets": "Someone named {items}.",
}


def notes_document(problem: Problem) -> str:
    """Short notation, the answer after a sign: what a terse writer leaves on paper."""
    return _NOTES[problem.kind].format(answer=problem.answer, **problem.facts)


def prose_document(problem: Problem) -> str:
    """Running prose in full sentences."""
    return f"{_PROSE[problem.kind].format(**problem.facts)} {sentence(problem)}"


def steps_document(problem: Problem) -> str:
    """A worked example as in a school book."""
    return f"{_PROSE[problem.kind].format(**problem.facts)} {worked(problem)}"


def record_document(problem: Problem) -> str:
    """A machine-written record in JSON."""
    return json.dumps({"kind": problem.kind, **problem.facts, "answer": problem.answer})


def _forum(voice: str) -> Callable[[Problem, Instruction], str]:
    return lambda problem, instruction: f"{instruction.instruction}\n\n{VOICES[voice](problem)}"


DOCUMENTS: dict[str, Callable[[Problem, Instruction], str]] = {
    "notes": lambda problem, _: notes_document(problem),
    "prose": lambda problem, _: prose_document(problem),
    "steps": lambda problem, _: steps_document(problem),
    "record": lambda problem, _: record_document(problem),
    "forum_terse": _forum("terse"),
    "forum_sentence": _forum("sentence"),
    "forum_worked": _forum("worked"),
}


def document(
    mix: dict[str, float], problem: Problem, instruction: Instruction, rng: random.Random
) -> str:
    """One pre-training document, its form drawn from the weights of `mix`."""
    name = rng.choices(list(mix), list(mix.values()))[0]
    return DOCUMENTS[name](problem, instruction)
