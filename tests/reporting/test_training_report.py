"""The report of a training run: what it claims, what it holds, and that nothing in it is live."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from outline import Outline
from rich.console import Console

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.findings.quality import read_quality, words_of
from preceptor.reporting.findings.training_log import POINTS, Log, read_log, thinned
from preceptor.reporting.pages.training import report as training_report
from preceptor.reporting.pages.training.figures import figures, shown
from preceptor.reporting.parts import page
from preceptor.reporting.terminal.quality import print_quality

ABLATIONS = ("attention_only", "prediction_only", "both")
HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7 * 7 }} \u202egnp"


def logged_steps(n: int, learns: tuple[str, ...], every: int = 1) -> list[dict[str, Any]]:
    """A log by formula: what is learned falls, with a ripple; the rest falls a little.

    Args:
        n: logged steps.
        learns: losses that are trained on; gradient norms are logged for these.
        every: optimiser steps between two logged ones.
    """
    rows = []
    for i in range(n):
        share = i / max(n - 1, 1)
        ripple = 0.06 * math.sin(1.9 * i) + 0.04 * math.sin(0.73 * i + 1) + 0.02 * math.cos(3.1 * i)

        def falling(start: float, end: float, name: str, share: float = share) -> float:
            depth = (1.0 - 0.05 * (len(learns) - 1)) if name in learns else 0.25
            return end + (start - end) * (1 - depth * (1 - math.exp(-5 * share)))

        row: dict[str, Any] = {
            "step": (i + 1) * every,
            "epoch": 2 * share,
            "next_token": falling(2.31, 1.18, "divergence") * (1 + 0.5 * ripple),
            "divergence": falling(0.92, 0.17, "divergence") * (1 + ripple),
            "attention": falling(0.41, 0.04, "attention") * (1 + 0.8 * ripple),
            "grad_norm": (0.4 + 2.4 * math.exp(-6 * share)) * (1 + 2 * ripple),
            "learning_rate": 5e-4 * 0.5 * (1 + math.cos(math.pi * share)),
            "tokens_per_second": 5200 * (1 + 0.3 * ripple) - (1500 if i == 0 else 0),
            "peak_memory_mb": 801.5 + 35 * min(1, 4 * share),
        }
        row["loss"] = sum(row[name] for name in learns)
        norms = {"divergence": (1.9, 0.3), "attention": (0.8, 0.05)}
        for name, (start, end) in norms.items():
            if name in learns:
                row[f"grad_norm.{name}"] = falling(start, end, name) * (1 + 2 * ripple)
        rows.append(row)
    return rows


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def cell(value: float, half: float, key: str = "score") -> dict[str, float]:
    return {key: value, "low": value - half, "high": value + half}


def quality_table() -> dict[str, Any]:
    scores = {"base": (0.55, 0.12), "SFT on answers": (0.81, 0.14), "KD": (0.83, 0.15)}
    rows: list[dict[str, Any]] = [
        {"model": name, "general": cell(general, 0.03), "shop": cell(shop, 0.09), "seeds": [0]}
        for name, (general, shop) in scores.items()
    ]
    rows.append(
        {"model": "KD + DAE", "general": cell(0.82, 0.03), "shop": cell(0.64, 0.1)}
        | {"seeds": [0, 1, 2]}
        | {"by_seed": {str(i): {"general": 0.81 + i / 100, "shop": 0.6 + i / 25} for i in range(3)}}
    )

    def gap(model: str, against: str, group: str, value: float, half: float) -> dict[str, Any]:
        return {"model": model, "against": against, "group": group} | cell(
            value, half, "difference"
        )

    return {
        "version": 1,
        "confidence": 0.95,
        "measure": "mean reward of the verifier, greedy answers",
        "groups": ["general", "shop"],
        "n": {"general": 540, "shop": 60},
        "rows": rows,
        "differences": [
            gap("KD + DAE", "base", "general", 0.27, 0.04),
            gap("KD + DAE", "KD", "general", -0.01, 0.02),
            gap("KD + DAE", "base", "shop", 0.52, 0.12),
            gap("KD + DAE", "KD", "shop", 0.49, 0.11),
        ],
    }


def build_training_folder(folder: Path, *, steps: int = 160, ablation: bool = True) -> Path:
    """Write a finished training run into `folder`; the same arguments give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_log(folder / "metrics.jsonl", logged_steps(steps, ("divergence", "attention"), every=5))
    if ablation:
        learned = [("attention",), ("divergence",), ("divergence", "attention")]
        for name, learns in zip(ABLATIONS, learned, strict=True):
            write_log(folder / "ablation" / name / "metrics.jsonl", logged_steps(steps, learns))
    artifacts.write_json(folder / artifacts.QUALITY, quality_table())
    settings = {
        "base": "lab:base-prose",
        "teacher": {"kind": "in_process", "model": "/models/birch-l", "dtype": "auto"},
        "mix": 1.0,
        "losses": [{"name": "forward_kl", "weight": 1.0}, {"name": "attention", "weight": 1.0}],
        "training": {"learning_rate": 5e-4, "epochs": 2.0},
    }
    provenance = {
        "preceptor": "0.2.0",
        "status": "finished",
        "command": "preceptor distill kd.yaml --out runs/kd mix=1",
        "settings": settings,
        "inputs": {"answers.parquet": "sha256:" + 16 * "9f86"},
        "models": {"base": "sha256:" + 16 * "0cc1", "teacher": "sha256:" + 16 * "d884"},
        "stage_seconds": {"grading student": 21.0},
        "wall_seconds_of_last_run": 95.2,
        "machine": {"system": "Linux", "processor": "x86_64", "cores": 2},
        "versions": {"python": "3.11.9", "torch": "2.9.0"},
    }
    artifacts.write_json(folder / artifacts.PROVENANCE, provenance)
    text = (
        "base: lab:base-prose\nteacher:\n  kind: in_process\n  model: /models/birch-l\nmix: 1.0\n"
    )
    artifacts.write_bytes(folder / artifacts.SETTINGS, text.encode())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_training_folder(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def outline(folder: Path) -> Outline:
    return Outline(training_report.render(folder))


def _outline(folder: Path, **quality: Any) -> Outline:
    """The page of `folder` (built there if empty) with parts of its quality table replaced."""
    if not folder.exists() or not any(folder.iterdir()):
        build_training_folder(folder, steps=30)
    artifacts.write_json(folder / artifacts.QUALITY, quality_table() | quality)
    return Outline(training_report.render(folder))


def test_page_is_self_contained(outline: Outline) -> None:
    policies = [a["content"] for _, a in outline.tags if "http-equiv" in a]
    assert len(policies) == 1 and (policies[0] or "").startswith("default-src 'none';")
    for tag, attributes in outline.tags:
        for key in ("src", "href", "action", "srcset", "poster"):
            value = attributes.get(key)
            assert value is None or value == "data:," or value.startswith("#"), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
    assert "@import" not in page.asset("pages/training/report.css") and "url(" not in page.asset(
        "pages/training/report.css"
    )


def test_own_script_never_builds_markup_from_text() -> None:
    for name in ("parts/page.js", "pages/training/report.js"):
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in page.asset(name)


def test_same_folder_gives_same_bytes(folder: Path) -> None:
    first = training_report.write(folder).read_bytes()
    assert training_report.write(folder).read_bytes() == first
    assert [path.name for path in folder.glob(".*")] == []


def test_title_says_what_was_trained_from_what(outline: Outline) -> None:
    assert "base-prose trained from birch-l" in outline.words


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({"base": "Qwen/Qwen2-1.5B", "teacher": {"kind": "cached", "path": "/runs/kd/store"}},
         "Qwen/Qwen2-1.5B trained from store"),
        ({"base": "b", "reference": {"model": "lab:birch-l"}, "experts": {"shop": {"model": "e"}}},
         "b trained from birch-l and e"),
        ({"base": "b", "teacher": {"kind": "ensemble", "weights": [0.5, 0.5], "mixture": "x",
          "teachers": [{"model": "one"}, {"model": "two"}]}}, "b trained from one and two"),
        ({"base": "b", "data": {"teacher": "birch-l"}}, "b trained on the answers of birch-l"),
        ({"base": "b", "data": {"answers": {"path": "a.jsonl"}}}, "b trained on answers"),
    ],
)  # fmt: skip
def test_title_of_other_settings(tmp_path: Path, settings: dict[str, Any], title: str) -> None:
    write_log(tmp_path / "metrics.jsonl", logged_steps(3, ("divergence",)))
    artifacts.write_bytes(tmp_path / artifacts.SETTINGS, json.dumps(settings).encode())
    words = Outline(training_report.render(tmp_path)).words
    assert f"Dark mode {title} A student was trained for 3 steps, with a loss of" in words
    assert "its quality was not measured, so nothing is said of what it can do." in words


