"""The ranking on the terminal."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from preceptor.reporting.terminal.ranking import print_ranking


def _printed(ranking: dict[str, Any], width: int = 110) -> str:
    out = StringIO()
    print_ranking(ranking, Path("runs/x"), Console(file=out, width=width))
    return out.getvalue()


def test_leaderboard_verdict_and_path(run_folder):
    ranking = json.loads((run_folder() / "ranking.json").read_text())
    text = _printed(ranking)
    chosen = ranking["criteria"][ranking["recommended_by"]]
    places = [text.index(row["teacher"]) for row in chosen["teachers"]]
    assert places == sorted(places)
    first = chosen["teachers"][0]
    assert f"{first['score']:.4f} [{first['low']:.4f}, {first['high']:.4f}]" in text
    assert f"recommended: {ranking['recommended']}" in text
    assert text.rstrip().endswith("report: runs/x/report.html")


def test_names_are_data_not_markup(run_folder):
    ranking = json.loads((run_folder() / "ranking.json").read_text())
    row = ranking["criteria"][ranking["recommended_by"]]["teachers"][1]
    ranking["teachers"]["[red]evil[/red]"] = ranking["teachers"][row["teacher"]]
    row["teacher"] = "[red]evil[/red]"
    assert "[red]evil[/red]" in _printed(ranking)
