"""`preceptor report`: pages drawn again, what leaves them, and what two runs say together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from preceptor.cli import app
from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.recipes.comparing.finished import rescored
from preceptor.recipes.comparing.paired_runs import paired
from preceptor.recipes.report import report
from preceptor.recipes.select import select
from preceptor.recipes.settings.select import Select
from preceptor.reporting.exporting import exports
from preceptor.selection.ranking import interval, ranks

TEACHERS = ("ash", "beech", "cherry", "dogwood")
WORDS = ("the cat", "is in the house", "sum of one and two", "sky", "three", "the dog and")


def answers(path: Path, n: int = 12, lift: float = 0.0) -> Path:
    """Rewarded answers of four teachers; `lift` is what cherry's rewards gain."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "instruction": f"Say it {k} times.",
            "generator": teacher,
            "response": " ".join(rng.choice(WORDS, size=2 + place)),
            "reward": float(0.3 + 0.1 * place + 0.3 * rng.random()) + lift * (teacher == "cherry"),
        }
        for k in range(n)
        for place, teacher in enumerate(TEACHERS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]
) -> dict[str, Path]:
    """Selections of one base: as it is, at another beta, of better answers, of more questions."""
    place = tmp_path_factory.mktemp("report")
    made = {}
    for name, n, lift, more in (
        ("plain", 12, 0.0, {}),
        ("beta", 12, 0.0, {"beta": 0.2}),
        ("lifted", 12, 0.5, {}),
        ("more", 20, 0.0, {}),
    ):
        tree = {
            "base": str(tiny_model("base")),
            "answers": str(answers(place / f"{name}.parquet", n, lift)),
            "rewards": ["reward"],
            "criteria": ["car", "mean_reward", "length"],
            "resamples": 200,
            "device": "cpu",
        }
        select(Select.model_validate(tree | more), place / name, f"preceptor select {name}.yaml")
        made[name] = place / name
    return made


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_one_run_is_drawn_again(runs: dict[str, Path], tmp_path: Path) -> None:
    run = copied(runs["plain"], tmp_path / "run")
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    (run / "report.md").unlink()
    made = report(run, csv=tmp_path / "csv")
    assert made.page == run / "report.html" and made.page.read_bytes() == before
    assert made.markdown == (run / "report.md").read_text("utf-8") == exports.markdown(run)
    assert [path.name for path in made.tables] == [f"{n}.csv" for n in exports.tables(run)]
    assert made.verdict.startswith("dogwood is the recommended teacher for base by CAR")
    elsewhere = report(run, out=tmp_path / "pages")
    assert elsewhere.page == tmp_path / "pages" / "report.html" and elsewhere.page.exists()
    assert report(run, out=tmp_path / "own.html").page == tmp_path / "own.html"


def test_an_unfinished_run_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    run = copied(runs["plain"], tmp_path / "run")
    path = run / artifacts.PROVENANCE
    artifacts.write_json(path, json.loads(path.read_text()) | {"status": "running"})
    (run / "report.html").unlink()
    with pytest.raises(RunFolderError) as told:
        report(run)
    assert "the run is not finished" in str(told.value)
    assert "finish it: preceptor select plain.yaml" in told.value.next_step
    assert not (run / "report.html").exists()
    with pytest.raises(RunFolderError, match="not finished"):
        report(runs["beta"], run)
    with pytest.raises(RunFolderError, match="no folder that preceptor wrote"):
        report(tmp_path / "nothing")


def test_a_joint_statement_of_two_selections(runs: dict[str, Path]) -> None:
    """As drawn by hand: the same resamples of both runs, and the ranks in each."""
    first, second = runs["plain"], runs["lifted"]
    own = paired(first, second)
    assert own.why == "" and own.n == 12
    kept = json.loads((first / artifacts.PROVENANCE).read_text())  # both have the same questions
    assert kept["status"] == "finished"
    ids = pq.read_table(first / artifacts.SIGNALS)["instruction_id"].to_pylist()[:12]
    drawn = [rescored(folder, "car", ids, 200, 0) for folder in (first, second)]
    gained_MS = ranks(drawn[0][2], True) - ranks(drawn[1][2], True)
    low_M, high_M = interval(gained_MS, 0.95)
    for m, teacher in enumerate(drawn[0][0]):
        ranking = [json.loads((f / artifacts.RANKING).read_text()) for f in (first, second)]
        then = [
            next(
                row["rank"] for row in r["criteria"]["car"]["teachers"] if row["teacher"] == teacher
            )
            for r in ranking
        ]
        value, low, high = own.changes[(teacher,)]
        assert value == then[0] - then[1]
        assert low <= low_M[m] and high_M[m] <= high and high - low <= high_M[m] - low_M[m] + 2
    assert own.changes[("cherry",)][0] > 0, "its rewards were lifted"
    same = ((ranks(drawn[0][2], True) == 1) & (ranks(drawn[1][2], True) == 1)).any(axis=0).mean()
    assert f" in {round(100 * same)}% of 200 joint resamples" in own.words[0] or same in (0, 1)


