"""What a router reads of a finished selection: its prompts, and the numbers of their answers.

Nothing but the run folder is read, which may have been copied from another machine.

Shapes: M teachers, N prompts of the selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from preceptor.core import artifacts
from preceptor.core.criterion import Signals
from preceptor.core.errors import DataError, RunFolderError
from preceptor.core.run import hash_input
from preceptor.selection.ranking import apply_map


@dataclass(frozen=True)
class Selected:
    """What a router reads of a finished selection.

    Attributes:
        settings: as in its `settings.yaml`, not looked up again: models may be elsewhere now.
        texts: of the prompts.
        signals: of the teachers that answered them all; the first reward, mapped.
    """

    folder: Path
    settings: dict[str, Any]
    ranking: dict[str, Any]
    texts: tuple[str, ...]
    signals: Signals
    warnings: tuple[str, ...]
    inputs: dict[str, str]


def read_selected(folder: Path) -> Selected:
    """What a router reads of the run folder of a finished selection.

    Raises:
        RunFolderError: no finished selection, or one without answers or losses.
        DataError: one of a single teacher.
    """
    names = (artifacts.SETTINGS, artifacts.RANKING, artifacts.SIGNALS, artifacts.ANSWERS)
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise _refused(folder, f"no {', no '.join(missing)}" if folder.is_dir() else "no folder")
    try:
        settings = yaml.safe_load((folder / artifacts.SETTINGS).read_text(encoding="utf-8"))
        ranking = artifacts.read_json(folder / artifacts.RANKING)
        table = pq.read_table(folder / artifacts.SIGNALS)
        texts = pq.read_table(folder / artifacts.ANSWERS, columns=["instruction_id", "instruction"])
        reward = settings["rewards"][0]
        column = table[f"reward.{reward['name']}"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _refused(folder, f"{type(error).__name__}: {error}") from error
    except (yaml.YAMLError, pa.ArrowException) as error:
        raise _refused(folder, f"{type(error).__name__}: {error}") from error
    if table["nll"].null_count:
        raise RunFolderError(
            "the selection measured no losses",
            where=str(folder / artifacts.SIGNALS),
            found="a column nll without numbers: none of its criteria reads it",
            next_step="add `persyn` or `perplexity` to its `criteria`, and run it again",
        )
    teachers, ids, places_MN, warnings = _grid(folder, table)
    mapped = apply_map(
        column.to_numpy(), reward["map"], reward.get("scale", 1.0), reward.get("shift", 0.0)
    )
    signals = Signals(
        teachers=teachers,
        n_tokens_MN=table["n_tokens"].to_numpy().astype(np.float64)[places_MN],
        nll_MN=table["nll"].to_numpy()[places_MN],
        reward_MN=mapped[places_MN],
    )
    text_of = dict(
        zip(texts["instruction_id"].to_pylist(), texts["instruction"].to_pylist(), strict=True)
    )
    parts = (artifacts.SIGNALS, artifacts.ANSWERS)
    inputs = {f"{folder.name}/{name}": hash_input(str(folder / name), table) for name in parts}
    return Selected(
        folder,
        settings,
        ranking,
        tuple(text_of[key] for key in ids),
        signals,
        warnings,
        inputs,
    )


def _refused(folder: Path, found: str) -> RunFolderError:
    return RunFolderError(
        "this is no folder of a finished `preceptor select`",
        where=str(folder),
        found=found,
        next_step="give the --out of a selection that has ended",
    )


def _grid(
    folder: Path, table: pa.Table
) -> tuple[tuple[str, ...], list[str], np.ndarray, tuple[str, ...]]:
    """(teachers, prompts, rows of their answers, warnings); all answered all of these prompts.

    A race asks those that it drops no further: they are left out.
    """
    rows: dict[str, dict[str, int]] = {}
    pairs = zip(table["teacher"].to_pylist(), table["instruction_id"].to_pylist(), strict=True)
    for place, (teacher, key) in enumerate(pairs):
        rows.setdefault(teacher, {})[key] = place
    most = max(map(len, rows.values()), default=0)
    teachers = sorted(name for name, own in rows.items() if len(own) == most)
    if len(teachers) < 2:
        raise DataError(
            "there is nobody to route between",
            where=str(folder),
            found=f"answers of {', '.join(teachers) or 'nobody'} alone"
            if len(rows) < 2
            else f"{teachers[0]} alone answered all prompts; a race dropped the others",
            next_step="run a selection among two teachers or more, without `race`",
        )
    ids = list(rows[teachers[0]])
    if any(rows[name].keys() != rows[teachers[0]].keys() for name in teachers):
        raise _refused(folder, "teachers that answered different prompts")
    places_MN = np.array([[rows[name][key] for key in ids] for name in teachers])
    left = sorted(set(rows) - set(teachers))
    warning = f"left out, as they did not answer all prompts: {', '.join(left)}"
    return tuple(teachers), ids, places_MN, (warning,) if left else ()