def test_verdict_gives_score_and_difference_with_their_intervals(outline: Outline) -> None:
    """Against the first trained rival, and above or below only where the interval excludes 0."""
    assert (
        "KD + DAE scores 0.82 [0.79, 0.85] on the 540 general instructions (not separable from "
        "KD), 0.64 [0.54, 0.74] on the 60 shop instructions (0.49 [0.38, 0.60] above KD), with "
        "95% intervals; it took 95 seconds." in outline.words
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.01, 0.05, "(not separable from base)"),
        (0.0, 0.05, "(not separable from base)"),
        (0.004, 0.05, "(0.020 [0.004, 0.050] above base)"),
        (0.01, 0.05, "(0.02 [0.01, 0.05] above base)"),
        (-0.05, -0.01, "(0.02 [0.01, 0.05] below base)"),
    ],
)
def test_verdict_never_claims_a_difference_whose_interval_holds_zero(
    tmp_path: Path, low: float, high: float, words: str
) -> None:
    value = 0.02 if high > 0.02 else -0.02
    gap = {"model": "KD", "against": "base", "group": "general", "difference": value}
    outline = _outline(tmp_path, differences=[gap | {"low": low, "high": high}])
    verdict = outline.words[: outline.words.index("steps")]
    assert words in verdict
    assert ("above" in verdict) == (low > 0) and ("below" in verdict) == (high < 0)
    assert ("no difference shown" in outline.words) == (low <= 0 <= high)


