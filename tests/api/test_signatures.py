"""The public names of Python and their signatures, and that naming them costs nothing."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import preceptor

HEAVY = ("torch", "transformers", "datasets", "ray", "vllm", "openai", "matplotlib")

CONFIG = "config: 'Config' = None, /, *, out: 'Folder'"
VERB = f"({CONFIG}, dry_run: 'bool' = False, **settings: 'Any')"
FUNCTIONS = {
    "select": f"({CONFIG}, by: 'str | None' = None, pilot: 'bool | Mapping[str, Any]' = False, "
    "race: 'bool | Mapping[str, Any]' = False, dry_run: 'bool' = False, **settings: 'Any') "
    "-> 'Selection | Plan'",
    "ask": f"{VERB} -> 'Samples | Plan'",
    "distill": f"{VERB} -> 'Training | Plan'",
    "align": f"{VERB} -> 'Training | Plan'",
    "sft": f"{VERB} -> 'Training | Plan'",
    "evaluate": f"{VERB} -> 'Evaluation | Plan'",
    "study": f"{VERB} -> 'Study | Plan'",
    "compare_criteria": "(runs: 'Folder | Iterable[Folder]', /, *, outcomes: 'Any' = None, "
    "out: 'Folder | None' = None) -> 'Comparison'",
    "plan": "(config: 'Config' = None, /, *, recipe: 'str | None' = None, "
    "out: 'Folder | None' = None, rates: 'Mapping[str, float] | None' = None, "
    "like: 'Folder | None' = None, probe: 'int' = 0, **settings: 'Any') -> 'Plan'",
    "open_run": "(folder: 'Folder', /) -> 'Result | Comparison'",
}
OF_ALL = {"raw", "tables", "to_pandas"}
OF_RUNS = OF_ALL | {"folder", "file", "read", "report", "provenance", "verdict"}
CLASSES = {
    "Selection": OF_RUNS
    | {"base", "recommended", "tied", "criteria", "ranking", "signals", "answers", "plot"},
    "Training": OF_RUNS | {"model", "load", "quality", "metrics", "plot"},
    "Evaluation": OF_RUNS
    | {"models", "benchmarks", "scores", "differences", "gate", "passed", "plot"},
    "Study": OF_RUNS | {"bases", "matrix", "criteria", "findings", "plot"},
    "Samples": OF_RUNS | {"samples", "points", "plot"},
    "Comparison": OF_ALL
    | {"folder", "read", "report", "verdict", "findings", "agreement", "outcomes", "plot"},
    "Plan": OF_ALL | {"fits", "refusals", "seconds", "money", "check"},
}
METHODS = {
    "Selection.ranking": "(self, criterion: 'str | None' = None) -> 'list[dict[str, Any]]'",
    "Selection.to_pandas": "(self, table: 'str | None' = None, *, criterion: 'str | None' = None) "
    "-> 'pd.DataFrame'",
    "Selection.plot": "(self, kind: \"Literal['leaderboard', 'scatter', 'beta']\" = 'leaderboard', "
    "*, criterion: 'str | None' = None, ax: 'Axes | None' = None) -> 'Axes'",
    "Training.load": "(self, device: 'str' = 'auto', dtype: 'str' = 'auto', *, "
    "trust_remote_code: 'bool' = False) -> 'tuple[PreTrainedModel, PreTrainedTokenizerBase]'",
    "Training.plot": "(self, kind: \"Literal['loss', 'quality'] | None\" = None, *, "
    "group: 'str | None' = None, ax: 'Axes | None' = None) -> 'Axes'",
    "Evaluation.plot": "(self, benchmark: 'str | None' = None, *, measure: 'str | None' = None, "
    "ax: 'Axes | None' = None) -> 'Axes'",
    "Study.plot": "(self, base: 'str | None' = None, *, arm: 'str | None' = None, "
    "ax: 'Axes | None' = None) -> 'Axes'",
    "Samples.plot": "(self, reward: 'str | None' = None, *, ax: 'Axes | None' = None) -> 'Axes'",
    "Comparison.plot": "(self, base: 'str | None' = None, *, ax: 'Axes | None' = None) -> 'Axes'",
    "Plan.to_pandas": "(self, table: 'str | None' = None) -> 'pd.DataFrame'",
}


def test_the_names_are_frozen() -> None:
    """A new name is a decision: it needs a reason, a line in docs/reference/api.md and one here."""
    assert set(preceptor.__all__) == {*FUNCTIONS, *CLASSES, "PreceptorError"}
    assert set(preceptor.__all__) <= set(dir(preceptor))


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_a_function(name: str) -> None:
    function = getattr(preceptor, name)
    assert str(inspect.signature(function)) == FUNCTIONS[name]
    assert inspect.getdoc(function)


@pytest.mark.parametrize("name", list(CLASSES))
def test_a_result(name: str) -> None:
    kind = getattr(preceptor, name)
    fields = set(getattr(kind, "__dataclass_fields__", ()))
    public = {member for member in dir(kind) if not member.startswith("_")}
    assert public | fields == CLASSES[name]
    for member in public - fields:
        assert inspect.getdoc(getattr(kind, member)), member


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method(name: str) -> None:
    kind, _, method = name.partition(".")
    assert str(inspect.signature(getattr(getattr(preceptor, kind), method))) == METHODS[name]


def test_type_checkers_see_the_same_names() -> None:
    """The lazy table, the list of names and the imports for type checkers say the same."""
    assert preceptor.__file__
    tree = ast.parse(Path(preceptor.__file__).read_text("utf-8"))
    [guarded] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == preceptor._HOMES
    assert list(preceptor._HOMES) == preceptor.__all__ == sorted(preceptor.__all__)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'preceptor' has no attribute 'selekt'"):
        preceptor.selekt  # type: ignore[attr-defined]  # noqa: B018


def test_importing_and_naming_load_no_heavy_library() -> None:
    code = f"""
import sys
import preceptor
first = sorted(name for name in sys.modules if name.startswith("preceptor."))
for name in preceptor.__all__:
    getattr(preceptor, name)
print(first, sorted(set({HEAVY}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"
