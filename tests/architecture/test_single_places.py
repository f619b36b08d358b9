"""What has one place has no other: loading models, shifting labels, display, errors, and writing.

Each rule reads the syntax tree of every file. A table of places says who may, and why; a place that
no longer does is an error, too, so the tables stay true.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from tools import house

Found = dict[str, list[int]]
IMPORTS = (ast.Import, ast.ImportFrom, ast.Call)


@cache
def trees() -> dict[str, ast.Module]:
    """Every file of the package by its place in it."""
    files = house.python_files()
    assert len(files) > 200
    return {str(path.relative_to(house.PACKAGE)): house.parse(path) for path in files}


@cache
def nodes() -> dict[type[ast.AST], list[tuple[str, Any]]]:
    """(file, node) of every node, by its class."""
    found: dict[type[ast.AST], list[tuple[str, Any]]] = {}
    for name, tree in trees().items():
        for node in ast.walk(tree):
            found.setdefault(type(node), []).append((name, node))
    return found


def where(matches: Callable[[Any], bool], *kinds: type[ast.AST]) -> Found:
    """Lines of the nodes of some classes that match, by file."""
    found: Found = {}
    for kind in kinds:
        for name, node in nodes().get(kind, []):
            if matches(node):
                found.setdefault(name, []).append(getattr(node, "lineno", 0))
    return found


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or an attribute; what is not a name stands as `?`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def called(node: ast.AST) -> str:
    """The name that a call calls; of other nodes, nothing."""
    return dotted(node.func) if isinstance(node, ast.Call) else ""


def imports(node: Any) -> list[str]:
    """Modules that a statement imports, also `importlib.import_module("NAME")`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if called(node).endswith("import_module") and isinstance(node, ast.Call):
        return [part.value for part in constants(node.args[0]) if isinstance(part.value, str)]
    return []


def constants(node: ast.AST) -> Iterator[ast.Constant]:
    return (part for part in ast.walk(node) if isinstance(part, ast.Constant))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def brings(*modules: str) -> Callable[[ast.AST], bool]:
    """Whether a statement imports one of these modules, or something of it."""
    return lambda node: any(
        name == module or name.startswith(f"{module}.")
        for name in imports(node)
        for module in modules
    )


# models


def test_models_are_opened_and_loaded_in_one_place() -> None:
    found = where(lambda node: node.attr == "from_pretrained", ast.Attribute)
    assert set(found) == {"models/load.py"}


def test_nothing_is_unpickled_but_between_workers_of_one_run() -> None:
    """Weights are safetensors; results are JSON, Parquet and NumPy without objects."""
    loads = {"pickle.load", "pickle.loads", "torch.load", "joblib.load", "pickle.Unpickler"}
    assert set(where(lambda node: called(node) in loads, ast.Call)) == {
        "fleets/processes.py",
        "fleets/ray.py",
    }
    allowed = where(
        lambda node: node.arg == "allow_pickle" and ast.unparse(node.value) != "False",
        ast.keyword,
    )
    assert allowed == {}


# labels

TOKENS = ("labels", "targets", "ids", "input_ids", "logits", "log_p", "log_q", "hidden")
SHIFTS = {
    "data/rendering.py": "the one place",
    "lab/build.py": "trains the lab's checkpoints, and imports no room but core",
}