def test_resamples_of_the_same_scores_agree_in_full(runs: dict[str, Path], tmp_path: Path) -> None:
    again = copied(runs["plain"], tmp_path / "again")
    own = paired(runs["plain"], again)
    assert set(own.changes.values()) == {(0, 0, 0)}
    assert "both put the same teacher first in 100% of 200 joint resamples" in own.words[0]


def test_only_shared_instructions_are_paired(runs: dict[str, Path]) -> None:
    own = paired(runs["plain"], runs["more"])
    assert own.n == 12 and set(own.changes) == {(name,) for name in TEACHERS}


def test_no_joint_statement_without_the_same_questions(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    run = copied(runs["plain"], tmp_path / "run")
    table = pq.read_table(run / artifacts.ANSWERS)
    texts = pa.array([f"{text}?" for text in table["instruction"].to_pylist()])
    place = table.schema.get_field_index("instruction")
    artifacts.write_table(
        run / artifacts.ANSWERS, table.set_column(place, table.schema.field(place), texts)
    )
    assert paired(runs["plain"], run).why == "the runs have no instructions in common"
    (run / artifacts.SIGNALS).unlink()
    assert "cannot be read" in paired(runs["plain"], run).why


def test_scores_that_are_not_those_recorded_give_no_statement(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    run = copied(runs["plain"], tmp_path / "run")
    ranking = json.loads((run / artifacts.RANKING).read_text())
    ranking["criteria"]["car"]["teachers"][0]["score"] *= 1.01
    artifacts.write_json(run / artifacts.RANKING, ranking)
    own = paired(runs["beta"], run)
    assert not own.changes and "are not those of ranking.json" in own.why


def test_code_that_a_folder_names_is_not_run(runs: dict[str, Path], tmp_path: Path) -> None:
    run = copied(runs["plain"], tmp_path / "run")
    flag = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(flag)!r}, 'w')\ndef score(*a):\n    return 1\n")
    for name, old in ((artifacts.SETTINGS, "- car\n"), (artifacts.RANKING, '"car"')):
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, old.replace("car", "evil:score")))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        own = paired(runs["plain"], run)
        made = report(runs["plain"], run, out=tmp_path / "c.html")
    assert "a criterion of the user's own" in own.why and not own.changes
    assert made.page.exists() and not flag.exists()


def test_verbs_that_draw_no_page_have_one(tmp_path: Path) -> None:
    hostile = "</script><b>x</b>"
    sets = {"status": "finished", "settings": {"run": "r", "sets": {}}, "sets": {hostile: 5}}
    artifacts.write_json(tmp_path / artifacts.PROVENANCE, sets | {"command": "preceptor export"})
    (tmp_path / artifacts.CARD).write_text("# card")
    made = report(tmp_path, csv=tmp_path / "csv")
    html = made.page.read_text("utf-8")
    assert made.page == tmp_path / "report.html" and "<b>x</b>" not in html
    assert "&lt;/script&gt;&lt;b&gt;x&lt;/b&gt;" in html and "preceptor export" in html
    assert 'id="take-along"' in html and (tmp_path / "report.md").exists()
    assert made.tables == (tmp_path / "csv" / "sets.csv",)


def evaluated(folder: Path, marks: dict[str, list[float]], scale: float = 100.0) -> Path:
    """An evaluation of one benchmark whose score is the mean of one mark."""
    folder.mkdir()
    cells = {model: scale * float(np.mean(own)) for model, own in marks.items()}
    measure = {"name": "strict", "title": "strict, %", "direction": "higher"}
    scores = [
        {"model": m, "measures": {"strict": {"value": v, "low": v - 1, "high": v + 1}}}
        for m, v in cells.items()
    ]
    found = {
        "version": 1, "confidence": 0.9, "n_resamples": 400, "seed": 0, "models": list(marks),
        "benchmarks": [{"name": "if", "measures": [measure], "scores": scores}],
    }  # fmt: skip
    artifacts.write_json(folder / artifacts.EVALUATION, found)
    rows = [
        {"benchmark": "if", "model": m, "item": f"q{i}", "category": "", "name": "kept", "value": v}
        for m, own in marks.items()
        for i, v in enumerate(own)
    ]
    table = pa.Table.from_pylist(rows, schema=artifacts.MARKS_SCHEMA)
    artifacts.write_table(folder / artifacts.MARKS, table)
    artifacts.write_json(folder / artifacts.PROVENANCE, {"models": {"benchmark if": "sha256:1"}})
    return folder


