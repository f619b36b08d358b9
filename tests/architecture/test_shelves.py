"""Every name on a shelf is one file and one function, and the file says what it is."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from preceptor.benchmarks import BENCHMARKS
from preceptor.core.criterion import Criterion, as_criterion
from preceptor.core.errors import SettingsError
from preceptor.core.loss import as_loss
from preceptor.core.plugs import plug
from preceptor.criteria import CRITERIA
from preceptor.fleets import FLEETS
from preceptor.losses import LOSSES
from preceptor.recipes.settings.benchmarks import BenchmarkSetting
from preceptor.recipes.settings.rewards import Reward
from preceptor.recipes.settings.shared import Teacher
from preceptor.rewards import REWARDS, VERIFIERS
from preceptor.teachers import SIGNAL_TEACHERS, TEACHERS

SHELVES = {
    "benchmarks": BENCHMARKS,
    "criteria": CRITERIA,
    "fleets": FLEETS,
    "losses": LOSSES,
    "rewards": REWARDS,
    "teachers": {**TEACHERS, **SIGNAL_TEACHERS},
}
ENTRIES = [
    (room, name, target)
    for room, shelf in {**SHELVES, "verifiers": VERIFIERS}.items()
    for name, target in shelf.items()
]


@pytest.mark.parametrize(("room", "name", "target"), ENTRIES)
def test_an_entry_resolves_and_is_documented(room: str, name: str, target: str) -> None:
    function = plug(room, {name: target}, name)
    module = importlib.import_module(function.__module__)
    assert f"{function.__module__}:{function.__name__}" == target
    assert inspect.getdoc(module), f"{target}: the file has no docstring"
    assert inspect.getdoc(function), f"{target}: the function has no docstring"


@pytest.mark.parametrize("room", list(SHELVES))
def test_every_file_of_a_shelf_stands_on_it(room: str) -> None:
    package = importlib.import_module(f"preceptor.{room}")
    assert package.__file__
    files = {p.stem for p in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
    assert {
        target.partition(":")[0].rpartition(".")[2] for target in SHELVES[room].values()
    } == files


@pytest.mark.parametrize(
    ("shelf", "kind"), [(TEACHERS, Teacher), (REWARDS, Reward), (BENCHMARKS, BenchmarkSetting)]
)
def test_a_name_without_settings_of_its_own_takes_options(
    shelf: dict[str, str], kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that to add one is a file and a line, and no class."""
    monkeypatch.setitem(shelf, "program", "somewhere:program")
    given = {"kind": "program", "name": "mine", "options": {"limit": 3}}
    found = TypeAdapter(kind).validate_python(given)
    assert (found.kind, found.options) == ("program", {"limit": 3})
    with pytest.raises(SettingsError, match=r"unknown \w+ 'progam'") as caught:
        TypeAdapter(kind).validate_python(given | {"kind": "progam"})
    assert caught.value.found == "did you mean 'program'?"


@pytest.mark.parametrize("name", list(CRITERIA))
def test_a_criterion_says_its_direction_unit_and_source(name: str) -> None:
    function = plug("criterion", CRITERIA, name)
    found = as_criterion(name, function)
    assert found.name == name and found.direction in ("higher", "lower") and found.unit
    text = inspect.getdoc(function) or ""
    assert "Range" in text or "range" in text
    assert f"{found.direction} is better" in text
    assert "Source" in text
    taken = set(inspect.signature(function).parameters) - {"signals", "mean"}
    assert set(found.parameters) <= taken
    options = taken - set(found.parameters)
    if found.features is not None:
        options |= set(list(inspect.signature(found.features).parameters)[1:])
    for option in options:  # each has a default, and is told of
        assert as_criterion(name, function, {option: _default(found, option)})
        assert option in text + (inspect.getdoc(found.features) or "")


def _default(criterion: Criterion, option: str) -> object:
    parts = [part for part in (criterion.score, criterion.features) if part is not None]
    known = {k: v.default for part in parts for k, v in inspect.signature(part).parameters.items()}
    assert known[option] is not inspect.Parameter.empty
    return known[option]


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_says_its_range_direction_and_source(name: str) -> None:
    function = plug("loss", LOSSES, name)
    found = as_loss(name, function)
    assert found.name == name and len(found.needs) == 1
    text = inspect.getdoc(function) or ""
    assert "lower is closer" in text
    assert "Source" in text
    for parameter in found.parameters:
        assert f"{parameter}:" in text
