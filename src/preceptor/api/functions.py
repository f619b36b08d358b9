"""The verbs as functions: settings in, a run folder out, and a result that knows its tables.

Each does what the command of its name does, with the same settings, files and errors: a folder that
a command began, the function finishes, and the other way round. A keyword replaces the setting of
its name, as `KEY=VALUE` does; relative paths in it start from the current folder. Beside what YAML
can say, tables may be given in memory (pandas, `datasets`, Arrow, a list of rows), results of
earlier runs where a path is asked for, and functions of importable modules for `module:function`.

Reaches no torch: a recipe is imported when it is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, overload

from preceptor.api.arguments import Config, known_outcomes, listed, settings_tree
from preceptor.api.comparison import Comparison
from preceptor.api.evaluation import Evaluation
from preceptor.api.plan import Plan
from preceptor.api.result import Result
from preceptor.api.samples import Samples
from preceptor.api.selection import Selection
from preceptor.api.study import Study
from preceptor.api.training import Training
from preceptor.core.errors import RunFolderError
from preceptor.core.progress import settle_notebook
from preceptor.recipes.planning.jobs import JOBS, settings_of_any
from preceptor.recipes.settings.loading import Settings, validated
from preceptor.recipes.starter import RECIPES
from preceptor.recipes.verbs import command_of, need_training, run, select_settings
from preceptor.reporting.findings import run_kinds

Folder = str | os.PathLike[str]
RESULTS: dict[str, type[Result]] = {
    "select": Selection,
    "ask": Samples,
    "distill": Training,
    "align": Training,
    "sft": Training,
    "evaluate": Evaluation,
    "study": Study,
}


@overload
def select(
    config: Config = None,
    /,
    *,
    out: Folder,
    by: str | None = None,
    pilot: bool | Mapping[str, Any] = False,
    race: bool | Mapping[str, Any] = False,
    dry_run: Literal[False] = False,
    **settings: Any,
) -> Selection: ...
@overload
def select(
    config: Config = None,
    /,
    *,
    out: Folder,
    by: str | None = None,
    pilot: bool | Mapping[str, Any] = False,
    race: bool | Mapping[str, Any] = False,
    dry_run: Literal[True],
    **settings: Any,
) -> Plan: ...
def select(
    config: Config = None,
    /,
    *,
    out: Folder,
    by: str | None = None,
    pilot: bool | Mapping[str, Any] = False,
    race: bool | Mapping[str, Any] = False,
    dry_run: bool = False,
    **settings: Any,
) -> Selection | Plan:
    """Rank the teachers for a base model, as `preceptor select` does.

    Args:
        config: a settings file (YAML), a mapping of settings, or `Select` settings.
        out: the run folder; one that the same settings began is finished.
        by: a column of the instructions: also rank on each of its values.
        pilot: also train shortly on the finalists' answers; `True` for all defaults.
        race: ask in rounds, and drop who is surely not the best; `True` for all defaults.
        dry_run: give the plan of the run, and do not run.
        settings: replace those of `config`: `base="lab:base-notes"`, `answers=data_frame` ...

    Raises:
        PreceptorError: bad settings, data, model or folder; before any weight is loaded, save for
            faults that only scoring can show.
    """
    wanted = {"pilot": pilot, "race": race}
    settings |= {name: dict(own) for name, own in wanted.items() if isinstance(own, Mapping)}

    def finished(tree: Mapping[str, Any], where: str) -> Settings:
        asked = {name: isinstance(own, Mapping) or bool(own) for name, own in wanted.items()}
        return select_settings(tree, where, by=by, **asked)

    return _run("select", config, settings, out, dry_run, finished)


@overload
def ask(
    config: Config = None, /, *, out: Folder, dry_run: Literal[False] = False, **settings: Any
) -> Samples: ...
@overload
def ask(
    config: Config = None, /, *, out: Folder, dry_run: Literal[True], **settings: Any
) -> Plan: ...
def ask(
    config: Config = None, /, *, out: Folder, dry_run: bool = False, **settings: Any
) -> Samples | Plan:
    """Ask teachers over a grid of decodings, score the answers and keep every sample.

    As `preceptor ask` does; the arguments are those of `select`.
    """
    return _run("ask", config, settings, out, dry_run)


@overload
def distill(
    config: Config = None, /, *, out: Folder, dry_run: Literal[False] = False, **settings: Any
) -> Training: ...
@overload
def distill(
    config: Config = None, /, *, out: Folder, dry_run: Literal[True], **settings: Any
) -> Plan: ...
def distill(
    config: Config = None, /, *, out: Folder, dry_run: bool = False, **settings: Any
) -> Training | Plan:
    """Train a student from a teacher: answers, next-token distribution, attention maps.

    As `preceptor distill` does (extra `train`); the arguments are those of `select`. `ablate=True`
    also trains on attention alone and on prediction alone.
    """
    return _run("distill", config, settings, out, dry_run)


@overload
def align(
    config: Config = None, /, *, out: Folder, dry_run: Literal[False] = False, **settings: Any
) -> Training: ...
@overload
def align(
    config: Config = None, /, *, out: Folder, dry_run: Literal[True], **settings: Any
) -> Plan: ...
def align(
    config: Config = None, /, *, out: Folder, dry_run: bool = False, **settings: Any
) -> Training | Plan:
    """Add a domain to a model from an expert, without losing the rest.

    As `preceptor align` does (extra `train`); the arguments are those of `select`.
    """
    return _run("align", config, settings, out, dry_run)


@overload
def sft(
    config: Config = None, /, *, out: Folder, dry_run: Literal[False] = False, **settings: Any
) -> Training: ...
@overload
def sft(
    config: Config = None, /, *, out: Folder, dry_run: Literal[True], **settings: Any
) -> Plan: ...
def sft(
    config: Config = None, /, *, out: Folder, dry_run: bool = False, **settings: Any
) -> Training | Plan:
    """Train a model on answers alone, for example a domain expert.

    As `preceptor sft` does (extra `train`); the arguments are those of `select`.
    """
    return _run("sft", config, settings, out, dry_run)


@overload
def evaluate(
    config: Config = None, /, *, out: Folder, dry_run: Literal[False] = False, **settings: Any
) -> Evaluation: ...
@overload
def evaluate(
    config: Config = None, /, *, out: Folder, dry_run: Literal[True], **settings: Any
) -> Plan: ...
def evaluate(
    config: Config = None, /, *, out: Folder, dry_run: bool = False, **settings: Any
) -> Evaluation | Plan:
    """Examine models on benchmarks: scores with intervals, differences, a gate.

    As `preceptor evaluate` does; the arguments are those of `select`. `models` may hold results of
    trainings. Where a condition of `fail_if` holds, nothing is raised: `passed` is False.
    """
    return _run("evaluate", config, settings, out, dry_run)


@overload
def study(
    config: Config = None, /, *, out: Folder, dry_run: Literal[False] = False, **settings: Any
) -> Study: ...
@overload
def study(
    config: Config = None, /, *, out: Folder, dry_run: Literal[True], **settings: Any
) -> Plan: ...
def study(
    config: Config = None, /, *, out: Folder, dry_run: bool = False, **settings: Any
) -> Study | Plan:
    """Find the right teacher, and the criterion that knew it: train from all, and compare.

    As `preceptor study` does (extra `train`); the arguments are those of `select`. `budget=2`
    leaves what does not fit into two hours.
    """
    return _run("study", config, settings, out, dry_run)


def compare_criteria(
    runs: Folder | Iterable[Folder], /, *, outcomes: Any = None, out: Folder | None = None
) -> Comparison:
    """Say which criterion to trust: how criteria agree, and how they do on known outcomes.

    As `preceptor compare-criteria` does.

    Args:
        runs: finished selections, or their folders.
        outcomes: what became of students: a file, or a table in memory, with the columns `teacher`
            and `outcome` (higher is better).
        out: folder for `compare.json` and its page; nothing is written where not given.

    Raises:
        RunFolderError: no finished selection, or a folder that cannot be written.
        DataError: outcomes that cannot be read or matched.
    """
    settle_notebook()
    from preceptor.recipes.compare import compare_criteria as run_compare

    places = [Path(own) for own in listed(runs)]
    folder = None if out is None else Path(out)
    with known_outcomes(outcomes, folder) as file:
        return Comparison(dict(run_compare(places, file, folder)), folder)


def plan(
    config: Config = None,
    /,
    *,
    recipe: str | None = None,
    out: Folder | None = None,
    rates: Mapping[str, float] | None = None,
    like: Folder | None = None,
    probe: int = 0,
    **settings: Any,
) -> Plan:
    """Say what a run takes before it loads a weight: tokens, memory, disk, time, money.

    As `preceptor plan` does, save that a run that does not fit is no error: `fits` is False.

    Args:
        config: settings of any recipe that can be planned.
        recipe: whose settings; found out where not given.
        out: the run folder that is meant.
        rates: how fast things go, in units a second: `{"ask.birch-m": 900, "train": 3000}`.
        like: folder of a finished run whose rates are taken.
        probe: ask and read so many answers, and train a few steps, to measure rates and lengths.
        settings: replace those of `config`.

    Raises:
        PreceptorError: what a run would refuse before it loads a weight.
    """
    settle_notebook()
    from preceptor.recipes.plan import plan as make_plan

    folder = None if out is None else Path(out)
    kinds = tuple(RECIPES[name] for name in JOBS)
    if recipe is None and isinstance(config, Settings):
        recipe = next((name for name in JOBS if type(config) is RECIPES[name]), None)
    with settings_tree(config, settings, kinds, folder, dry_run=True) as (tree, where):
        name, found = settings_of_any(tree, where, recipe)
        need_training(name, found)
        given = [f"{rate}={value!r}" for rate, value in (rates or {}).items()]
        known = None if like is None else Path(like)
        return Plan(make_plan(name, found, folder, rates=given, like=known, probe=probe))


def open_run(folder: Folder, /) -> Result | Comparison:
    """The result of a finished run: a `Selection`, `Training`, `Evaluation`, `Study` or `Samples`;
    of the folder of `compare-criteria`, a `Comparison`.

    Raises:
        RunFolderError: no run of these, or one that is not finished.
    """
    place = Path(folder)
    kind = run_kinds.kind_of(place)
    if kind is None:
        raise run_kinds.unknown(place)
    if kind == "compare":
        return Comparison.read(place)
    if kind not in RESULTS:
        raise RunFolderError(
            f"there is no result class for a run of `{kind}`",
            where=str(place),
            found=run_kinds.KINDS[kind].title,
            next_step=f"read its files: {run_kinds.KINDS[kind].result} holds the result",
        )
    if not run_kinds.finished(place) and not run_kinds.KINDS[kind].partial:
        raise RunFolderError(
            "the run is not finished",
            where=str(place),
            found=f"a begun run of `{kind}`",
            next_step=f"`preceptor.{kind}` with the same settings and `out` goes on with it",
        )
    return RESULTS[kind].read(place)


def _run(
    recipe: str,
    config: Config,
    values: Mapping[str, Any],
    out: Folder,
    dry_run: bool,
    finished: Callable[[Mapping[str, Any], str], Settings] | None = None,
) -> Any:
    """The result of a recipe, or its plan.

    Args:
        finished: makes settings of a tree; without it they are read as they stand.
    """
    settle_notebook()
    folder, kind = Path(out), RECIPES[recipe]
    with settings_tree(config, values, kind, folder, dry_run) as (tree, where):
        settings = finished(tree, where) if finished else validated(kind, tree, where)
        need_training(recipe, settings)
        if dry_run:
            from preceptor.recipes.plan import plan as make_plan

            return Plan(make_plan(recipe, settings, folder))
        found = run(recipe, settings, folder, command_of(recipe, settings, folder))
    return RESULTS[recipe](found, folder)
