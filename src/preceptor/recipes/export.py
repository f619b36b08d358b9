"""`preceptor export`: training sets from the samples of `ask`, for TRL and `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.core.progress import say
from preceptor.core.run import hash_input, open_run
from preceptor.recipes.asking.card import TRAIN, SetFacts, dataset_card
from preceptor.recipes.asking.picking import REWARD, pick_together, read_pool
from preceptor.recipes.settings.asking import OTHER_FORM, Export

_TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
_CONVERSATION = pa.list_(_TURN)
_KEPT = ("instruction_id", "teacher", "temperature", "top_p", "sample")  # beside the conversation


def export(settings: Export, out: Path, command: str = "preceptor export") -> list[str]:
    """Pick every set, and write `out`: a folder that `datasets.load_dataset(out, NAME)` reads.

    All sets hold the same instructions, so that models trained on them can be compared.

    Args:
        settings: which sets of which run.
        out: the folder; one that the same settings began is finished.
        command: what to type to make it again, for the card and the provenance.

    Returns:
        A line for each set: its name, rows and mean rewards.

    Raises:
        SettingsError: a set that the run has no samples for.
        DataError: no instruction has a row in every set.
        RunFolderError: `settings.run` is no finished asking, or `out` belongs to other settings.
    """
    folder = Path(settings.run)
    asked = _finished(folder)
    table = pq.read_table(folder / artifacts.SAMPLES)
    picked = pick_together(read_pool(table), settings.sets, settings.seed)
    facts = {name: _facts(settings, name, rows, table) for name, rows in picked.items()}
    inputs = {str(folder): hash_input(str(folder / artifacts.SAMPLES), table)}
    identity = {"settings": settings.model_dump(mode="json"), "inputs": inputs, "models": {}}
    with open_run(out, identity, command) as run:
        if run.finished:
            say(f"{out} holds the sets of these settings")
        else:
            for name, rows in picked.items():
                for form, config in forms_of(settings, name).items():
                    run.path(config).mkdir(exist_ok=True)
                    conversations = as_form(table.take(rows), form, settings.system)
                    artifacts.write_table(run.path(config) / TRAIN, conversations)
            n = len(set(table["instruction_id"].to_pylist()))
            card = dataset_card(settings, asked, facts, n, inputs[str(folder)], command)
            artifacts.write_bytes(run.path(artifacts.CARD), card.encode())
            run.facts["sets"] = {name: own.rows for name, own in facts.items()}
            run.finish()
    return [own.line() for own in facts.values()]


def _finished(folder: Path) -> dict[str, Any]:
    """The provenance of a finished asking (raises RunFolderError)."""
    known = artifacts.read_json(folder / artifacts.PROVENANCE, {})
    missing = [n for n in (artifacts.SAMPLES, artifacts.ASK) if not (folder / n).exists()]
    if missing or known.get("status") != "finished":
        if not folder.exists():
            found = "no such folder"
        elif known.get("status") == "running":
            found = "a run that is not finished"
        else:
            found = f"no {' and no '.join(missing or [artifacts.PROVENANCE])}"
        raise RunFolderError(
            "this is no folder of a finished `preceptor ask`",
            where=str(folder),
            found=found,
            next_step="run `preceptor ask` to its end, and set `run` to its --out",
        )
    return known


def forms_of(settings: Export, name: str) -> dict[str, str]:
    """Form -> the name that `datasets` knows the set by in it."""
    if settings.form == "both":
        return {"messages": name, "prompt_completion": name + OTHER_FORM}
    return {settings.form: name}


def as_form(rows: pa.Table, form: str, system: str) -> pa.Table:
    """Samples as conversations in TRL's form, with what they are known by and their rewards."""
    opening = [{"role": "system", "content": system}] if system else []
    prompts = [
        [*opening, {"role": "user", "content": text}] for text in rows["instruction"].to_pylist()
    ]
    replies = [[{"role": "assistant", "content": text}] for text in rows["response"].to_pylist()]
    if form == "messages":
        both = [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)]
        columns: dict[str, Any] = {"messages": pa.array(both, _CONVERSATION)}
    else:
        columns = {
            "prompt": pa.array(prompts, _CONVERSATION),
            "completion": pa.array(replies, _CONVERSATION),
        }
    rewards = [name for name in rows.column_names if name.startswith(REWARD)]
    return pa.table(columns | {name: rows[name] for name in (*_KEPT, *rewards)})


def _facts(settings: Export, name: str, rows: np.ndarray, table: pa.Table) -> SetFacts:
    own = table.take(rows)
    reasons = own["finish_reason"].to_pylist()
    return SetFacts(
        name=name,
        wanted=settings.sets[name],
        configs=forms_of(settings, name),
        rows=own.num_rows,
        instructions=len(set(own["instruction_id"].to_pylist())),
        points=list(dict.fromkeys(_rows(own, ("teacher", "temperature", "top_p")))),
        rewards=dict(_means(own)),
        tokens=_mean(own["n_generated"]),
        cut=reasons.count("length"),
    )


def _rows(table: pa.Table, names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _means(table: pa.Table) -> Iterator[tuple[str, float | None]]:
    for name in table.column_names:
        if name.startswith(REWARD):
            yield name.removeprefix(REWARD), _mean(table[name])


def _mean(column: Any) -> float | None:
    values = [value for value in column.to_pylist() if value is not None]
    return float(np.mean(values)) if values else None
