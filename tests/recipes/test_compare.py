"""`compare-criteria` on finished runs of real tiny models, with outcomes worked out by hand."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from forked import preceptor
from preceptor.core import artifacts
from preceptor.core.comparison import COMPARE, COMPARE_PAGE
from preceptor.core.errors import DataError, PreceptorError, RunFolderError
from preceptor.recipes.compare import compare_criteria
from preceptor.recipes.comparing.finished import open_finished
from preceptor.recipes.comparing.outcomes import read_outcomes, resampled_outcomes
from preceptor.recipes.select import select
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select

compare: Any = compare_criteria  # without its types: any key may be None
spearmanr: Any = stats.spearmanr
kendalltau: Any = stats.kendalltau
CRITERIA = ["car", "mean_reward", "perplexity", "length"]
TEACHERS = ("ash", "beech", "cherry", "dogwood", "elm", "fir")
WORDS = ("the cat", "is in the house", "sum of one and two", "sky", "three", "the dog and")
OUTCOME = {"ash": 1.0, "beech": 4.0, "cherry": 2.0, "dogwood": 8.0, "elm": 5.0, "fir": 3.0}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]
) -> tuple[Path, Path]:
    """The same answers of six teachers, ranked for two base models."""
    folder = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(0)
    rows = [
        {
            "instruction": f"Say it {n} times.",
            "generator": teacher,
            "response": " ".join(rng.choice(WORDS, size=2 + place)),
            "reward": float(0.3 + 0.1 * place + 0.3 * rng.random()),
        }
        for n in range(12)
        for place, teacher in enumerate(TEACHERS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "answers.parquet")
    found = []
    for base, seed in (("base", 0), ("other-base", 3)):
        model = tiny_model(base) if base == "base" else tiny_model(base, seed=seed)
        tree = {
            "base": str(model),
            "answers": "answers.parquet",
            "rewards": ["reward"],
            "criteria": CRITERIA,
            "resamples": 200,
            "device": "cpu",
        }
        (folder / f"{base}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        select(load_settings(Select, folder / f"{base}.yaml"), folder / f"run-{base}")
        found.append(folder / f"run-{base}")
    return found[0], found[1]


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A CSV of these rows."""
    names = list(rows[0])
    lines = [",".join("" if row[n] is None else str(row[n]) for n in names) for row in rows]
    path.write_text("\n".join([",".join(names), *lines]) + "\n", encoding="utf-8")
    return path


def outcomes(path: Path, **bases: dict[str, float]) -> Path:
    """A CSV of outcomes; names of bases with `_` for `-`."""
    rows = [
        {"teacher": teacher, "base": base.replace("_", "-"), "outcome": value}
        for base, own in bases.items()
        for teacher, value in own.items()
    ]
    return table(path, rows)


def ranking_of(run: Path) -> dict[str, Any]:
    return json.loads((run / artifacts.RANKING).read_text())


def scores_of(run: Path, criterion: str) -> dict[str, float]:
    """Turned so that higher is better."""
    own = ranking_of(run)["criteria"][criterion]
    sign = 1 if own["direction"] == "higher" else -1
    return {row["teacher"]: sign * row["score"] for row in own["teachers"]}


def test_agreement_without_outcomes(runs):
    found = compare([runs[0]])
    (base,) = found["bases"]
    assert base["teachers"] == list(TEACHERS) and list(base["criteria"]) == CRITERIA
    assert found["mean"] is None and base["outcomes"] is None and found["warnings"] == []
    assert len(base["agreement"]) == 6
    for row in base["agreement"]:
        x, y = (
            [scores_of(runs[0], row[side])[t] for t in TEACHERS] for side in ("first", "second")
        )
        for kind, formula in (("spearman", spearmanr), ("kendall", kendalltau)):
            own = row[kind]
            assert own["value"] == pytest.approx(float(formula(x, y)[0]))
            assert -1 <= own["low"] <= own["high"] <= 1
    kinds = {name: own["kind"] for name, own in base["criteria"].items()}
    assert kinds == {
        "car": "reward", "mean_reward": "reward", "perplexity": "likelihood", "length": "other"
    }  # fmt: skip
    assert all(own["recomputed"] for own in base["criteria"].values())
    assert {row["kind"] for row in found["verdict"]} & {"agree", "disagree"}
    assert found["verdict"][-1]["kind"] == "advice"