def test_verdict_without_differences_or_groups(tmp_path: Path) -> None:
    row = {"model": "KD", "all": cell(83.0, 2.0), "seeds": [0]}
    outline = _outline(tmp_path, groups=["all"], n={"all": 600}, rows=[row], differences=[])
    assert "KD scores 83 [81, 85] on the 600 instructions, with 95% intervals;" in outline.words
    assert "differences" not in [a.get("id") for _, a in outline.tags]


def test_quality_table_stands_in_the_html(outline: Outline) -> None:
    assert "base 0.55 [0.52, 0.58] 0.12 [0.03, 0.21] 0" in outline.words
    assert "KD + DAE 0.82 [0.79, 0.85] 0.64 [0.54, 0.74] 0, 1, 2" in outline.words
    assert "KD + DAE − KD general −0.01 [−0.03, 0.01] no difference shown" in outline.words
    assert "KD + DAE − KD shop 0.49 [0.38, 0.60] above" in outline.words
    data = json.loads(outline.data)["quality"]
    assert [row["label"] for row in data["scores"][0]] == [
        "base",
        "SFT on answers",
        "KD",
        "KD + DAE",
    ]
    assert [row["main"] for row in data["scores"][1]] == [False, False, False, True]
    assert data["scores"][0][3]["seeds"] == pytest.approx([0.81, 0.82, 0.83])


def test_a_model_that_was_not_measured_on_a_group(tmp_path: Path) -> None:
    rows = quality_table()["rows"]
    del rows[1]["shop"]
    outline = _outline(tmp_path, rows=rows)
    assert "SFT on answers 0.81 [0.78, 0.84] – 0" in outline.words
    assert len(json.loads(outline.data)["quality"]["scores"][1]) == 3


def test_every_chart_has_its_values_in_a_table(folder: Path, outline: Outline) -> None:
    data = json.loads(outline.data)
    assert outline.words.count("Values as a table") == 3 == len(data["figures"])
    rows = logged_steps(160, ("divergence", "attention"), every=5)
    for row in (rows[0], rows[-1]):
        shown_there = [
            shown(row[name]) for name in ("next_token", "divergence", "attention", "loss")
        ]
        assert f"{row['step']} " + " ".join(shown_there) in outline.words
    for figure in data["figures"].values():
        for panel in figure["panels"]:
            assert panel["lines"] and all(line["summary"] for line in panel["lines"])


