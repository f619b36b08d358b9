"""The lab's instructions: disjoint splits, fixed by their seed, with answers that are right."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from preceptor.core.errors import SettingsError
from preceptor.lab import tasks
from preceptor.lab.place import model_folder, split_name
from preceptor.lab.tasks import CONSTRAINTS, SPLITS, Problem

PINNED = [
    ("last", "Name the final word: king, ring, milk, sun.", "sun"),
    ("sort", "Order the numbers 52, 13, 49.", "13, 49, 52"),
    ("add", "Work out 96 + 25.", "121"),
]


@pytest.fixture(scope="module")
def sets() -> dict[str, list[tasks.Instruction]]:
    return {split: tasks.instructions(split, 600) for split in SPLITS}


def test_splits_are_disjoint_and_without_repeats(sets: dict[str, list[tasks.Instruction]]) -> None:
    texts = [row.instruction for rows in sets.values() for row in rows]
    ids = [row.instruction_id for rows in sets.values() for row in rows]
    assert len(texts) == len(set(texts)) == len(set(ids)) == 1800
    for split, rows in sets.items():
        assert {tasks.split_of(row) for row in rows} == {split}


def test_the_same_seed_gives_the_same_instructions() -> None:
    first = tasks.instructions("selection", 50, seed=3)
    assert tasks.instructions("selection", 50, seed=3) == first
    assert tasks.instructions("selection", 30, seed=3) == first[:30]
    assert tasks.instructions("selection", 50, seed=4) != first


def test_instructions_are_pinned() -> None:
    """Trained checkpoints and recorded runs rest on these: a change makes all of them stale."""
    found = [(row.kind, row.instruction, row.answer) for row in tasks.instructions("selection", 3)]
    assert found == PINNED


def test_kinds_domains_and_forms(sets: dict[str, list[tasks.Instruction]]) -> None:
    rows = [row for split in sets.values() for row in split]
    kinds = Counter(row.kind for row in rows)
    assert set(kinds) == {*tasks.GENERAL, "shop"} and len(kinds) == 11
    assert min(kinds.values()) > 0.04 * len(rows)
    assert 0.06 < kinds["shop"] / len(rows) < 0.14
    assert {row.domain for row in rows if row.kind == "shop"} == {"shop"}
    assert {row.domain for row in rows if row.kind != "shop"} == {"general"}
    forms = Counter(row.constraint for row in rows)
    assert set(forms) == set(CONSTRAINTS)
    assert 0.55 < forms["none"] / len(rows) < 0.8
    assert {row.constraint for row in rows if row.kind == "bullets"} == {"none"}


def test_the_shop_share_is_a_setting() -> None:
    def share(wanted: float) -> float:
        drawn = itertools.islice(tasks.problems(5, wanted), 2000)
        return sum(problem.kind == "shop" for problem in drawn) / 2000

    assert share(0.0) == 0.0
    assert share(0.6) == pytest.approx(0.6, abs=0.05)


def worked_out(problem: Problem) -> str:
    """The answer by other means than the task's own."""
    facts = problem.facts
    items = facts.get("items", "").split(", ")
    if problem.kind in ("add", "subtract", "larger"):
        a, b = int(facts["a"]), int(facts["b"])
        return str({"add": a + b, "subtract": a - b, "larger": a if a > b else b}[problem.kind])
    if problem.kind == "look_up":
        sentence = next(s for s in facts["story"].split(".") if facts["place"] in s)
        return sentence.rsplit(" ", 1)[1]
    if problem.kind == "shop":
        ware = next(ware for ware in tasks.catalogue() if ware["item"] == facts["item"])
        return ware[facts["field"]]
    return {
        "sort": lambda: ", ".join(sorted(items, key=int)),
        "reverse": lambda: ", ".join(items[::-1]),
        "count": lambda: str(facts["items"].count(",") + 1),
        "capitals": lambda: facts["items"].swapcase(),
        "last": lambda: facts["items"].rpartition(", ")[2],
        "bullets": lambda: "- " + facts["items"].replace(", ", "\n- "),
    }[problem.kind]()


def test_answers_are_right() -> None:
    seen = Counter()
    for problem in itertools.islice(tasks.problems(1, 0.1), 1500):
        assert problem.answer == worked_out(problem), problem
        seen[problem.kind] += 1
    assert len(seen) == 11


def test_the_catalogue_is_fixed() -> None:
    catalogue = tasks.catalogue()
    assert len({ware["item"] for ware in catalogue}) == len(catalogue) == 60
    assert catalogue == tasks.catalogue()
    assert all(3 <= int(ware["price"]) <= 99 for ware in catalogue)


def test_every_text_is_filled_in() -> None:
    rng = random.Random(0)
    for problem in itertools.islice(tasks.problems(2, 0.2), 500):
        text = tasks.instruct(problem, rng).instruction
        assert "{" not in text and "}" not in text


def test_names_of_the_lab() -> None:
    assert split_name("lab:test") == "test"
    assert model_folder("lab:elm-m").parts[-3:] == ("lab", "models", "elm-m")
    with pytest.raises(SettingsError, match="no such lab model") as caught:
        model_folder("lab:elm")
    assert caught.value.found == "did you mean 'elm-m'?"
    with pytest.raises(SettingsError, match="no such lab instruction set"):
        split_name("lab:dev")
