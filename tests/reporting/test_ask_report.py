"""The page of an asking: its tables against the numbers of `ask.json` and `samples.parquet`."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from askings import POINTS, SAMPLES, TEACHERS, build_asking_folder
from outline import Outline

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.pages.ask import boards
from preceptor.reporting.pages.ask import report as ask_report
from preceptor.reporting.pages.ask import samples as ask_samples
from preceptor.reporting.parts.wording import number


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_asking_folder(tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="module")
def asked(folder: Path):
    return json.loads((folder / artifacts.ASK).read_text())


@pytest.fixture(scope="module")
def outline(folder: Path) -> Outline:
    return Outline(ask_report.write(folder).read_text(encoding="utf-8"))


def sections(outline: Outline) -> list[str | None]:
    return [own["id"] for tag, own in outline.tags if tag == "section"]


def test_every_part_is_there(outline: Outline) -> None:
    assert sections(outline) == [
        "rewards", "decodings", "worth", "endings", "samples", "reading", "take-along",
        "provenance",
    ]  # fmt: skip
    assert "Answers of aster-m, birch-l and cedar-s (recorded) to 12 instructions" in outline.words
    assert "3 teachers 11 teachers × decodings" in outline.words
    assert "preceptor ask ask.yaml --out runs/ask" in outline.text
    assert "it took 4 minutes and cost 3.10." in outline.words


def test_rows_are_sorted_and_hold_best_and_worst_with_intervals(asked, outline: Outline) -> None:
    board, judge = boards.boards(asked)
    means = [asked["points"][row["point"]]["rewards"]["letters"]["mean"] for row in board["rows"]]
    assert means == sorted(means, reverse=True) and len(means) == 2 * len(POINTS) + 1
    row = next(row for row in board["rows"] if row["decoding"] == "temperature 1, top-p 0.9")
    own = asked["points"][row["point"]]["rewards"]["letters"]
    last = own["best_of"][-1]
    digits = board["decimals"]
    assert row["best"] == {"k": SAMPLES, "words": boards.cell_words(last, digits)}
    assert f"{number(last['mean'], digits)} [{number(last['low'], digits)}" in row["best"]["words"]
    assert row["best"]["words"] in outline.words and row["worst"]["words"] in outline.words
    chart = row["chart"]
    assert 0 < chart["worst"] < chart["low"] < chart["mean"] < chart["high"] < chart["best"] < 100
    greedy = next(row for row in board["rows"] if row["decoding"] == "greedy")
    assert greedy["best"] is None and "best" not in greedy["chart"]
    assert judge["name"] == "judge" and judge["n_missing"] > 0
    assert "answers have no score, and are left out of its figures." in outline.words


def test_a_grid_of_temperature_and_top_p(asked) -> None:
    first, second = boards.boards(asked)[0]["grids"]  # recorded answers have no grid
    assert [first["teacher"], second["teacher"]] == list(TEACHERS)[:2]
    assert first["heads"] == ["top-p 0.9", "top-p 1"]
    assert [line["name"] for line in first["lines"]] == ["temperature 0.6", "temperature 1"]
    cells = [cell for line in first["lines"] for cell in line["cells"]]
    assert all(cell["ends"].startswith("[") and cell["best"]["k"] == SAMPLES for cell in cells)
    assert sum(cell["top"] for cell in [*cells, first["greedy"]]) == 1


def test_the_worth_of_samples_stands_in_a_table_and_in_the_data(asked, outline: Outline) -> None:
    worth = boards.boards(asked)[0]["worth"]
    assert worth["steps"] == [1, 2, 4]
    assert len(worth["rows"]) == 2 * 2 * 4  # best and worst, two teachers, sampled points
    assert all(cell in outline.words for row in worth["rows"] for cell in row["cells"])
    data = json.loads(outline.data)["worth"]
    assert [own["reward"] for own in data] == ["letters", "judge"]
    assert [panel["teacher"] for panel in data[0]["panels"]] == list(TEACHERS)[:2]
    line = data[0]["panels"][0]["lines"][0]
    best = asked["points"][1]["rewards"]["letters"]["best_of"]
    assert line["best"][-1] == pytest.approx([4, *(best[-1][k] for k in ("mean", "low", "high"))],
                                             rel=1e-5)  # fmt: skip
    assert data[0]["panels"][0]["greedy"] == asked["points"][0]["rewards"]["letters"]["mean"]


def test_endings_are_counted_from_the_samples(folder: Path, asked, outline: Outline) -> None:
    table = pq.read_table(folder / artifacts.SAMPLES)
    found = ask_samples.endings(folder, asked["points"])
    assert sum(own["n"] for own in found if own) == table.num_rows
    greedy = table.filter((pc.field("teacher") == "aster-m") & (pc.field("temperature") == 0))
    ends = greedy["finish_reason"].to_pylist()
    assert found[0] == {
        "n": len(ends),
        "stop": ends.count("stop") / len(ends),
        "length": ends.count("length") / len(ends),
        "content_filter": 0.0,
        "recorded": 0.0,
    }
    assert found[-1] is not None and found[-1]["recorded"] == 1.0
    assert "Hit the limit" in outline.words


def test_samples_are_the_highest_and_the_lowest_of_each_teacher(folder: Path, asked) -> None:
    samples = ask_samples.sample_answers(folder, asked["points"], ["letters", "judge"], count=4)
    assert [own["why"] for own in samples] == ["gap", "gap", "random", "random"]
    assert samples[0]["gap"] >= samples[1]["gap"]
    first = samples[0]["answers"]
    assert [own["which"] for own in first] == ["highest", "lowest"] * 2 + [""]
    assert first[0]["marks"][0][1] > first[1]["marks"][0][1]
    assert {asked["points"][own["point"]]["teacher"] for own in first} == set(TEACHERS)
    assert first[0]["of"] == 1 + 4 * SAMPLES and first[0]["turns"][0]["text"]


def test_an_asking_without_rewards_or_samples(tmp_path: Path) -> None:
    build_asking_folder(tmp_path)
    asked = json.loads((tmp_path / artifacts.ASK).read_text())
    for point in asked["points"]:
        point["rewards"] = {}
    artifacts.write_json(tmp_path / artifacts.ASK, asked | {"rewards": {}})
    table = pq.read_table(tmp_path / artifacts.SAMPLES).drop_columns(
        ["reward.letters", "reward.judge"]
    )
    artifacts.write_table(tmp_path / artifacts.SAMPLES, table)
    outline = Outline(ask_report.render(tmp_path))
    assert sections(outline)[:2] == ["endings", "samples"]
    assert "without a score" in outline.words
    (tmp_path / artifacts.SAMPLES).unlink()
    outline = Outline(ask_report.render(tmp_path))
    assert "holds no samples to quote" in outline.words


def test_nobody_scored(tmp_path: Path) -> None:
    """A reward that gave no score at all has no interval, no chart and no claim."""
    build_asking_folder(tmp_path)
    asked = json.loads((tmp_path / artifacts.ASK).read_text())
    empty = {"mean": None, "low": None, "high": None, "best_of": [], "worst_of": []}
    for point in asked["points"]:
        point["rewards"]["letters"] = {"n_missing": point["n_answers"], **empty}
    artifacts.write_json(tmp_path / artifacts.ASK, asked)
    board = boards.boards(asked)[0]
    assert board["grids"] == [] and board["worth"] is None
    assert all(row["mean"] == "–" and row["chart"] is None for row in board["rows"])
    assert "None" not in Outline(ask_report.render(tmp_path)).text


def test_decodings_that_differ_in_the_limit_alone_are_told_apart() -> None:
    point = {"teacher": "a", "temperature": 0.0, "top_p": 1.0}
    found = boards.labels([point | {"max_new_tokens": n} for n in (64, 1024)])
    assert found == ["greedy, at most 64 tokens", "greedy, at most 1,024 tokens"]
    unknown = point | {"temperature": None, "top_p": None, "max_new_tokens": None}
    assert boards.labels([unknown]) == ["not noted"]


def test_same_folder_gives_same_bytes_and_another_is_refused(folder: Path, tmp_path: Path) -> None:
    assert ask_report.render(folder) == ask_report.render(folder)
    with pytest.raises(RunFolderError, match="holds no asking"):
        ask_report.render(tmp_path)
    artifacts.write_json(tmp_path / artifacts.ASK, {"version": 1, "points": [{}]})
    with pytest.raises(RunFolderError, match="incomplete or was changed by hand"):
        ask_report.render(tmp_path)