def test_against_known_outcomes(runs, tmp_path):
    path = outcomes(tmp_path / "o.csv", base=OUTCOME)
    found = compare([runs[0]], path)
    own = found["bases"][0]["outcomes"]
    assert own is not None and own["teachers"] == list(TEACHERS)
    y = [OUTCOME[teacher] for teacher in TEACHERS]
    assert own["outcome"] == y and own["n_rows"] == [1] * 6
    for name in CRITERIA:
        good = scores_of(runs[0], name)
        x, trial = [good[teacher] for teacher in TEACHERS], own["criteria"][name]
        rho, tau, regret = (trial[key]["value"] for key in ("spearman", "kendall", "regret"))
        assert rho == pytest.approx(float(spearmanr(x, y)[0]))
        assert tau == pytest.approx(float(kendalltau(x, y)[0]))
        first = max(good, key=lambda teacher: good[teacher])
        assert trial["first"] == [first] and regret == pytest.approx(8.0 - OUTCOME[first])
        for key in ("spearman", "kendall"):
            part = trial[key]
            assert -1 <= part["low"] <= part["high"] <= 1
            low, high = part["instructions"]
            assert part["low"] <= high and low <= part["high"]
    # one base: no other to rank by; a blind choice loses the best less the mean, 8 - 23 / 6
    controls = {name for name, trial in own["criteria"].items() if trial["kind"] == "control"}
    assert controls == {"control.chance"}
    chance = own["criteria"]["control.chance"]
    assert chance["spearman"]["value"] is None and chance["p_value"] is None
    assert chance["regret"]["value"] == pytest.approx(8 - 23 / 6)
    assert found["inputs"][str(path)].startswith("sha256:")
    gaps = {(row["first"], row["second"]): row for row in own["differences"]}
    row = gaps["car", "length"]
    expected = [own["criteria"][name]["spearman"]["value"] for name in ("car", "length")]
    assert row["value"] == pytest.approx(expected[0] - expected[1])
    assert row["low"] <= row["high"]
    assert found["verdict"][0]["kind"] == "best"


def test_beta_is_fitted(runs, tmp_path):
    found = compare([runs[0]], outcomes(tmp_path / "o.csv", base=OUTCOME))
    own = found["bases"][0]["outcomes"]
    assert own is not None and list(own["beta"]) == ["reward"]
    fit = own["beta"]["reward"]
    assert fit["run_beta"] == 3.0
    assert fit["rho_at_run_beta"] == pytest.approx(own["criteria"]["car"]["spearman"]["value"])
    assert fit["rho_at_zero"] == pytest.approx(own["criteria"]["mean_reward"]["spearman"]["value"])
    assert fit["rho"] >= max(fit["rho_at_run_beta"], fit["rho_at_zero"]) - 1e-9
    assert fit["plateau"][0] <= fit["beta"] <= fit["plateau"][1]
    assert set(fit["left_out"]) == set(TEACHERS)
    assert fit["suggested"] in (fit["beta"], 3.0)
    # outcomes in CAR's own order at beta 3: nothing to change
    scores = scores_of(runs[0], "car")
    again = compare([runs[0]], outcomes(tmp_path / "p.csv", base=scores))
    own = again["bases"][0]["outcomes"]
    assert own is not None
    assert own["beta"]["reward"]["suggested"] == 3.0 and own["beta"]["reward"]["rho"] == 1.0


