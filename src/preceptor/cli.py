"""The command line. Each verb imports its recipe inside its function, so that help is instant."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

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


@app.command()
def select(
    config: Annotated[Path, typer.Argument(help="Settings file (YAML).")],
    out: Annotated[Path, typer.Option(help="Run folder; a begun one is finished.")],
    overrides: Overrides = None,
) -> None:
    """Rank the teachers for a base model and write a run folder with a report."""
    from preceptor.recipes.loading import load_settings
    from preceptor.recipes.settings import Select

    settings = load_settings(Select, config, overrides or [])
    from preceptor.recipes.select import select as run_select
    from preceptor.reporting.terminal import print_ranking

    ranking = run_select(settings, out, "preceptor " + shlex.join(sys.argv[1:]))
    print_ranking(ranking, out)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("select.yaml"),
    if_missing: Annotated[bool, typer.Option(help="Keep a file that exists.")] = False,
) -> None:
    """Write a commented starter file that runs as it stands, on the embedded lab."""
    from preceptor.recipes.starter import write_starter

    if if_missing and path.exists():
        return
    for written in write_starter(path):
        print(written)


@app.command()
def schema(
    recipe: Annotated[str, typer.Argument(help="Whose settings.")] = "select",
) -> None:
    """Print the JSON Schema of a recipe's settings, for editors."""
    from preceptor.recipes.starter import settings_schema

    print(json.dumps(settings_schema(recipe), indent=2))


@app.command()
def lab() -> None:
    """List the models and instruction sets of the embedded lab."""
    from preceptor.lab.cast import MEMBERS
    from preceptor.lab.tasks import SPLITS

    for member in MEMBERS.values():
        what = f"{member.role}, {member.architecture}, width {member.shape.width}"
        print(f"lab:{member.name:<15} {what}, {member.shape.layers} layers")
    for split in SPLITS:
        print(f"lab:{split:<15} instructions")


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