def test_evaluations_are_paired_item_by_item(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(60)
    one = evaluated(tmp_path / "a", {"x": list(hard), "y": list(hard)})
    other = evaluated(
        tmp_path / "b", {"x": list(hard + 0.1), "y": list(rng.random(60)), "z": [1.0]}
    )
    own = paired(one, other)
    assert own.n == 60 and set(own.changes) == {("if", "strict", "x"), ("if", "strict", "y")}
    assert own.changes["if", "strict", "x"] == pytest.approx((10.0, 10.0, 10.0))
    value, low, high = own.changes["if", "strict", "y"]
    assert low < value < high and high - low > 5
    path = other / artifacts.PROVENANCE
    artifacts.write_json(path, {"models": {"benchmark if": "sha256:2"}})
    assert "questions, prompts or judge of if are not the same" in paired(one, other).why
    artifacts.write_json(path, {"models": {"benchmark if": "sha256:1"}})
    found = json.loads((other / artifacts.EVALUATION).read_text())
    found["benchmarks"][0]["scores"][0]["measures"]["strict"]["value"] += 1
    artifacts.write_json(other / artifacts.EVALUATION, found)
    assert "no score of a shared model is a mean of marks" in paired(one, other).why


def trained(folder: Path, rewards: dict[str, list[float]], reward: str = "sha256:1") -> Path:
    """A training whose models were graded on instructions of two groups."""
    folder.mkdir()
    groups = ["odd" if i % 2 else "even" for i in range(10)]
    rows = [
        {"model": m, "seed": 0, "instruction_id": f"i{i}", "group": g, "reward": r}
        for m, own in rewards.items()
        for i, (g, r) in enumerate(zip(groups, own, strict=True))
    ]
    artifacts.write_table(
        folder / artifacts.GRADES, pa.Table.from_pylist(rows, schema=artifacts.GRADES_SCHEMA)
    )
    cell = {"score": 0.5, "low": 0.4, "high": 0.6}
    quality = {
        "version": 1, "confidence": 0.9, "measure": "mean reward", "groups": ["even", "odd"],
        "n": {}, "differences": [],
        "rows": [{"model": m, "seeds": [0], "even": cell, "odd": cell} for m in rewards],
    }  # fmt: skip
    artifacts.write_json(folder / artifacts.QUALITY, quality)
    (folder / artifacts.METRICS).write_text('{"step": 1, "loss": 2.0}\n')
    exam = {"instructions": {"path": "exam.jsonl"}}
    facts = {
        "status": "finished",
        "settings": {"base": "b", "data": {}, "training": {}, "quality": exam},
        "inputs": {"exam.jsonl": "sha256:3"},
        "models": {"reward": reward},
    }
    artifacts.write_json(folder / artifacts.PROVENANCE, facts)
    return folder


def test_trainings_are_paired_on_the_same_exam(tmp_path: Path) -> None:
    base = [0.1 * i for i in range(10)]
    lifted = [r + (0.2 if i % 2 else 0.0) for i, r in enumerate(base)]
    one = trained(tmp_path / "a", {"base": base, "KD": base})
    other = trained(tmp_path / "b", {"base": base, "SFT": lifted})
    own = paired(one, other)
    assert set(own.changes) == {
        ("base", "even"), ("base", "odd"), ("main", "", "even"), ("main", "", "odd"),
    }  # fmt: skip
    assert own.changes["main", "", "odd"] == pytest.approx((0.2, 0.2, 0.2))
    assert own.changes["base", "odd"] == (0.0, 0.0, 0.0) and own.n == 5
    third = trained(tmp_path / "c", {"base": base, "KD": base}, reward="sha256:2")
    assert "not measure quality by the same settings and reward" in paired(one, third).why
    (third / artifacts.GRADES).unlink()
    assert paired(one, third).why == "a folder holds no grades"


def test_the_verb(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = copied(runs["plain"], tmp_path / "run")
    call = CliRunner().invoke
    done = call(app, ["report", "run", "--csv", "csv", "--markdown", "run.md"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == report(run).verdict
    assert done.stdout.splitlines()[-1] == "report: run/report.html"
    assert Path("run.md").read_text("utf-8") == exports.markdown(run)
    assert Path("csv/leaderboard.csv").read_bytes().startswith(b"criterion,direction,unit,rank,")
    alone = call(app, ["report", "run", "--markdown", "-"])
    assert alone.exit_code == 0 and alone.stdout == exports.markdown(run)
    assert "report: run/report.html" in alone.stderr
    two = call(app, ["report", str(runs["beta"]), "run", "--csv", "two", "--markdown", "two.md"])
    assert two.exit_code == 0, two.output
    assert two.stdout.splitlines()[0].startswith("Both runs recommend ")
    assert two.stdout.splitlines()[-1] == "report: comparison.html"
    assert "same 12 instructions" in Path("comparison.html").read_text("utf-8")
    assert {path.name for path in Path("two").iterdir()} >= {"differs.csv", "ranks.csv"}
    assert "| setting | `beta` | `0.2` | `3.0` |" in Path("two.md").read_text("utf-8")
