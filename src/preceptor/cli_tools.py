"""The verbs that make no run: starter files, schemas, the lab, runs to look at, answer stores."""

from __future__ import annotations

import json
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

tools = typer.Typer()


@tools.command()
def init(
    path: Annotated[
        Path | None, typer.Argument(help="File to write; RECIPE.yaml if left out.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Whose settings.")] = "select",
    if_missing: Annotated[bool, typer.Option(help="Keep a file that exists.")] = False,
) -> None:
    """Write a commented starter file that runs as it stands, on the embedded lab."""
    from preceptor.recipes.starter import write_starter

    path = path or Path(f"{recipe}.yaml")
    if if_missing and path.exists():
        return
    for written in write_starter(path, recipe):
        print(written)


@tools.command()
def schema(
    recipe: Annotated[str, typer.Argument(help="Whose settings.")] = "select",
) -> None:
    """Print the JSON Schema of a recipe's settings, for editors."""
    from preceptor.recipes.starter import settings_schema

    print(json.dumps(settings_schema(recipe), indent=2))


@tools.command()
def lab() -> None:
    """List the models and instruction sets of the embedded lab."""
    from preceptor.lab.cast import MEMBERS
    from preceptor.lab.tasks import SPLITS

    for member in MEMBERS.values():
        what = f"{member.role}, {member.architecture}, width {member.shape.width}"
        print(f"lab:{member.name:<15} {what}, {member.shape.layers} layers")
    for split in SPLITS:
        print(f"lab:{split:<15} instructions")


@tools.command()
def serve(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="Folder of run folders.")],
    port: Annotated[
        int, typer.Option(help="Port; 0 takes one that is free.", min=0, max=65535)
    ] = 8777,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is this machine's own.")
    ] = "127.0.0.1",
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Show all runs below a folder in the browser, and follow those at work."""
    from preceptor.recipes.serve import open_server

    server = open_server(runs, host, port)
    if server.warning:
        print(f"warning: {server.warning}", file=sys.stderr)
    noun = "run" if server.runs == 1 else "runs"
    print(f"{server.runs:,} {noun} in {runs}: {server.url} (Ctrl+C ends)", flush=True)
    if open_page:
        webbrowser.open(server.url)
    server.run()


@tools.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="RUN_B", help="Compare with this one, of a kind.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page; of one run its own report, of two comparison.html."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write every table as CSV.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the summary; - prints it alone.")
    ] = None,
) -> None:
    """Draw a run's page again, write its tables and a summary, or compare two runs."""
    from preceptor.core.artifacts import write_bytes
    from preceptor.core.progress import say
    from preceptor.recipes.report import report as run_report

    made = run_report(run, other, out, csv)
    printed = str(markdown) == "-"
    if printed:
        print(made.markdown, end="")
    elif markdown is not None:
        write_bytes(markdown, made.markdown.encode("utf-8"))
    tell = say if printed else print  # beside the summary nothing goes to standard output
    if not printed:
        print(made.verdict)
    for path in (*made.tables, *([markdown] if markdown is not None and not printed else [])):
        tell(str(path))
    tell(f"report: {made.page}")


store = typer.Typer(help="Look into an answer store, and keep it compact.", no_args_is_help=True)
tools.add_typer(store, name="store")
Store = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of an answer store.")]


@store.command("list")
def list_store(folder: Store) -> None:
    """Show what a store holds: answers, tokens, cost, decodings and size of each teacher."""
    from preceptor.recipes.store import list_store as read_store
    from preceptor.reporting.terminal.store import print_store

    print_store(read_store(folder))


@store.command("compact")
def compact_store(folder: Store) -> None:
    """Merge a store's shards into few; waits for whoever asks."""
    from preceptor.recipes.store import compact_store as run_compact

    for row in run_compact(folder):
        print(f"{row['teacher']}: {row['before']:,} shards before, {row['after']:,} now")
