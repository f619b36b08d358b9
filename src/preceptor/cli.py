"""The command line. Each verb imports its recipe inside its function, so that help is instant."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from preceptor.cli_tools import tools

app = typer.Typer(
    name="preceptor",
    help="Choose the right teacher for a language model, then learn from it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace those of the file."),
]
Config = Annotated[Path, typer.Argument(help="Settings file (YAML).")]
Out = Annotated[Path, typer.Option(help="Run folder; a begun one is finished.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what the run takes, and do not run.")
]


@app.command()
def select(
    config: Config,
    out: Out,
    overrides: Overrides = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Also rank for each value of a column.")
    ] = None,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Also train shortly on the finalists' answers.")
    ] = False,
    dry_run: DryRun = False,
    race: Annotated[
        bool, typer.Option("--race", help="Ask in rounds; drop who is surely not the best.")
    ] = False,
) -> None:
    """Rank the teachers for a base model and write a run folder with a report."""
    from preceptor.recipes.settings.loading import place_of, read_tree
    from preceptor.recipes.verbs import select_settings

    tree = read_tree(config, overrides or [])
    settings = select_settings(tree, place_of(config), by=by, pilot=pilot, race=race)
    if (ranking := _run("select", settings, out, dry_run)) is not None:
        from preceptor.reporting.terminal.ranking import print_ranking

        print_ranking(ranking, out)


@app.command()
def plan(
    config: Config,
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="Whose settings; found out if left out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder that is meant; `run` if left out.")
    ] = None,
    probe: Annotated[
        int, typer.Option(help="Ask so many instructions, and time every stage.", min=0)
    ] = 0,
    rate: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="Known rate, a second.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="Finished run to take rates from.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what a run takes before it loads a weight: tokens, memory, disk, time, money."""
    from preceptor.recipes.planning.jobs import read_any
    from preceptor.recipes.verbs import need_training

    name, settings = read_any(config, overrides or [], recipe)
    need_training(name, settings)
    _print_plan(name, settings, out, as_json, rates=rate or [], like=like, probe=probe)


def _print_plan(
    recipe: str, settings: Any, out: Path | None, as_json: bool = False, **options: Any
) -> None:
    """Print the plan of a run; a run that does not fit ends in an error."""
    from preceptor.recipes.plan import plan as make_plan
    from preceptor.recipes.plan import refuse
    from preceptor.reporting.terminal.plan import print_plan

    found = make_plan(recipe, settings, out, **options)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_plan(found)
    refuse(found)


def _command() -> str:
    return "preceptor " + shlex.join(sys.argv[1:])


def _run(recipe: str, settings: Any, out: Path, dry_run: bool) -> Any:
    """What a run found, as its result file says it; None where that is not to be printed: only
    its plan was, or another process of the same launch does."""
    from preceptor.core.run import is_leader
    from preceptor.recipes.verbs import need_training, run

    need_training(recipe, settings)
    if dry_run:
        _print_plan(recipe, settings, out)
        return None
    found = run(recipe, settings, out, _command())
    return found if is_leader() else None