def test_curves_hold_every_loss_and_norm(outline: Outline) -> None:
    panels = json.loads(outline.data)["figures"]["curves"]["panels"]
    assert [panel["title"] for panel in panels] == [
        *("Next-token loss", "Prediction loss", "Attention loss", "Weighted sum of the losses"),
        "Gradient norm",
    ]
    assert [line["label"] for line in panels[-1]["lines"]] == [
        *("all losses together", "prediction loss", "attention loss"),
    ]
    first = logged_steps(160, ("divergence", "attention"))[0]["attention"]
    assert panels[2]["lines"][0]["summary"].startswith(f"{shown(first)} at step 5, ")


def test_ablation_has_two_losses_and_two_norms_by_run(outline: Outline) -> None:
    panels = json.loads(outline.data)["figures"]["ablation"]["panels"]
    assert [(panel["title"], [line["label"] for line in panel["lines"]]) for panel in panels] == [
        ("Attention loss", ["attention only", "prediction only", "both"]),
        ("Prediction loss", ["attention only", "prediction only", "both"]),
        ("Gradient norm of the attention loss", ["attention only", "both"]),
        ("Gradient norm of the prediction loss", ["prediction only", "both"]),
    ]
    assert panels[2]["missing"] == ["prediction only"]
    assert "prediction only: not logged" in outline.words
    dashes = [line["dash"] for line in panels[0]["lines"]]
    assert len(set(dashes)) == 3  # a line is told by more than its colour


def test_the_run_itself_is_both_and_a_single_loss_has_one_norm(tmp_path: Path) -> None:
    """A run of one loss may log its whole gradient's norm only: that is the loss's own."""
    build_training_folder(tmp_path, steps=12)
    for path in (tmp_path / "ablation" / "both").iterdir():
        path.unlink()
    rows = [
        {
            key: value
            for key, value in row.items()
            if key not in ("grad_norm.divergence", "attention")
        }
        for row in logged_steps(12, ("divergence",))
    ]
    write_log(tmp_path / "ablation" / "prediction_only" / "metrics.jsonl", rows)
    data = json.loads(Outline(training_report.render(tmp_path)).data)
    panels = data["figures"]["ablation"]["panels"]
    drawn = [[(line["run"], line["column"]) for line in panel["lines"]] for panel in panels]
    assert drawn[0] == [("attention_only", "attention"), ("run", "attention")]
    assert drawn[3] == [("prediction_only", "grad_norm"), ("run", "grad_norm.divergence")]
    assert sorted(data["runs"]) == ["attention_only", "prediction_only", "run"]


def test_ablation_without_norms_of_single_losses_shows_the_whole_gradient(tmp_path: Path) -> None:
    for name in ABLATIONS[:2]:
        rows = [{"step": i, "attention": 1 / i, "grad_norm": 2 / i} for i in (1, 2)]
        write_log(tmp_path / "ablation" / name / "metrics.jsonl", rows)
    data = json.loads(Outline(training_report.render(tmp_path)).data)
    assert list(data["figures"]) == ["ablation"]
    panels = data["figures"]["ablation"]["panels"]
    assert [panel["title"] for panel in panels] == ["Attention loss", "Gradient norm"]
    assert [line["column"] for line in panels[1]["lines"]] == ["grad_norm", "grad_norm"]


def test_plain_fine_tuning_has_one_loss_and_one_norm(tmp_path: Path) -> None:
    rows = [{"step": i, "loss": 2 / i, "next_token": 2 / i, "grad_norm": 1.0} for i in (1, 2, 3)]
    write_log(tmp_path / "metrics.jsonl", rows)
    panels = json.loads(Outline(training_report.render(tmp_path)).data)["figures"]["curves"][
        "panels"
    ]
    assert [panel["title"] for panel in panels] == ["Next-token loss", "Gradient norm"]
    rows[1]["loss"] = 0.5
    write_log(tmp_path / "metrics.jsonl", rows)
    panels = json.loads(Outline(training_report.render(tmp_path)).data)["figures"]["curves"][
        "panels"
    ]
    assert [panel["title"] for panel in panels][1] == "Weighted sum of the losses"