def shifts(node: ast.AST) -> bool:
    """`labels_BT[:, 1:]`, `logits[..., :-1, :]` and the like: one step off along the tokens."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Tuple):
        return False
    name = dotted(node.value).rpartition(".")[2].rstrip("BTNVD_23")
    steps = [part for part in node.slice.elts if isinstance(part, ast.Slice)]
    return name in TOKENS and any(ast.unparse(step) in ("1:", ":-1") for step in steps)


def is_minus_100(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
        and node.operand.value == 100
        and isinstance(node.operand.value, int)
    )


def test_labels_are_shifted_in_one_place() -> None:
    for text in ("labels_BT[:, 1:]", "logits[..., :-1, :]", "batch.input_ids[:, :-1]"):
        assert shifts(ast.parse(text, mode="eval").body), text
    for text in ("labels_BT[:, 2:]", "weights[1:]", "ids[1:]", "segments_BT[:, 1:]"):
        assert not shifts(ast.parse(text, mode="eval").body), text
    slices = set(where(shifts, ast.Subscript))
    assert slices <= set(SHIFTS) and "data/rendering.py" in slices
    marks = set(where(is_minus_100, ast.UnaryOp))
    assert marks - {"data/examples.py"} == set(SHIFTS)  # examples.py writes labels, unshifted
    callers = where(lambda node: dotted(node).endswith("scored_rows"), ast.Name, ast.Attribute)
    assert set(callers) == {"training/batches.py"}


# display

PRINTERS = {
    "cli.py": "verbs",
    "cli_tools.py": "verbs",
    "core/progress.py": "the one progress display",
    "lab/build.py": "a program of its own",
}


def test_there_is_one_progress_display() -> None:
    bars = where(brings("rich.progress", "rich.live", "rich.status", "tqdm"), *IMPORTS)
    assert set(bars) == {"core/progress.py"}
    assert set(where(lambda node: called(node) == "print", ast.Call)) == set(PRINTERS)
    tables = {name for name in where(brings("rich"), *IMPORTS) if not name.startswith("reporting/")}
    assert tables == {"core/progress.py"}


def test_the_streams_of_the_process_are_left_alone() -> None:
    written = where(lambda node: called(node) in ("sys.stdout.write", "sys.stderr.write"), ast.Call)
    assert set(written) == {"rewards/verifiers/calculator.py"}  # a child that talks to its parent
    leaves = where(lambda node: called(node) in ("sys.exit", "exit", "quit"), ast.Call)
    assert leaves == {}


# errors

INTERNAL = {
    "data/answer_store.py": {"_LeftError": "leaves a `with` block, and is caught there"},
    "data/chat.py": {"UnreadableReplyError": "asked again by `data/chat_server.py`"},
    "data/chat_server.py": {"StoppedError": "ends a thread; its cause is raised instead"},
}
# of Python's own, those by which functions refuse arguments, readers and validators report, and a
# module says that it lacks a name
BUILTIN = {
    *("ValueError", "KeyError", "RuntimeError", "AssertionError", "OSError", "PermissionError"),
    "AttributeError",
}


def bases(node: ast.AST) -> list[str]:
    return [dotted(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []


def exceptions() -> set[str]:
    """Names that are exceptions of Python."""
    known = vars(builtins).items()
    return {
        name for name, kind in known if isinstance(kind, type) and issubclass(kind, BaseException)
    }


def test_there_is_one_family_of_errors() -> None:
    strangers: dict[str, set[str]] = {}
    for name, node in nodes()[ast.ClassDef]:
        if set(bases(node)) & exceptions():
            strangers.setdefault(name, set()).add(node.name)
    root = strangers.pop("core/errors.py")
    assert root == {"PreceptorError"}
    assert strangers == {name: set(kinds) for name, kinds in INTERNAL.items()}


def raised() -> Iterator[tuple[str, str]]:
    """File and name of every exception that is raised by its name."""
    for name, node in nodes()[ast.Raise]:
        if node.exc is not None:
            target = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            yield name, dotted(target).rpartition(".")[2]


def test_no_bare_exception_is_raised() -> None:
    of_python = {(name, kind) for name, kind in raised() if kind in exceptions()}
    assert {kind for _, kind in of_python} == {*BUILTIN, "SystemExit"}
    assert {name for name, kind in of_python if kind == "SystemExit"} == {"cli.py"}


def test_an_error_of_ours_says_what_to_do_next() -> None:
    """`what` alone tells the user neither where it happened nor what helps."""
    kinds = ("SettingsError", "DataError", "ModelError", "RunFolderError")
    silent = where(
        lambda node: (
            dotted(node.func) in kinds
            and not any(keyword.arg in ("next_step", None) for keyword in node.keywords)
        ),
        ast.Call,
    )
    assert silent == {}


# writing

WHOLE = {
    "core/artifacts.py": "whole files, for everyone",
    "core/live.py": "what a run is at, for those who look on: whole, but not flushed",
    "data/token_store.py": "files that are written in their middle, by many",
    "recipes/teaching/student.py": "a folder of weights, whole",
    "models/upcycle.py": "a folder of weights, whole",
    "lab/build.py": "a folder of weights, whole",
}
OPENED = {
    "core/artifacts.py": "whole files, for everyone",
    "core/run.py": "a lock",
    "data/answer_store.py": "a lock",
    "data/signal_store.py": "a lock",
    "data/token_store.py": "files that are written in their middle, by many",
    "training/metrics.py": "a log that grows by lines",
    "benchmarks/eleuther/tasks.py": "nowhere: what the harness prints is dropped",
}
MOVES = {"rename", "renames"}


def moves(node: ast.AST) -> bool:
    """`os.replace`, `path.replace(other)`, `path.rename(other)`, `shutil.move` and `os.fsync`."""
    if not isinstance(node, ast.Call):
        return False
    name, arguments = called(node), len(node.args) + len(node.keywords)
    last = name.rpartition(".")[2]
    if name in ("os.replace", "os.rename", "os.link", "shutil.move", "os.fsync"):
        return True
    of_text = any(_is_text(argument) for argument in node.args)
    return last in MOVES or (last == "replace" and arguments == 1 and not of_text)


def opens_to_write(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or called(node).rpartition(".")[2] != "open":
        return False
    modes = [part.value for part in node.args[1:2] if isinstance(part, ast.Constant)]
    modes += [
        keyword.value.value
        for keyword in node.keywords
        if keyword.arg == "mode" and isinstance(keyword.value, ast.Constant)
    ]
    return any(set(str(mode)) & set("wax+") for mode in modes)


def test_runs_are_written_in_one_place() -> None:
    """Whole files and their renaming are `core/artifacts.py`'s, but for what is named here."""
    assert {*where(moves, ast.Call)} == set(WHOLE)
    assert {*where(opens_to_write, ast.Call)} == set(OPENED)
    by_path = where(
        lambda node: (
            isinstance(node.func, ast.Attribute)
            and node.func.attr in ("write_text", "write_bytes")
            and not dotted(node.func).startswith("artifacts.")
        ),
        ast.Call,
    )
    # into a folder, and to a file, that are renamed when they are whole
    assert set(by_path) == {"models/upcycle.py", "core/live.py"}


@pytest.mark.parametrize("table", [SHIFTS, PRINTERS, WHOLE, OPENED])
def test_places_exist(table: dict[str, str]) -> None:
    assert set(table) <= set(trees())
