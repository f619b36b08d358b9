"""The cells of a study: one training and its exam each, in a folder of its own.

A cell is an ordinary run of `sft`, `distill` or `align`, with the student's exchanges and marks
beside it. `cell.json` is written last: a cell that has one is done. A base that sits the benchmarks
untrained is a cell without a training.
"""

from __future__ import annotations

import gc
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from preceptor.core import artifacts
from preceptor.core.benchmark import Benchmark, Graded
from preceptor.core.errors import PreceptorError, SettingsError
from preceptor.core.fleet import Work
from preceptor.core.progress import quietly
from preceptor.core.types import Runtime
from preceptor.data.asking import Asker
from preceptor.evaluation.tables import exchanges_table, games_table, marks_table
from preceptor.recipes.align import prepare_align
from preceptor.recipes.distill import prepare_distill
from preceptor.recipes.examining.examinees import examine, open_benchmark, open_candidate
from preceptor.recipes.inputs.respondents import open_asker
from preceptor.recipes.settings.loading import validated
from preceptor.recipes.settings.shared import Teacher, TransformersTeacher, VllmTeacher
from preceptor.recipes.settings.study import Arm, Study
from preceptor.recipes.settings.training import Align, Distill, Sft
from preceptor.recipes.sft import prepare_sft
from preceptor.recipes.studying.sources import AnswerSource, store_of
from preceptor.recipes.teaching.course import run_courses
from preceptor.recipes.teaching.student import MODEL

CELLS, BASES, CELL = "cells", "bases", "cell.json"
TEACHER = "{teacher}"  # in an arm's settings: the model of the source's teacher
UNTRAINED = "base"  # name of the base itself among its students
IN_USE = "another process works in this run folder"  # what `open_run` says
PATIENCE = 60.0  # seconds for a worker of an invocation that was killed to be gone
RECIPES: dict[str, tuple[type[Any], Callable[..., Any]]] = {
    "sft": (Sft, prepare_sft),
    "distill": (Distill, prepare_distill),
    "align": (Align, prepare_align),
}


@dataclass(frozen=True)
class Cell:
    """One training and its exam; the exam alone where `source` is "".

    Attributes:
        base: its name in tables.
        folder: below the folder of the study.
    """

    base: str
    source: str
    arm: str
    seed: int
    folder: str

    @property
    def name(self) -> str:
        """Of the student, unique among those of its base."""
        return f"{self.source}/{self.arm}/seed-{self.seed}" if self.source else UNTRAINED

    @property
    def title(self) -> str:
        """For readers, in a few words."""
        if not self.source:
            return f"{self.base} itself"
        return f"{self.base} from {self.source} ({self.arm}, seed {self.seed})"


@dataclass(frozen=True)
class Job:
    """What a worker is given.

    Attributes:
        settings: of the training; None where there is none.
        model: of a base that is not trained, as settings name it.
        deadline: begin nothing that would end later (Unix time); None if there is none.
    """

    cell: Cell
    recipe: str = ""
    settings: Any = None
    model: str = ""
    deadline: float | None = None


def recipe_settings(settings: Study, arm: Arm, base: str, table: str, seed: int, model: str) -> Any:
    """Settings of the training of a cell, which could as well stand in a file.

    Args:
        table: of the answers that the student learns from.
        model: of the source's teacher; "" where it is not known.

    Raises:
        SettingsError: settings that the recipe does not have, or a teacher that is not known.
    """
    given = dict(_filled(arm.settings, model))
    more = given.pop("training", {})
    if isinstance(more, Mapping) and "preset" not in more:
        more = settings.training.model_dump() | dict(more)
    tree = {
        "base": base,
        # long-windedness is a teacher's own: what does not fit is cut, and learned from
        "data": {"answers": table, "max_truncated_share": 1.0},
        "training": more,
        "seed": seed,
        "device": settings.device,
        "dtype": "auto" if settings.dtype == "float16" else settings.dtype,
        "trust_remote_code": settings.trust_remote_code,
        **given,
    }
    return validated(RECIPES[arm.recipe][0], tree, f"arms: settings of {arm.recipe}")


def _filled(value: Any, model: str) -> Any:
    """With the teacher's model instead of `{teacher}`."""
    if isinstance(value, Mapping):
        return {key: _filled(inner, model) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, model) for inner in value]
    if isinstance(value, str) and TEACHER in value:
        if not model:
            raise SettingsError(
                "an arm learns from the teacher's model, and only its answers are known",
                where="arms: settings",
                found=TEACHER,
                next_step="make it a live teacher of kind transformers or vllm",
            )
        return value.replace(TEACHER, model)
    return value


def names_teacher(value: Any) -> bool:
    """Whether settings of an arm hold `{teacher}`."""
    if isinstance(value, Mapping):
        return any(map(names_teacher, value.values()))
    if isinstance(value, list | tuple):
        return any(map(names_teacher, value))
    return isinstance(value, str) and TEACHER in value


def job_of(
    settings: Study,
    cell: Cell,
    sources: Mapping[str, AnswerSource],
    tables: Mapping[str, str],
    bases: Mapping[str, str],
    deadline: float | None = None,
) -> Job:
    """What a worker needs for a cell (raises SettingsError).

    Args:
        tables: name of a source -> file of its answers.
        bases: name of a base -> model.
    """
    base = bases[cell.base]
    if not cell.source:
        return Job(cell, model=base, deadline=deadline)
    arm, source = settings.arms[cell.arm], sources[cell.source]
    own = recipe_settings(settings, arm, base, tables[cell.source], cell.seed, source.model)
    return Job(cell, arm.recipe, own, deadline=deadline)