def test_provenance_shows_the_exact_command_and_the_settings(outline: Outline) -> None:
    assert "preceptor distill kd.yaml --out runs/kd mix=1" in outline.text
    assert "Settingsbase: lab:base-prose" in outline.words  # a fold, and what is in it
    assert "model: /models/birch-l" in outline.text
    assert 16 * "9f86" in outline.text


def test_tiles(outline: Outline) -> None:
    assert "800 steps 2 passes over the data" in outline.words
    assert re.search(r"5,\d{3} tokens/s \(median\) 837 MB peak memory", outline.words)


def test_hostile_names_and_commands_are_inert(tmp_path: Path) -> None:
    build_training_folder(tmp_path, steps=8)
    quality = json.loads(json.dumps(quality_table()).replace("KD + DAE", "@").replace("shop", "#"))
    text = (
        json.dumps(quality).replace('"@"', json.dumps(HOSTILE)).replace('"#"', json.dumps(HOSTILE))
    )
    artifacts.write_bytes(tmp_path / artifacts.QUALITY, text.encode())
    provenance = json.loads((tmp_path / artifacts.PROVENANCE).read_text())
    provenance |= {"command": HOSTILE, "status": HOSTILE, HOSTILE: HOSTILE}
    provenance["settings"] |= {"base": HOSTILE, "teacher": HOSTILE}
    artifacts.write_json(tmp_path / artifacts.PROVENANCE, provenance)
    artifacts.write_bytes(tmp_path / artifacts.SETTINGS, HOSTILE.encode())
    html = training_report.render(tmp_path)
    outline = Outline(html)
    scripts = [own for tag, own in outline.tags if tag == "script" and "type" not in own]
    assert len(scripts) == len(training_report.SCRIPTS)
    assert "img" not in [tag for tag, _ in outline.tags]
    assert outline.text.count(page.visible(HOSTILE)) >= 8 and "alert(1)</script>" not in html
    assert HOSTILE in [row["label"] for row in json.loads(outline.data)["quality"]["scores"][0]]


def test_unfinished_and_diverging_runs_are_said_to_be(tmp_path: Path) -> None:
    build_training_folder(tmp_path, steps=10, ablation=False)
    (tmp_path / artifacts.QUALITY).unlink()
    provenance = json.loads((tmp_path / artifacts.PROVENANCE).read_text())
    artifacts.write_json(tmp_path / artifacts.PROVENANCE, provenance | {"status": "running"})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 55, "loss": NaN, "attention": null}\n{"step": 60, "loss": In')
    words = Outline(training_report.render(tmp_path)).words
    assert "The run is not finished (status: running)" in words
    assert "loss was no finite number at 1 of 11 logged steps, first at step 55." in words
    assert "attention was no finite number at 1 of 11 logged steps" in words
    assert "3 warnings" in words


def test_log_keeps_the_later_of_two_lines_and_drops_a_cut_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "loss": 5}\n{"step": 1, "loss": 9}\n{"step": 2, "loss": 4}\n{"ste')
    log = read_log(path)
    assert log is not None
    assert (log.steps, log.columns, log.epochs) == ([1, 2], {"loss": [9.0, 4.0]}, [None, None])
    assert read_log(tmp_path / "other") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"step": 1}\n[]\n{"step": 2}\n', "line 2"),
        ('{"step": 1\n{"step": 2}\n', "line 1"),
        ('{"loss": 1}\n{"step": 2}\n', "line 1"),
        ('{"step": 1, "loss": "low"}\n', "loss at step 1"),
        ('{"step": 1, "loss": true}\n', "loss at step 1"),
    ],
)
def test_log_that_is_no_log_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(RunFolderError, match=found):
        read_log(tmp_path / "metrics.jsonl")


def test_long_logs_are_thinned_and_that_is_said(tmp_path: Path) -> None:
    n = 3 * POINTS - 1
    write_log(tmp_path / "metrics.jsonl", [{"step": i, "loss": 1 / (i + 1)} for i in range(n)])
    outline = Outline(training_report.render(tmp_path))
    drawn = json.loads(outline.data)["runs"]["run"]
    assert drawn["step"][:3] == [0, 3, 6] and drawn["step"][-1] == n - 1
    assert len(drawn["loss"]) == len(drawn["step"]) <= POINTS + 1
    assert "One of 3 logged steps is drawn" in outline.words
    assert len(outline.data) < 100_000


