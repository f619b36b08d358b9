"""Error texts say what, where, found and next; plugs turn names into functions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preceptor.core.criterion import as_criterion
from preceptor.core.errors import DataError, PreceptorError, SettingsError, nearest
from preceptor.core.plugs import plug
from preceptor.core.types import even_batches, length_batches

SHELF = {"dumps": "json:dumps", "gone": "no_such_module_at_all:f"}


def test_the_text_of_an_error() -> None:
    error = DataError("it broke", where="here", found="that", next_step="do this")
    assert str(error) == "it broke\n  where: here\n  found: that\n  next: do this"
    assert str(DataError("it broke", next_step="do this")) == "it broke\n  next: do this"
    assert isinstance(error, PreceptorError)


def test_nearest() -> None:
    assert nearest("temprature", ["top_p", "temperature"]) == "did you mean 'temperature'?"
    assert nearest("zzz", ["b", "a"]) == "known names: a, b"


def test_a_name_on_the_shelf_and_a_function_of_the_user() -> None:
    assert plug("thing", SHELF, "dumps") is json.dumps
    assert plug("thing", SHELF, "json:loads") is json.loads


@pytest.mark.parametrize(
    ("name", "what", "found"),
    [
        ("dump", "unknown thing 'dump'", "did you mean 'dumps'?"),
        ("gone", "cannot be imported", "ModuleNotFoundError: No module named"),
        ("json:dmps", "cannot be imported", "has no attribute 'dmps'"),
        (":f", "cannot be imported", "Empty module name"),
        (".json:f", "cannot be imported", "relative import"),
        ("json:__name__", "is not a function", "str"),
    ],
)
def test_names_that_are_no_function(name: str, what: str, found: str) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        plug("thing", SHELF, name)
    assert found in caught.value.found
    assert caught.value.next_step


def test_a_module_of_the_user_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_plug.py").write_text("1 / 0\n")
    (tmp_path / "wrong_plug.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, found in (("failing_plug:f", "ZeroDivisionError"), ("wrong_plug:f", "SyntaxError")):
        with pytest.raises(SettingsError, match="cannot be imported") as caught:
            plug("thing", SHELF, name)
        assert found in caught.value.found


def test_an_unmarked_criterion_is_refused() -> None:
    with pytest.raises(SettingsError, match="'json:dumps' is not marked as a criterion"):
        as_criterion("json:dumps", json.dumps)


def test_even_batches() -> None:
    assert even_batches(5, 2) == [[0, 1], [2, 3], [4]]
    assert even_batches(0, 2) == []


def test_batches_of_about_equal_length() -> None:
    assert length_batches([3, 10, 4, 1], 12) == [[1], [2], [0], [3]]  # unlike: alone
    assert length_batches([100, 97, 96, 60, 99], 480) == [[0, 4, 1, 2], [3]]
    assert length_batches([10, 8, 2, 9, 1], 80) == [[0, 3], [1, 2, 4]]  # a quarter full at least
    assert length_batches([30, 2], 12) == [[0], [1]]
    assert length_batches([0, 0], 12) == [[0, 1]]
    assert length_batches([], 12) == []
