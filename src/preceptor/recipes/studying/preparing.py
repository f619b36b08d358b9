"""What `preceptor study` can read and check before it asks anybody or loads a weight."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.core.benchmark import Benchmark
from preceptor.core.errors import (
    ModelError,
    PreceptorError,
    RunFolderError,
    SettingsError,
    nearest,
)
from preceptor.core.progress import quietly
from preceptor.data.rendering import Renderer
from preceptor.models.load import open_card
from preceptor.models.size import read_size
from preceptor.recipes import ask
from preceptor.recipes.examining.examinees import open_benchmark
from preceptor.recipes.selecting.pilot import rows_table
from preceptor.recipes.selecting.preparing import open_criteria
from preceptor.recipes.selecting.teacher_facts import teacher_facts
from preceptor.recipes.settings.loading import validated
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import model_location, model_name
from preceptor.recipes.settings.study import Study
from preceptor.recipes.studying.cells import (
    BASES,
    CELLS,
    RECIPES,
    Cell,
    names_teacher,
    open_runtime_of,
    recipe_settings,
)
from preceptor.recipes.studying.sources import (
    ANSWERS_FOLDER,
    SOURCES_FOLDER,
    AnswerSource,
    asking_of,
    list_sources,
    selection_of,
)

NOT_OF_THE_IDENTITY = ("budget", "runs")  # settings that no result depends on
PROBED = 5000  # instructions that arms are tried on
CHECKPOINTS = 6.0  # times the weights: two checkpoints, each with two states of the optimiser


@dataclass(frozen=True)
class Prepared:
    """Everything that can be read and checked before anything expensive.

    Attributes:
        bases: name -> model, as the settings name it.
        sources: by name.
        tables: name of a source -> file of its answers.
        places: name of a base -> its part of paths.
        cells: every training, the most general order: arm, seed, base, source.
        untrained: the bases' own exams.
        impossible: folder of a cell -> why it cannot be.
        measures: (benchmark, measure) whose mean is the outcome.
    """

    settings: Study
    out: Path
    asked: ask.Prepared
    bases: dict[str, str]
    sources: dict[str, AnswerSource]
    tables: dict[str, str]
    places: dict[str, str]
    cells: list[Cell]
    untrained: list[Cell]
    impossible: dict[str, str]
    benchmarks: list[Benchmark]
    measures: list[tuple[str, str]]
    identity: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def outcome_title(self) -> str:
        """For readers, in a few words."""
        names = [f"{benchmark}.{measure}" for benchmark, measure in self.measures]
        return names[0] if len(names) == 1 else "mean of " + " and ".join(names)


def prepare(settings: Study, out: Path) -> Prepared:
    """Read and check all that can be known now; `out` is not touched.

    Raises:
        PreceptorError: settings, data, models or a disk that the study cannot be done with. An arm
            that no base can learn by is refused; of one that some can, the others' cells are
            noted as impossible.
    """
    bases = {model_name(base): base for base in settings.bases}
    runtime = open_runtime_of(settings, out)
    benchmarks = [open_benchmark(own, runtime) for own in settings.benchmarks]
    measures, warnings = choose_measures(settings.outcome, benchmarks)
    with quietly():  # its warnings are said when it runs
        asked = ask.prepare(asking_of(settings, out), out / ANSWERS_FOLDER)
    sources = {own.name: own for own in list_sources(settings, asked)}
    places, of_sources = _places(bases), _places(sources)
    models = {f"base {name}": _open_base(settings, base) for name, base in bases.items()}
    models |= asked.identity["models"]
    models |= {f"benchmark {own.name}": own.fingerprint for own in benchmarks if own.fingerprint}
    _check_selection(settings, bases, list(sources.values()), out)
    cells = _cells(settings, places, of_sources, _places(settings.arms))
    settled = settings.model_dump(mode="json", exclude=set(NOT_OF_THE_IDENTITY))
    identity = {"settings": settled, "inputs": asked.identity["inputs"], "models": models}
    tables = {
        name: str((out / SOURCES_FOLDER / f"{place}.parquet").resolve())
        for name, place in of_sources.items()
    }
    prepared = Prepared(
        settings,
        out,
        asked,
        bases,
        sources,
        tables,
        places,
        cells,
        [Cell(name, "", "", 0, f"{BASES}/{places[name]}") for name in bases],
        {},
        benchmarks,
        measures,
        identity,
        warnings,
    )
    prepared.impossible.update(_try_arms(prepared))
    _refuse_small_disk(prepared)
    return prepared


def choose_measures(
    wanted: Sequence[str], benchmarks: Sequence[Benchmark]
) -> tuple[list[tuple[str, str]], list[str]]:
    """The measures of the outcome, and what should be known of them.

    Args:
        wanted: BENCHMARK.MEASURE; the first measure of each benchmark if empty.

    Raises:
        SettingsError: a measure that no benchmark gives, or one that is better where it is lower.
    """
    known = {
        f"{own.name}.{measure.name}": (own, measure)
        for own in benchmarks
        for measure in own.measures
    }
    names = list(wanted) or [f"{own.name}.{own.measures[0].name}" for own in benchmarks]
    found, scales = [], set()
    for name in names:
        if name not in known:
            raise SettingsError(
                f"no benchmark gives the measure {name!r}",
                where="outcome",
                found=nearest(name, known),
                next_step="name it BENCHMARK.MEASURE, or add the benchmark",
            )
        benchmark, measure = known[name]
        if measure.direction == "lower":
            raise SettingsError(
                "an outcome is a measure that is better where it is higher",
                where="outcome",
                found=name,
                next_step="take another measure of the benchmark",
            )
        found.append((benchmark.name, measure.name))
        scales.add((measure.low, measure.high))
    warnings = []
    if len(scales) > 1:
        warnings.append(
            "the measures of the outcome have different scales, which weighs them in their mean: "
            + ", ".join(names)
        )
    return found, warnings


def _places(names: Iterable[str]) -> dict[str, str]:
    """Parts of paths for names, whatever they are; no two are alike, also where case is ignored."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._@-]+", "-", name)[:60].strip("-.") or "x"
        place, number = plain, 1
        while place.lower() in {own.lower() for own in found.values()}:
            number += 1
            place = f"{plain}-{number}"
        found[name] = place
    return found