def test_thinned_always_ends_at_the_last() -> None:
    assert thinned(7, 3) == [0, 3, 6] and thinned(6, 4) == [0, 4, 5]
    assert thinned(1, 5) == [0] and thinned(0, 1) == []


def test_smoothing_needs_enough_steps() -> None:
    def window(n: int) -> int:
        log = Log(list(range(n)), [None] * n, {"loss": [1.0] * n}, {})
        return figures({"run": log})["curves"]["window"]

    assert [window(n) for n in (1, 19, 20, 600)] == [0, 0, 5, 21]


def test_numbers() -> None:
    values = (None, 0.0, 5e-4, -1.234e-7, -0.25, 0.12345, 12.5, 836.5, 999.6, 5234.5)
    assert [shown(x) for x in values] == [
        *("–", "0", "5e−4", "−1.23e−7", "−0.250", "0.123", "12.5", "837", "1,000", "5,235"),
    ]


def test_empty_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no training"):
        training_report.render(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    assert "No step was logged." in Outline(training_report.render(tmp_path)).words
    (tmp_path / artifacts.SETTINGS).write_text("a: [")
    with pytest.raises(RunFolderError, match="not YAML"):
        training_report.render(tmp_path)
    (tmp_path / artifacts.PROVENANCE).write_text("{")
    with pytest.raises(RunFolderError, match="not JSON"):
        training_report.render(tmp_path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"version": 2}, "version"),
        ({"rows": []}, "no rows"),
        ({"groups": None}, "TypeError"),
        ({"rows": [{"model": "KD", "general": {"score": 1.0, "low": 0.5}}]}, "'high'"),
        ({"rows": [{"model": "KD", "general": {"score": 1, "low": 3, "high": 2}}]}, "before it"),
        ({"rows": [{"model": "KD", "general": cell(math.inf, 1)}]}, "no finite number"),
        ({"differences": [{"model": "KD"}]}, "'against'"),
    ],
)  # fmt: skip
def test_other_quality_tables_are_refused(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(RunFolderError, match=found):
        read_quality(quality_table() | changes, "quality.json")


def _printed(quality: dict[str, Any]) -> str:
    out = StringIO()
    print_quality(quality, Path("runs/kd"), Console(file=out, width=110))
    return out.getvalue()


def test_quality_on_the_terminal() -> None:
    text = _printed(quality_table())
    assert "mean reward of the verifier, greedy answers, 95% intervals" in text
    assert "general (n = 540)" in text and "shop (n = 60)" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("SFT on answers"))
    assert row.split() == "SFT on answers 0.81 [0.78, 0.84] 0.14 [0.05, 0.23]".split()
    assert (
        "KD + DAE - KD, general: -0.01 [-0.03, 0.01] no difference shown: the interval holds 0"
        in text
    )
    assert "KD + DAE - KD, shop: 0.49 [0.38, 0.60] above" in text
    assert text.rstrip().endswith("report: runs/kd/report.html")
    assert "\x1b" not in text


def test_page_and_terminal_round_alike() -> None:
    row = {"model": "KD", "all": {"score": 0.125, "low": -0.125, "high": 0.375}}
    quality = quality_table() | {"rows": [row], "groups": ["all"], "differences": []}
    known = read_quality(quality, "")
    assert known.decimals == 1
    assert words_of(known.rows[0].scores["all"], 2) == "0.13 [−0.13, 0.38]"
    assert "0.1 [-0.1, 0.4]" in _printed(quality)


def test_terminal_without_quality_names_the_report_alone() -> None:
    assert _printed({}) == "report: runs/kd/report.html\n"


def test_terminal_takes_names_as_data_not_markup() -> None:
    quality = quality_table()
    for part in (quality["rows"][3], *quality["differences"]):
        part["model"] = "[red]evil[/red]"
    assert _printed(quality).count("[red]evil[/red]") == 5


def test_report_imports_no_model_library() -> None:
    code = (
        "import sys, preceptor.reporting.pages.training.report;"
        "import preceptor.reporting.terminal.quality;"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