@app.command("compare-criteria")
def compare_criteria(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs of select.")],
    outcomes: Annotated[
        Path | None, typer.Option(help="Known outcomes: CSV, Parquet or JSON.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for compare.json and compare.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Say which criterion to trust: how criteria agree, and how they do on known outcomes."""
    from preceptor.recipes.compare import compare_criteria as run_compare
    from preceptor.reporting.terminal.comparison import print_comparison

    comparison = run_compare(runs, outcomes, out, _command())
    if as_json:
        print(json.dumps(comparison, indent=2, ensure_ascii=False))
    else:
        print_comparison(comparison, out)


@app.command()
def ask(config: Config, out: Out, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Ask teachers over a grid of decodings, score the answers, and keep every sample."""
    from preceptor.recipes.settings.asking import Ask
    from preceptor.recipes.settings.loading import load_settings

    settings = load_settings(Ask, config, overrides or [])
    if (found := _run("ask", settings, out, dry_run)) is not None:
        from preceptor.reporting.terminal.ask import print_samples

        print_samples(found, out)


@app.command()
def route(
    selection: Annotated[Path, typer.Argument(metavar="RUN", help="Finished run of select.")],
    instructions: Annotated[
        str, typer.Option(metavar="SOURCE", help="What is to be asked: file, dataset, lab:SPLIT.")
    ],
    out: Out,
    alpha: Annotated[
        float | None, typer.Option(help="Weight of learnability; the run's, or 0.4.")
    ] = None,
    prompts: Annotated[int, typer.Option(help="Fit on so many prompts at most.")] = 2500,
    seed: Annotated[int, typer.Option(help="Of the prompts fitted on, and of the folds.")] = 0,
) -> None:
    """Train a router on a selection, and name the teacher to ask for each instruction."""
    from preceptor.recipes.route import route as run_route
    from preceptor.recipes.settings.shared import Source
    from preceptor.reporting.terminal.route import print_route

    found = run_route(
        selection,
        Source(path=instructions),
        out,
        alpha=alpha,
        prompts=prompts,
        seed=seed,
        command=_command(),
    )
    print_route(found, out)


@app.command()
def export(config: Config, out: Out, overrides: Overrides = None) -> None:
    """Write training sets from the samples of `ask`: best, worst, one or greedy answers."""
    from preceptor.recipes.settings.asking import Export
    from preceptor.recipes.settings.loading import load_settings

    settings = load_settings(Export, config, overrides or [])
    from preceptor.recipes.export import export as run_export

    for line in run_export(settings, out, _command()):
        print(line)


@app.command()
def distill(
    config: Config,
    out: Out,
    overrides: Overrides = None,
    ablate: Annotated[
        bool, typer.Option(help="Also train on attention alone and on prediction alone.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Train a student from a teacher: answers, next-token distribution, attention maps."""
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.training import Distill

    more = ["ablate=true"] if ablate else []
    settings = load_settings(Distill, config, [*(overrides or []), *more])
    if (quality := _run("distill", settings, out, dry_run)) is not None:
        from preceptor.reporting.terminal.quality import print_quality

        print_quality(quality, out)


@app.command()
def align(config: Config, out: Out, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Add a domain to a model from an expert, without losing the rest."""
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.training import Align

    settings = load_settings(Align, config, overrides or [])
    if (quality := _run("align", settings, out, dry_run)) is not None:
        from preceptor.reporting.terminal.quality import print_quality

        print_quality(quality, out)


@app.command()
def sft(config: Config, out: Out, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Train a model on answers alone, for example a domain expert."""
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.training import Sft

    settings = load_settings(Sft, config, overrides or [])
    if (quality := _run("sft", settings, out, dry_run)) is not None:
        from preceptor.reporting.terminal.quality import print_quality

        print_quality(quality, out)


@app.command()
def cache(config: Config, out: Out, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Store a teacher's next-token distributions, to train from them later."""
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.training import Cache

    settings = load_settings(Cache, config, overrides or [])
    if dry_run:
        _print_plan("cache", settings, out)
        return
    from preceptor.recipes.cache import cache as run_cache

    store = run_cache(settings, out, _command())
    print(f"{out / 'signals'}: {store['bytes_per_token']:,.1f} bytes a token")


@app.command()
def upcycle(config: Config, out: Out, overrides: Overrides = None) -> None:
    """Turn dense checkpoints of one architecture into a mixture of experts."""
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.training import Upcycle

    settings = load_settings(Upcycle, config, overrides or [])
    from preceptor.recipes.upcycle import upcycle as run_upcycle

    print(run_upcycle(settings, out))


@app.command()
def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... CONFIG [KEY=VALUE]...",
            help="Models (lab:NAME, folder, hub id, or run that trained one), settings file, and "
            "settings that replace those of the file.",
        ),
    ],
    out: Out,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION", help="Exit with status 1 where it holds: 'lab.reward < 0.5'."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Examine models on benchmarks: scores with intervals, a comparison page, a gate."""
    from preceptor.recipes.examining.arguments import load_evaluation

    settings = load_evaluation(arguments, fail_if or [])
    if (found := _run("evaluate", settings, out, dry_run)) is not None:
        from preceptor.reporting.terminal.evaluation import print_evaluation

        print_evaluation(found, out)
        if any(condition["holds"] for condition in found["gate"]):
            raise typer.Exit(1)


@app.command()
def study(
    config: Config,
    out: Out,
    overrides: Overrides = None,
    budget: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Leave what does not fit into this time.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Find the right teacher, and the criterion that knew it: train from all, and compare."""
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.study import Study

    more = [] if budget is None else [f"budget={budget}"]
    settings = load_settings(Study, config, [*(overrides or []), *more])
    if (found := _run("study", settings, out, dry_run)) is not None:
        from preceptor.reporting.terminal.study import print_study

        print_study(found, out)


@app.command()
def tour(
    selection: Annotated[Path, typer.Option(help="Run folder of a selection on the lab.")],
    out: Out,
    seeds: Annotated[int, typer.Option(help="Train so many times.", min=1)] = 1,
    controls: Annotated[bool, typer.Option(help="Also train the controls of align.")] = False,
) -> None:
    """Go on from a selection on the lab: distil, align, and compare the students."""
    from preceptor.recipes.verbs import need_training

    need_training("tour")
    from preceptor.recipes.tour import tour as run_tour
    from preceptor.reporting.terminal.quality import print_quality

    print_quality(run_tour(selection, out, range(seeds), controls), out)


app.add_typer(tools)  # last in the help


def main() -> None:
    """Entry point: the user's mistakes are one message on standard error, and exit status 2."""
    from preceptor.core.errors import PreceptorError

    try:
        app()
    except PreceptorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