def _open_base(settings: Study, base: str) -> str:
    """Fingerprint of a base that can be rendered (raises ModelError)."""
    card = open_card(model_location(base), settings.trust_remote_code)
    Renderer(card.tokenizer, card.limit, card.reference)
    return card.fingerprint


def _cells(
    settings: Study, bases: dict[str, str], sources: dict[str, str], arms: dict[str, str]
) -> list[Cell]:
    """Every training; names with their parts of paths come in."""
    return [
        Cell(base, source, arm, seed, f"{CELLS}/{at_base}/{at_source}/{at_arm}/seed-{seed}")
        for arm, at_arm in arms.items()
        for seed in range(settings.seed, settings.seed + settings.seeds)
        for base, at_base in bases.items()
        for source, at_source in sources.items()
    ]


def _check_selection(
    settings: Study, bases: dict[str, str], sources: list[AnswerSource], out: Path
) -> None:
    """Settings, criteria and facts of `select`, for every base (raises SettingsError)."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / artifacts.ANSWERS
        artifacts.write_table(table, rows_table([{"instruction": "-"}]))
        for base in bases.values():
            tree = selection_of(settings, base, sources, str(table), out)
            select = validated(Select, tree, "selection")
            teacher_facts(select, open_criteria(select), [own.name for own in sources])
            if select.reference:
                open_card(model_location(select.reference), settings.trust_remote_code)


def _probe(prepared: Prepared, folder: Path) -> str:
    """A table like those of the sources, with an answer of one sign to every instruction."""
    asked = prepared.asked
    questions = asked.questions or list(
        {
            own.instruction_id: (own.instruction_id, own.instruction, dict(own.row))
            for own in asked.recorded
        }.values()
    )
    rows = [
        {**row, "instruction_id": key, "instruction": text, "teacher": "probe", "response": "-"}
        for key, text, row in questions[:PROBED]
    ]
    table = folder / "probe.parquet"
    artifacts.write_table(table, rows_table(rows))
    return str(table)


def _try_arms(prepared: Prepared) -> dict[str, str]:
    """Folder of each impossible cell -> why.

    The recipe of every arm reads its settings and opens the models' cards, for every base, and for
    every teacher where the arm names it: another tokenizer, or heads that cannot be compared, are
    found now.

    Raises:
        PreceptorError: nothing can be learned by an arm.
    """
    settings, impossible = prepared.settings, {}
    with tempfile.TemporaryDirectory() as folder, quietly():
        table = _probe(prepared, Path(folder))
        for name, arm in settings.arms.items():
            by_teacher = names_teacher(arm.settings)
            tried: dict[tuple[str, str], PreceptorError | None] = {}
            for base, source in {(cell.base, cell.source): 0 for cell in prepared.cells}:
                own = prepared.sources[source]
                key = (base, own.teacher if by_teacher else "")
                if key not in tried:
                    tried[key] = _fault(prepared, arm, base, own, table, Path(folder))
            faults = [fault for fault in tried.values() if fault is not None]
            if len(faults) == len(tried):
                raise faults[0]
            for cell in prepared.cells:
                key = (cell.base, prepared.sources[cell.source].teacher if by_teacher else "")
                fault = tried[key]
                if cell.arm == name and fault is not None:
                    found = f": {fault.found}" if fault.found else ""
                    impossible[cell.folder] = f"not possible: {fault.what}{found}"
    return impossible


def _fault(
    prepared: Prepared, arm: Any, base: str, source: AnswerSource, table: str, folder: Path
) -> PreceptorError | None:
    """What keeps a base from learning by an arm, if anything; unknown settings are raised."""
    settings = prepared.settings
    model = source.model or ("" if names_teacher(arm.settings) else "-")
    try:
        own = recipe_settings(settings, arm, prepared.bases[base], table, settings.seed, model)
    except SettingsError as error:
        if not source.model and names_teacher(arm.settings):
            return error
        raise
    try:
        RECIPES[arm.recipe][1](own, folder / "run")
    except PreceptorError as error:
        return error
    return None


def _refuse_small_disk(prepared: Prepared) -> None:
    """Room for the models that are kept and for checkpoints of what trains at once.

    Weights are kept in float32 where `dtype` is not bfloat16. A lower bound: answers, marks and
    tables are not counted.
    """
    settings, out = prepared.settings, prepared.out
    width = 2 if settings.dtype == "bfloat16" else 4
    weights = {}
    for name, base in prepared.bases.items():
        try:
            counted = read_size(model_location(base), settings.trust_remote_code)
        except ModelError:  # of a size that is not known nothing can be said
            counted = None
        weights[name] = 0 if counted is None else counted.parameters * width
    left = [
        cell
        for cell in prepared.cells
        if cell.folder not in prepared.impossible and not (out / cell.folder).exists()
    ]
    if not left:
        return
    workers = settings.runs.workers
    most = workers if isinstance(workers, int) else workers[1]
    kept = sum(weights[cell.base] for cell in left) if settings.keep_models else 0
    need = kept + CHECKPOINTS * max(weights.values()) * min(most, len(left))
    place = out.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if need > free:
        raise RunFolderError(
            "the disk has no room for the students",
            where=str(place),
            found=f"{free / 1e9:,.1f} GB free, about {need / 1e9:,.1f} GB needed for {len(left)} "
            "trainings",
            next_step="make room, or set `keep_models: false`",
        )
