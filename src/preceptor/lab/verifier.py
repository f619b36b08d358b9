"""The lab's judge: a graded reward in [0, 1] for any reply, whoever wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

CORRECT, WELL_FORMED, AS_ASKED = 0.7, 0.15, 0.15  # the parts of the reward; they sum to 1


def grade(instruction: str, response: str, row: Mapping[str, str]) -> float:
    """Reward of a reply: 0.7 for the right answer, 0.15 well-formed, 0.15 in the form asked for.

    Lists earn part of the 0.7 for items in their right place. A reply that is not well-formed
    (empty, cut off in the middle of JSON, stuttering) earns nothing for form, and `as asked`
    counts only with at least half of the answer right, so that form alone does not pay.

    Args:
        instruction: the question; the grade depends on `row` alone, which was made with it.
        response: the reply to grade.
        row: `kind`, `constraint` and the reference `answer` of the instruction.

    Returns:
        A number in [0, 1]; higher is better.
    """
    reply = response.strip()
    if not reply:
        return 0.0
    correct = correctness(reply, row["answer"], row["kind"])
    asked = 1.0 if correct >= 0.5 and heeds(reply, row["answer"], row["constraint"]) else 0.0
    return CORRECT * correct + WELL_FORMED * well_formed(reply) + AS_ASKED * asked


def correctness(reply: str, answer: str, kind: str) -> float:
    """Share of the answer that is right, in [0, 1]; single values are right or wrong."""
    given = final_answer(reply, kind)
    if kind == "bullets":
        wanted_items = answer.splitlines()
        given_items = [line for line in given.splitlines() if line.startswith("- ")]
    elif ", " in answer:
        wanted_items = answer.split(", ")
        given_items = re.split(r",\s*", given)
    else:
        return float(given == answer)
    if len(given_items) != len(wanted_items):
        return 0.0
    right = sum(a == b for a, b in zip(given_items, wanted_items, strict=True))
    return 1.0 if right == len(wanted_items) else 0.5 * right / len(wanted_items)


def final_answer(reply: str, kind: str) -> str:
    """What a reader takes as the answer: JSON field, text after `Answer:`, or end of the claim."""
    record = _json_object(reply)
    if record is not None:
        return str(record.get("answer", "")).strip()
    if "Answer:" in reply:
        return _bare(reply.rsplit("Answer:", 1)[1])
    if kind == "bullets":
        return "\n".join(line.strip() for line in reply.splitlines())
    claim = re.search(r"\b(?:is|are)\s+([^.!?\n]+)[.!?]?", reply)
    return _bare(claim.group(1) if claim else reply)


def well_formed(reply: str) -> float:
    """1 if the reply is whole text: closed JSON, no stutter of one word three times in a row."""
    if reply.startswith("{") and _json_object(reply) is None:
        return 0.0
    return 0.0 if re.search(r"\b([A-Za-z]+)(?:\W+\1\b){2,}", reply) else 1.0


def heeds(reply: str, answer: str, constraint: str) -> bool:
    """Whether the reply has the form that the instruction asked for."""
    if constraint == "json":
        return _json_object(reply) is not None
    if constraint == "short":
        return len(reply.rstrip(".").split()) == len(answer.split())
    if constraint == "sentence":
        one_sentence = len(re.findall(r"[.!?](?:\s|$)", reply)) == 1
        return one_sentence and reply[-1] in ".!?" and len(reply.split()) > len(answer.split()) + 1
    return True


def _bare(text: str) -> str:
    return text.strip().rstrip(".").strip().strip('"')


def _json_object(text: str) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # a deep nest of brackets is no JSON to us
        return None
    return value if isinstance(value, dict) else None