def open_runtime_of(settings: Study, out: Path) -> Runtime:
    """Where students and bases run, and who asks judges: over the store of the whole study."""
    return Runtime(
        settings.device,
        settings.dtype,
        settings.batch_tokens,
        settings.trust_remote_code,
        ask=open_asker(store_of(settings, out), out),
        seed=settings.seed,
    )


def open_worker(settings: Study, out: Path, command: str) -> Work:
    """A worker of the study: a `Job` in, what became of it out. Opens no weights."""
    with quietly():
        runtime = open_runtime_of(settings, out)
        benchmarks = [open_benchmark(own, runtime) for own in settings.benchmarks]
    return partial(_work, settings, out, command, runtime, benchmarks)


def _work(
    settings: Study,
    out: Path,
    command: str,
    runtime: Runtime,
    benchmarks: Sequence[Benchmark],
    job: Job,
) -> dict[str, Any]:
    """`status` (done, left or failed), `seconds` and `reason` of a cell."""
    started = time.time()
    if job.deadline is not None:
        expected = expected_seconds(out, job.cell)
        if started + (expected or 0.0) > job.deadline:
            return {"status": "left", "seconds": None, "reason": ""}
    try:
        with quietly():
            run_cell(settings, out, command, runtime, benchmarks, job)
    except PreceptorError as error:
        reason = error.what + (f": {error.found}" if error.found else "")
        return {"status": "failed", "seconds": time.time() - started, "reason": reason}
    except Exception as error:  # out of memory, say: the other cells go on
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        return {"status": "failed", "seconds": time.time() - started, "reason": reason}
    finally:
        _let_go()
    return {"status": "done", "seconds": time.time() - started, "reason": ""}


def _let_go() -> None:
    """Memory of the models that are not needed any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_cell(
    settings: Study,
    out: Path,
    command: str,
    runtime: Runtime,
    benchmarks: Sequence[Benchmark],
    job: Job,
) -> None:
    """Train, let the student sit every benchmark, and write its marks; finds what was done before.

    Raises:
        PreceptorError: what a training, a benchmark or a judge refuses.
    """
    folder = out / job.cell.folder
    started = time.monotonic()
    place = job.model
    if job.settings is not None:
        _train(job, folder, f"{command} (cell)")
        place = str((folder / MODEL).resolve())
    folder.mkdir(parents=True, exist_ok=True)
    trained = time.monotonic()
    candidate = open_candidate(_respondent(settings, job.cell.name, place), runtime)
    exchanges: list[pa.Table] = []
    games: list[pa.Table] = []
    marks: list[pa.Table] = []
    facts = {}
    for benchmark in benchmarks:
        said, graded = examine(benchmark, candidate, runtime)
        exchanges.append(exchanges_table(benchmark.name, job.cell.name, said))
        games.append(games_table(benchmark.name, job.cell.name, graded.games))
        marks.append(marks_table(benchmark.name, job.cell.name, graded.marks))
        facts[benchmark.name] = _plain_facts(graded)
    for name, tables in (
        (artifacts.EXCHANGES, exchanges),
        (artifacts.JUDGEMENTS, games),
        (artifacts.MARKS, marks),
    ):
        artifacts.write_table(folder / name, pa.concat_tables(tables))
    ended = time.monotonic()
    artifacts.write_json(
        folder / CELL,
        {
            "model": candidate.fingerprint,
            "facts": facts,
            "seconds": {
                "training": round(trained - started, 2),
                "exam": round(ended - trained, 2),
            },
        },
    )
    asker = runtime.ask
    if isinstance(asker, Asker):
        asker.facts.clear()  # of this cell; the next one counts for itself
    if job.settings is not None and not settings.keep_models:
        shutil.rmtree(folder / MODEL, ignore_errors=True)


def _train(job: Job, folder: Path, command: str) -> None:
    """The training's run; waits for a worker of a killed invocation that still holds its folder."""
    patience = time.monotonic() + PATIENCE
    while True:
        try:
            prepared, courses, against = RECIPES[job.recipe][1](job.settings, folder)
            run_courses(prepared, courses, against, folder, command)
            return
        except PreceptorError as error:
            if error.what != IN_USE or time.monotonic() > patience:
                raise
            time.sleep(0.5)


def _respondent(settings: Study, name: str, place: str) -> Teacher:
    """How a student or base answers benchmarks."""
    how = settings.student
    common = {"name": name, "model": place, "temperature": how.temperature, "top_p": how.top_p}
    if how.kind == "vllm":
        return VllmTeacher.model_validate({**common, "kind": "vllm"})
    return TransformersTeacher.model_validate({**common, "batch_size": how.batch_size})


def _plain_facts(graded: Graded) -> dict[str, float]:
    """What JSON can hold."""
    return {name: float(value) for name, value in graded.facts.items() if value == value}


def is_done(out: Path, cell: Cell) -> bool:
    """Whether the cell's marks are there."""
    return (out / cell.folder / CELL).exists()


def seconds_of(out: Path, cell: Cell) -> float | None:
    """What a cell that is done took."""
    known = artifacts.read_json(out / cell.folder / CELL)
    return None if known is None else float(sum(known["seconds"].values()))


def expected_seconds(out: Path, cell: Cell) -> float | None:
    """Mean of the done cells of the same base and arm; of the same arm; of any. None of none."""
    if not cell.source:
        patterns = [f"{BASES}/*/{CELL}"]
    else:
        base, arm = Path(cell.folder).parts[1], Path(cell.folder).parts[3]
        patterns = [
            f"{CELLS}/{own}/{CELL}" for own in (f"{base}/*/{arm}/*", f"*/*/{arm}/*", "*/*/*/*")
        ]
    for pattern in patterns:
        known = [artifacts.read_json(path)["seconds"] for path in sorted(out.glob(pattern))]
        if known:
            return float(sum(sum(own.values()) for own in known) / len(known))
    return None
