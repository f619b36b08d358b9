"""What a program passes to a verb: a file, a mapping or settings, and keywords over them.

Everything becomes what a settings file could say. Tables in memory go to the run folder as
Parquet, and functions become `module:function`, so that the run can be resumed, repeated and told
of like any other. Reaches no torch.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from preceptor.core.artifacts import make_folder, write_table
from preceptor.core.errors import DataError, SettingsError
from preceptor.core.inputs import find_input, keep_input
from preceptor.core.run import IN_MEMORY
from preceptor.recipes.settings.loading import Settings, read_tree, replace_setting
from preceptor.recipes.settings.shared import Source

Config = str | os.PathLike[str] | Mapping[str, Any] | Settings | None
Keep = Callable[[str, pa.Table], Path]
Keys = tuple[str, ...]  # where a value stands: ("data", "answers")

TABLES = ("answers", "instructions", "questions", "labels", "table")  # settings that name rows


@contextmanager
def settings_tree(
    config: Config,
    values: Mapping[str, Any],
    kinds: type[Settings] | tuple[type[Settings], ...],
    out: Path | None,
    dry_run: bool = False,
) -> Iterator[tuple[dict[str, Any], str]]:
    """Names and values as `validated` takes them, and where they stand, for errors.

    Args:
        config: a settings file, a mapping, settings, or nothing.
        values: settings that replace those of `config`; `training.epochs` goes into a mapping.
        kinds: what settings may be.
        out: the run folder, where tables in memory are kept.
        dry_run: leave the run folder alone; tables are kept as long as the context is open.

    Raises:
        SettingsError: a file that cannot be read, or a value that settings cannot hold.
        DataError: a table in memory that is none.
        RunFolderError: a run folder of other inputs, or one that cannot be written.
    """
    with _keeper(out, dry_run) as keep:
        tree, where = _opened(config, kinds, keep)
        for key, value in values.items():
            replace_setting(tree, key, _plain(value, tuple(key.split(".")), keep), where)
        yield tree, where


@contextmanager
def _keeper(out: Path | None, dry_run: bool) -> Iterator[Keep]:
    """Where tables in memory go: into the run folder, or out of the way."""
    if out is not None and not dry_run:
        yield lambda name, table: keep_input(out, name, table)
        return
    with tempfile.TemporaryDirectory(prefix="preceptor-") as place:

        def keep(name: str, table: pa.Table) -> Path:
            found = None if out is None else find_input(out, name, table)
            return found or keep_input(Path(place), name, table)

        yield keep


def _opened(
    config: Config, kinds: type[Settings] | tuple[type[Settings], ...], keep: Keep
) -> tuple[dict[str, Any], str]:
    if config is None:
        return {}, "arguments"
    if isinstance(config, Settings):
        if isinstance(config, kinds):
            return config.model_dump(), type(config).__name__
        named = kinds if isinstance(kinds, tuple) else (kinds,)
        raise SettingsError(
            "these are settings of another verb",
            where="config",
            found=type(config).__name__,
            next_step=f"give {' or '.join(kind.__name__ for kind in named)}, a mapping or a file",
        )
    if isinstance(config, Mapping):
        return _plain(config, (), keep), "config"
    if isinstance(config, str | os.PathLike):
        return read_tree(Path(config)), str(config)
    raise SettingsError(
        "settings are read from a file, a mapping or a settings object",
        where="config",
        found=type(config).__name__,
        next_step="give one of these, or keyword arguments alone",
    )


def _plain(value: Any, keys: Keys, keep: Keep) -> Any:
    """`value` as a settings file could say it."""
    if value is None or isinstance(value, str | bool | int | float | Settings):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    table = as_table(value, keys)
    if table is not None:
        return str(keep(_file_name(keys), table).resolve())
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, (*keys, str(name)), keep) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner, (*keys, str(n)), keep) for n, inner in enumerate(value)]
    if callable(value):
        return _target(value, keys)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of NumPy or torch
        return value.item()
    return value


def _file_name(keys: Keys) -> str:
    """`data.answers` of the table in `data: {answers: {path: ...}}`."""
    own = keys[:-1] if keys[-1:] == ("path",) and len(keys) > 1 else keys
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", ".".join(own))


def as_table(value: Any, keys: Keys = ()) -> pa.Table | None:
    """The Arrow table that a value in memory is; None of what is no table.

    Tables are those of pyarrow, `datasets`, pandas, and whatever offers its rows to Arrow
    (`__arrow_c_stream__`: polars, DuckDB ...); and a list of rows, where settings want rows.

    Raises:
        DataError: values that Arrow cannot hold, or a dataset that is not one table.
    """
    where = ".".join(keys)
    try:
        table = _arrow(value, where)
        if table is None and _are_rows(value, keys):
            names = dict.fromkeys(name for row in value for name in row)
            table = pa.table({n: pa.array([row.get(n) for row in value]) for n in names})
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            "the table cannot be read",
            where=where,
            found=(str(error) or type(error).__name__).splitlines()[0],
            next_step="give one type a column: texts, numbers, or lists of them",
        ) from error
    if table is None:
        return None
    plain = [_plain_type(field) for field in table.schema]
    return table.cast(pa.schema(plain)).combine_chunks()


def _arrow(value: Any, where: str) -> pa.Table | None:
    if isinstance(value, pa.Table):
        return value
    library, kind = type(value).__module__.partition(".")[0], type(value).__name__
    if library == "datasets" and kind == "Dataset":
        return value.with_format("arrow")[:]
    if library == "datasets" and kind in ("DatasetDict", "IterableDataset", "IterableDatasetDict"):
        raise DataError(
            "this dataset is not one table",
            where=where,
            found=kind,
            next_step="give one split (`dataset['train']`), or the rows of a stream "
            "(`list(stream.take(1000))`)",
        )
    if library == "pandas" and kind == "DataFrame":
        return pa.Table.from_pandas(value, preserve_index=False)
    return pa.table(value) if hasattr(value, "__arrow_c_stream__") else None


def _are_rows(value: Any, keys: Keys) -> bool:
    """Whether a list holds rows, rather than sources: `{path: ..., split: ...}`."""
    rows = isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value)
    named = keys[-2:-1] if keys[-1:] == ("path",) else keys[-1:]
    if not rows or not named or named[0] not in TABLES:
        return False
    return not all(set(row) <= set(Source.model_fields) for row in value)


def _plain_type(field: pa.Field) -> pa.Field:
    """Without what one library noted for itself, and with texts that every reader takes."""
    kind = field.type
    if pa.types.is_string_view(kind):
        kind = pa.large_string()
    return pa.field(field.name, kind)


def _target(function: Any, keys: Keys) -> str:
    """`module:function` of a function that a later run can import (raises SettingsError)."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", None) or type(function).__name__
    if keys[-2:-1] == ("rewards",):
        raise SettingsError(
            "a function alone does not say what kind of reward it is",
            where=".".join(keys),
            found=name,
            next_step='write {"kind": "verifier", "name": ..., "function": the_function} for a '
            "function of (instruction, response, row)",
        )
    known = getattr(sys.modules.get(module), name, None)
    if module == "__main__" or known is not function:
        raise SettingsError(
            "this function has no name that a resumed run could import",
            where=".".join(keys),
            found=f"{name} of {module or 'nowhere'}",
            next_step="write it into a file of its own beside this program, as `def`, and import "
            "it from there; settings then say `file:function`",
        )
    return f"{module}:{name}"


@contextmanager
def known_outcomes(value: Any, out: Path | None) -> Iterator[Path | None]:
    """The file of known outcomes; a table in memory becomes one, in `out` where that is given.

    Raises:
        DataError: neither a path nor a table.
    """
    if value is None or isinstance(value, str | os.PathLike):
        yield None if value is None else Path(value)
        return
    table = as_table(value, ("outcomes", "table"))
    if table is None:
        raise DataError(
            "outcomes are a file or a table",
            where="outcomes",
            found=type(value).__name__,
            next_step="give a path, or a table with the columns `teacher` and `outcome`",
        )
    with tempfile.TemporaryDirectory(prefix="preceptor-") as place:
        folder = Path(place) if out is None else out / IN_MEMORY
        make_folder(folder, "`out`")
        write_table(folder / "outcomes.parquet", table)
        yield folder / "outcomes.parquet"


def listed(value: Any) -> Sequence[Any]:
    """One path, or several, as a sequence."""
    return [value] if isinstance(value, str | os.PathLike) else list(value)