def test_two_bases_and_the_order_that_is_the_same_for_both(runs, tmp_path):
    second = OUTCOME | {"ash": 9.0, "dogwood": 1.0}
    path = outcomes(tmp_path / "o.csv", base=OUTCOME, other_base=second, third=OUTCOME)
    found = compare(list(runs), path)
    mean = found["mean"]
    assert mean is not None and mean["bases"] == ["base", "other-base"]
    tried = [base["outcomes"] for base in found["bases"]]
    assert all(own is not None for own in tried)
    for name in (*CRITERIA, "control.other_bases", "control.all_bases"):
        parts = [own["criteria"][name]["spearman"]["value"] for own in tried if own]
        assert mean["criteria"][name]["spearman"]["value"] == pytest.approx(np.mean(parts))
    # the other bases of `base` are other-base and third
    others = [(second[t] + OUTCOME[t]) / 2 for t in TEACHERS]
    expected = spearmanr(others, [OUTCOME[t] for t in TEACHERS])[0]
    control = tried[0]["criteria"]["control.other_bases"] if tried[0] else {}
    assert control["spearman"]["value"] == pytest.approx(float(expected))
    assert {row["base"] for row in found["verdict"]} == {None, "base", "other-base"}
    assert any(row["kind"] == "control" for row in found["verdict"])


@pytest.mark.parametrize("form", ["parquet", "json", "jsonl", "tsv"])
def test_forms_of_the_table(runs, tmp_path, form):
    rows = [{"teacher": t, "outcome": v, "note": "x"} for t, v in reversed(OUTCOME.items())]
    path = tmp_path / f"o.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "tsv":
        text = "".join(f"{row['teacher']}\t{row['outcome']}\n" for row in rows)
        path.write_text("teacher\toutcome\n" + text)
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text(json.dumps(rows) if form == "json" else "\n".join(lines))
    plain = compare([runs[0]], table(tmp_path / "plain.csv", rows))
    assert compare([runs[0]], path)["bases"] == plain["bases"]


def test_only_the_order_of_outcomes_enters_rho(runs, tmp_path):
    turned = {teacher: math.exp(value) for teacher, value in OUTCOME.items()}
    trials = []
    for name, own in (("a", OUTCOME), ("b", turned)):
        found = compare([runs[0]], outcomes(tmp_path / f"{name}.csv", base=own))
        tried = found["bases"][0]["outcomes"]
        assert tried is not None
        trials.append(tried["criteria"])
    for name in CRITERIA:
        assert trials[0][name]["spearman"] == trials[1][name]["spearman"]
        assert trials[0][name]["p_value"] == trials[1][name]["p_value"]


def test_repeats_are_averaged_by_their_weights(runs, tmp_path):
    rows = [
        {"teacher": t, "outcome": v, "seed": seed, "n": 100 if seed else 300}
        for t, v in OUTCOME.items()
        for seed in (0, 1)
    ]
    rows[0]["outcome"] = 3.0  # ash: 3 with weight 300, 1 with weight 100
    found = compare([runs[0]], table(tmp_path / "o.csv", rows))
    own = found["bases"][0]["outcomes"]
    assert own is not None and own["n_rows"] == [2] * 6
    assert own["outcome"] == pytest.approx([2.5, 4, 2, 8, 5, 3])
    # the repeats of ash disagree about its place, which widens the interval over instructions
    low, high = own["criteria"]["mean_reward"]["spearman"]["instructions"] or [0, 0]
    assert low < high
    known = read_outcomes(tmp_path / "o.csv").bases[""]
    drawn = resampled_outcomes([known["ash"], known["beech"]], 300, 0)
    assert drawn is not None and set(np.unique(drawn[0])) == {1.0, 2.5, 3.0}
    assert set(np.unique(drawn[1])) == {4.0}


def test_a_run_folder_that_was_moved(runs, tmp_path):
    """Models and answers need not be where they were; the scores are computed again anyway."""
    moved = tmp_path / "moved"
    shutil.copytree(runs[0], moved)
    settings = yaml.safe_load((moved / artifacts.SETTINGS).read_text())
    settings["base"] = "/gone/for/good/base"
    settings["answers"][0]["path"] = "/gone/for/good/answers.parquet"
    (moved / artifacts.SETTINGS).write_text(yaml.safe_dump(settings))
    found = compare([moved])
    assert found["warnings"] == []
    assert found["bases"][0]["agreement"] == compare([runs[0]])["bases"][0]["agreement"]


def test_settings_of_another_release_leave_the_points(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    with open(copy / artifacts.SETTINGS, "a") as file:
        file.write("betta: 3\n")
    found = compare([copy], outcomes(tmp_path / "o.csv", base=OUTCOME))
    assert "there are no intervals over instructions" in found["warnings"][0]
    own = found["bases"][0]["outcomes"]
    assert own is not None and own["beta"] == {}
    trial = own["criteria"]["car"]["spearman"]
    assert trial["instructions"] is None and trial["low"] < trial["high"]
    assert all(row["spearman"]["low"] is None for row in found["bases"][0]["agreement"])


def test_scores_that_cannot_be_found_again(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    ranking = ranking_of(copy)
    ranking["criteria"]["length"]["teachers"][0]["score"] += 1.0
    artifacts.write_json(copy / artifacts.RANKING, ranking)
    found = compare([copy])
    assert found["warnings"] == [
        "copy: length computed again is not what the run found; its intervals over instructions "
        "are left out"
    ]
    again = {name: own["recomputed"] for name, own in found["bases"][0]["criteria"].items()}
    assert again == {"car": True, "mean_reward": True, "perplexity": True, "length": False}


def test_strangers_and_unknown_teachers_are_said(runs, tmp_path):
    known = {name: OUTCOME[name] for name in TEACHERS[:5]} | {"gpt-9": 3.0}
    rows = [{"teacher": t, "outcome": v} for t, v in known.items()]
    rows.append({"teacher": "fir", "outcome": None})
    found = compare([runs[0]], table(tmp_path / "o.csv", rows))
    own = found["bases"][0]["outcomes"]
    assert own is not None and own["teachers"] == list(TEACHERS[:5])
    assert found["warnings"] == [
        f"1 rows of {tmp_path / 'o.csv'} have no outcome and are left aside",
        "base: outcomes of teachers that the run lacks are left aside: gpt-9",
        "base: no outcome is known of fir",
    ]


def test_few_teachers_get_the_whole_range(runs, tmp_path):
    known = {name: OUTCOME[name] for name in TEACHERS[:3]}
    found = compare([runs[0]], outcomes(tmp_path / "o.csv", base=known))
    own = found["bases"][0]["outcomes"]
    assert own is not None
    for name in CRITERIA:
        rho = own["criteria"][name]["spearman"]
        assert (rho["low"], rho["high"]) == (-1.0, 1.0)
        assert own["criteria"][name]["p_value"] >= 1 / 3
    assert any(row["kind"] == "few" for row in found["verdict"])
    assert any("of 3 teachers even a perfect order" in text for text in found["warnings"])


def test_equal_outcomes(runs, tmp_path):
    found = compare([runs[0]], outcomes(tmp_path / "o.csv", base=dict.fromkeys(TEACHERS, 2)))
    own = found["bases"][0]["outcomes"]
    assert own is not None and own["beta"] == {} and own["differences"] == []
    assert own["criteria"]["car"]["spearman"]["value"] is None
    assert own["criteria"]["car"]["regret"]["value"] == 0
    assert "base: all outcomes are equal, so no rank correlation exists" in found["warnings"]
    json.dumps(found, allow_nan=False)


def test_a_run_of_a_base_without_outcomes_still_agrees(runs, tmp_path):
    found = compare(list(runs), outcomes(tmp_path / "o.csv", base=OUTCOME))
    assert [base["outcomes"] is None for base in found["bases"]] == [False, True]
    assert found["mean"] is None
    assert f"{tmp_path / 'o.csv'} has no outcomes of other-base" in found["warnings"]


def test_runs_of_one_base_are_told_apart(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "again")
    found = compare([runs[0], tmp_path / "again"])
    assert [base["name"] for base in found["bases"]] == ["base (run-base)", "base (again)"]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"teacher": "ash", "outcome": 1}] * 2, "a teacher has two outcomes on one base"),
        ([{"teachers": "ash", "outcome": 1}], "the outcomes have no column 'teacher'"),
        ([{"teacher": "ash", "outcome": "good"}], "the outcomes cannot be read"),
        ([{"teacher": "ash", "outcome": "inf"}], "an outcome is no finite number"),
        ([{"teacher": "ash", "outcome": 1, "n": 0}], "n is no positive number"),
        ([{"teacher": "", "outcome": 1}], "an outcome does not say whose it is"),
        ([{"teacher": "ash", "outcome": 1, "base": ""}], "an outcome does not say whose it is"),
        ([{"teacher": "ash", "outcome": None}], "the outcomes hold no rows"),
        (
            [{"teacher": t, "outcome": 1, "base": "lama"} for t in TEACHERS],
            "no run has the base of these outcomes",
        ),
        (
            [{"teacher": f"{t}-7b", "outcome": 1} for t in TEACHERS],
            "fewer than 3 teachers of the run have an outcome",
        ),
    ],
)
def test_outcomes_that_cannot_be_used(runs, tmp_path, rows, what):
    with pytest.raises(DataError) as caught:
        compare([runs[0]], table(tmp_path / "o.csv", rows))
    assert caught.value.what == what and str(tmp_path / "o.csv") in caught.value.where


def test_outcomes_without_bases_fit_one_base_only(runs, tmp_path):
    path = table(tmp_path / "o.csv", [{"teacher": t, "outcome": v} for t, v in OUTCOME.items()])
    with pytest.raises(DataError, match="do not say of which base"):
        compare(list(runs), path)


@pytest.mark.parametrize("name", ["o.txt", "missing.csv", "o.json"])
def test_tables_that_cannot_be_read(runs, tmp_path, name):
    (tmp_path / "o.txt").write_text("teacher outcome\n")
    (tmp_path / "o.json").write_text('["ash", 1]')
    with pytest.raises(DataError, match="cannot be read"):
        compare([runs[0]], tmp_path / name)


def test_folders_that_are_no_finished_selection(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    artifacts.write_json(other / artifacts.RANKING, ranking_of(other) | {"version": 99})
    for folder, found in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "empty", "no ranking.json and no signals.parquet"),
        (other, "ranking.json of version 99, not 1"),
    ):
        with pytest.raises(RunFolderError, match="finished `preceptor select`") as caught:
            open_finished(folder)
        assert caught.value.found == found
    with pytest.raises(RunFolderError, match="stands twice"):
        compare([runs[0], runs[0]])


def test_names_of_bases_match_without_their_owner(tmp_path):
    path = outcomes(tmp_path / "o.csv", **{"Qwen/Qwen2": {"a": 1.0}, "x/y": {"a": 2.0}})
    known = read_outcomes(path)
    assert known.of("Qwen2")["a"].mean == 1.0 and known.of("qwen/qwen2")["a"].mean == 1.0
    assert known.of("Qwen3") == {}


def test_folder_and_command_line(runs, tmp_path):
    path = outcomes(tmp_path / "o.csv", base=OUTCOME)
    out = tmp_path / "deep" / "comparison"
    options = ["--outcomes", path, "--out", out, "--json"]
    done = preceptor("compare-criteria", runs[0], *options)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((out / COMPARE).read_text())
    assert printed["command"].startswith("preceptor compare-criteria ")
    assert printed == compare([runs[0]], path) | {"command": printed["command"]}
    assert (out / COMPARE_PAGE).read_text().startswith("<!doctype html>")


def test_a_folder_that_cannot_be_made(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PreceptorError, match="cannot be made"):
        compare([runs[0]], out=tmp_path / "file" / "out")
