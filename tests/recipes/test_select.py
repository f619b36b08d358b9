"""`select` from settings to run folder, with real tiny models and nothing replaced."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from forked import start as fork
from preceptor.core import artifacts
from preceptor.core.errors import DataError, ModelError, PreceptorError, SettingsError
from preceptor.data.rendering import Renderer
from preceptor.recipes.select import select
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select
from preceptor.reporting.terminal.ranking import print_ranking
from preceptor.rewards import REWARDS

Start = Callable[..., dict[str, Any]]
ALL = ["car", "mean_reward", "perplexity", "ifd", "length"]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def start(folder: Path, out: str = "run", **settings: Any) -> dict[str, Any]:
    """Write the settings file beside the data and run it."""
    tree = {"device": "cpu", "resamples": 200, **settings}
    (folder / "select.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return select(load_settings(Select, folder / "select.yaml"), folder / out)


@pytest.fixture
def data(tmp_path: Path, tall: list[dict[str, Any]]) -> Path:
    """Recorded answers with two rewards, one of them negative."""
    rows = [row | {"second": -row["reward"], "words": "many"} for row in tall]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    return tmp_path


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    base: Path,
    chatter: Path,
    instruction_texts: tuple[str, ...],
) -> tuple[Path, dict[str, Any]]:
    """A whole run: recorded answers, a reference, all five criteria, two rewards."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [
        {"instruction": text, "generator": who, "response": f"{who} {n}" * k, "right": n / 5 + k,
         "kind": 5.0 - k}
        for n, text in enumerate(instruction_texts)
        for k, who in enumerate(("ash", "beech", "cherry"), 1)
    ]  # fmt: skip
    write_jsonl(folder / "answers.jsonl", rows)
    ranking = start(
        folder,
        base=str(base),
        reference=str(chatter),
        answers="answers.jsonl",
        rewards=["right", "kind"],
        criteria=ALL,
    )
    return folder, ranking


def read(folder: Path, name: str, out: str = "run") -> dict[str, Any]:
    return json.loads((folder / out / name).read_text("utf-8"))


def test_the_run_folder(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, ranking = finished
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        "answers.parquet",
        "provenance.json",
        "ranking.json",
        "report.html",
        "report.md",
        "sample_tokens.parquet",
        "settings.yaml",
        "signals.parquet",
    ]
    assert read(folder, "ranking.json") == ranking
    assert "cherry" in (folder / "run" / "report.html").read_text("utf-8")
    assert yaml.safe_load((folder / "run" / "settings.yaml").read_text())["criteria"] == ALL
    facts = read(folder, "provenance.json")
    assert (facts["status"], facts["answers"]) == ("finished", 18)
    assert set(facts["models"]) == {"base", "reference"}
    assert list(facts["inputs"]) == [str(folder / "answers.jsonl")]


def test_the_keys_of_a_ranking(finished: tuple[Path, dict[str, Any]]) -> None:
    """The layout of `ranking.json`: other programs read it, so a change needs a new version."""
    _, ranking = finished
    assert ranking["version"] == 1
    assert list(ranking) == [
        "version", "base", "reference", "n_instructions", "n_instructions_dropped", "n_answers",
        "recommended", "recommended_by", "beta", "loss_reduction", "confidence", "n_resamples",
        "seed", "rewards", "warnings", "teachers", "criteria", "beta_sensitivity", "controls",
    ]  # fmt: skip
    assert list(ranking["rewards"]) == ["right", "kind"]
    assert list(ranking["rewards"]["right"]) == ["kind", "map", "low", "high"]
    assert list(ranking["teachers"]) == ["ash", "beech", "cherry"]
    assert list(ranking["teachers"]["ash"]) == ["loss", "n_tokens_mean", "truncated", "rewards"]
    assert list(ranking["criteria"]) == [
        "car", "car.kind", "mean_reward", "mean_reward.kind", "perplexity",
        "perplexity_reference", "ifd", "ifd_reference", "length",
    ]  # fmt: skip
    for found in ranking["criteria"].values():
        assert list(found) == [
            "direction", "unit", "reward", "description", "tied_with_first", "teachers",
        ]  # fmt: skip
        for row in found["teachers"]:
            assert list(row) == [
                "teacher", "score", "low", "high", "rank", "rank_low", "rank_high", "p_best",
            ]  # fmt: skip
    assert list(ranking["beta_sensitivity"]) == ["right", "kind"]
    assert list(ranking["beta_sensitivity"]["right"][0]) == ["beta", "teachers"]
    assert list(ranking["beta_sensitivity"]["right"][0]["teachers"][0]) == [
        "teacher", "score", "rank",
    ]  # fmt: skip
    controls = ranking["controls"]
    assert list(controls) == ["teachers", "criteria", "within"]
    assert controls["teachers"]["ash"] == {"family": None, "size": None}
    assert list(controls["criteria"]) == list(ranking["criteria"])
    assert list(controls["criteria"]["car"]) == [
        "n", "length", "size", "family", "first_without_length",
    ]  # fmt: skip
    assert list(controls["criteria"]["car"]["length"]) == ["spearman", "p_value"]
    assert list(controls["within"]) == ["reward.right", "reward.kind", "loss"]


def test_the_tables_have_their_schemas(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    answers = pq.read_table(folder / "run" / "answers.parquet")
    signals = pq.read_table(folder / "run" / "signals.parquet")
    assert answers.schema.equals(artifacts.ANSWERS_SCHEMA)
    assert signals.schema.equals(artifacts.signals_schema(["right", "kind"]))
    assert answers.num_rows == signals.num_rows == 18
    assert signals["teacher"].equals(answers["teacher"])
    assert signals["instruction_id"].equals(answers["instruction_id"])
    assert all(column.null_count == 0 for column in signals.columns)


def nll_by_hand(model_folder: Path, instruction: str | None, response: str) -> tuple[int, float]:
    """(tokens, -log p) of one response, alone, with the whole softmax."""
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    renderer = Renderer(AutoTokenizer.from_pretrained(model_folder), 128)
    [row] = renderer.render([instruction or "?"], [response])
    row = row if instruction else renderer.unconditional(row)
    with torch.inference_mode():
        log_p = model(input_ids=torch.tensor([list(row.ids)])).logits[0].log_softmax(-1)
    start = len(row.ids) - row.n_response
    nll = -sum(log_p[start - 1 + n, token].item() for n, token in enumerate(row.response_ids))
    return row.n_response, nll


def test_signals_are_the_models_own(
    finished: tuple[Path, dict[str, Any]], base: Path, chatter: Path
) -> None:
    folder, _ = finished
    answers = pq.read_table(folder / "run" / "answers.parquet").to_pylist()
    signals = pq.read_table(folder / "run" / "signals.parquet").to_pylist()
    for place in (0, 7, 17):
        question, response = answers[place]["instruction"], answers[place]["response"]
        row = signals[place]
        for model, suffix in ((base, ""), (chatter, "_reference")):
            n, nll = nll_by_hand(model, question, response)
            _, alone = nll_by_hand(model, None, response)
            assert row[f"n_tokens{suffix}"] == n
            assert row[f"nll{suffix}"] == pytest.approx(nll, rel=1e-4)
            assert row[f"nll{suffix}_unconditional"] == pytest.approx(alone, rel=1e-4)


def test_scores_follow_from_the_signals(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, ranking = finished
    table = pq.read_table(folder / "run" / "signals.parquet")

    def grid(name: str) -> np.ndarray:
        return table[name].to_numpy().reshape(3, 6)

    loss = (grid("nll") / grid("n_tokens")).mean(axis=1)
    other = (grid("nll_reference") / grid("n_tokens_reference")).mean(axis=1)
    wanted = {
        "car": grid("reward.right").mean(axis=1) / (1 + 3.0 * loss),
        "car.kind": grid("reward.kind").mean(axis=1) / (1 + 3.0 * loss),
        "mean_reward": grid("reward.right").mean(axis=1),
        "mean_reward.kind": grid("reward.kind").mean(axis=1),
        "perplexity": np.exp(loss),
        "perplexity_reference": np.exp(other),
        "ifd": (grid("nll") / grid("nll_unconditional")).mean(axis=1),
        "length": grid("n_tokens").mean(axis=1),
    }
    for name, scores in wanted.items():
        rows = ranking["criteria"][name]["teachers"]
        found = {row["teacher"]: row["score"] for row in rows}
        assert [found[t] for t in ("ash", "beech", "cherry")] == pytest.approx(scores.tolist()), (
            name
        )
        order = np.argsort(scores if name.startswith("perpl") else -scores, kind="stable")
        assert [row["teacher"] for row in rows] == [("ash", "beech", "cherry")[m] for m in order]
        assert all(row["low"] <= row["score"] <= row["high"] for row in rows)
    assert ranking["recommended"] == ranking["criteria"]["car"]["teachers"][0]["teacher"]
    assert ranking["recommended_by"] == "car"
    assert ranking["rewards"]["right"] == {"kind": "column", "map": "none", "low": 1.0, "high": 4.0}
    grid_of_betas = [row["beta"] for row in ranking["beta_sensitivity"]["right"]]
    assert grid_of_betas == [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0]
    at_zero = {
        r["teacher"]: r["score"] for r in ranking["beta_sensitivity"]["right"][0]["teachers"]
    }
    assert at_zero["ash"] == pytest.approx(wanted["mean_reward"][0])


def rerun(folder: Path, out: str = "run") -> int:
    """The same command in a new process; says how many models were loaded."""
    told = folder / "loaded"
    process = fork(_rerun, str(folder / "select.yaml"), str(folder / out), str(told))
    process.join(120)
    assert process.exitcode == 0
    return int(told.read_text())


def _rerun(config: str, out: str, told: str) -> None:
    from preceptor.models import load

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    loaded, whole = [], load._load

    def noted(*arguments: Any) -> Any:
        loaded.append(arguments)
        return whole(*arguments)

    load._load = noted  # every model comes from there: tests/architecture/test_single_places.py
    select(load_settings(Select, Path(config)), Path(out))
    Path(told).write_text(str(len(loaded)))


def as_wide(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Generator-Zoo form: a struct column {content, <reward>} per generator."""
    texts = list(dict.fromkeys(row["instruction"] for row in rows))
    return [
        {
            "uuid": f"u{number}",
            "instruction": text,
            **{
                row["generator"]: {"content": row["response"], "a/judge": row["reward"]}
                for row in rows
                if row["instruction"] == text
            },
        }
        for number, text in enumerate(texts)
    ]


def test_wide_and_tall_answers_rank_alike(
    tmp_path: Path, base: Path, tall: list[dict[str, Any]]
) -> None:
    write_jsonl(tmp_path / "tall.jsonl", tall)
    pq.write_table(pa.Table.from_pylist(as_wide(tall)), tmp_path / "wide.parquet")
    common: dict[str, Any] = {"base": str(base), "criteria": ALL}
    start(tmp_path, "tall", answers="tall.jsonl", rewards=["reward"], **common)
    reward = {"column": "a/judge", "name": "reward"}
    start(tmp_path, "wide", answers="wide.parquet", rewards=[reward], **common)
    first, second = (tmp_path / out / "ranking.json" for out in ("tall", "wide"))
    assert first.read_bytes() == second.read_bytes()


def test_a_finished_run_again_is_the_same_without_weights(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = finished
    before = {path.name: path.read_bytes() for path in (folder / "run").iterdir()}
    (folder / "run" / "report.html").unlink()
    assert rerun(folder) == 0
    assert {path.name: path.read_bytes() for path in (folder / "run").iterdir()} == before
    assert rerun(folder, "another") > 0


def test_a_run_killed_before_its_ranking_ranks_without_weights(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = finished
    out = folder / "run"
    before = (out / "ranking.json").read_bytes()
    (out / "ranking.json").unlink()
    facts = read(folder, "provenance.json")
    (out / "provenance.json").write_text(json.dumps(facts | {"status": "running"}))
    assert rerun(folder) == 0
    assert (out / "ranking.json").read_bytes() == before
    assert read(folder, "provenance.json")["status"] == "finished"


def test_a_finished_folder_that_lost_a_file_says_so(data: Path, base: Path) -> None:
    settings = {"base": str(base), "answers": "answers.jsonl", "rewards": ["reward"]}
    start(data, **settings)
    (data / "run" / "ranking.json").unlink()
    with pytest.raises(PreceptorError) as caught:
        start(data, **settings)
    assert "ranking.json" in str(caught.value) and caught.value.next_step


def test_other_settings_inputs_and_models_are_refused(
    data: Path, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    base = tmp_path / "own-base"
    base.mkdir()
    for file in tiny_model("base").iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    settings = {"base": "own-base", "answers": "answers.jsonl", "rewards": ["reward"]}
    start(data, **settings)
    with pytest.raises(PreceptorError, match=r"other settings\n.*\n  found: beta: 3.0 then, 2.0"):
        start(data, **settings, beta=2.0)
    (base / "generation_config.json").write_text("{}")
    with pytest.raises(PreceptorError, match="other models") as caught:
        start(data, **settings)
    assert caught.value.found.startswith("base: 'sha256:")
    text = (data / "answers.jsonl").read_text()
    (data / "answers.jsonl").write_text(text.replace("blue", "bleu").replace("house", "home"))
    with pytest.raises(PreceptorError, match="other inputs") as caught:
        start(data, **settings)
    assert "answers.jsonl: 'sha256:" in caught.value.found


def test_live_teachers_beside_recorded_ones(
    data: Path, base: Path, chatter: Path, instruction_texts: tuple[str, ...]
) -> None:
    rows = [{"instruction": text, "letters": len(text)} for text in instruction_texts]
    write_jsonl(data / "questions.jsonl", rows)
    (data / "graders_of_select.py").write_text(
        "def fullness(instruction, response, row):\n"
        "    return min(len(response), 50) / 50 + ('letters' in row)\n"
    )
    sys.path.insert(0, str(data))
    try:
        ranking = start(
            data,
            base=str(base),
            answers="answers.jsonl",
            instructions="questions.jsonl",
            teachers=[
                {"model": str(chatter), "max_new_tokens": 6, "name": "live"},
                {"model": str(base), "max_new_tokens": 6, "temperature": 1.0, "batch_size": 4},
            ],
            rewards=[
                {"kind": "verifier", "name": "full", "function": "graders_of_select:fullness"}
            ],
        )
    finally:
        sys.path.remove(str(data))
    assert list(ranking["teachers"]) == ["ash", "base", "beech", "cherry", "live"]
    answers = pq.read_table(data / "run" / "answers.parquet").to_pylist()
    assert len(answers) == 30
    reasons = {(row["teacher"], row["finish_reason"]) for row in answers}
    assert {who for who, reason in reasons if reason == "recorded"} == {"ash", "beech", "cherry"}
    asked = [row for row in answers if row["teacher"] in ("live", "base")]
    assert all(1 <= row["n_generated"] <= 6 for row in asked)
    assert [r["n_generated"] for r in answers if r["teacher"] == "ash"] == [None] * 6
    rewards = pq.read_table(data / "run" / "signals.parquet")["reward.full"].to_pylist()
    for row, reward in zip(answers, rewards, strict=True):
        wanted = min(len(row["response"]), 50) / 50 + (row["teacher"] in ("live", "base"))
        assert reward == pytest.approx(wanted)
    facts = read(data, "provenance.json")
    assert {"base", "teacher live", "teacher base"} == set(facts["models"])


def test_instructions_that_nobody_is_asked_change_nothing(data: Path, base: Path) -> None:
    """A file with `instructions` but no live teachers keeps every recorded answer."""
    write_jsonl(data / "questions.jsonl", [{"instruction": "Name a house."}])
    settings = {"base": str(base), "answers": "answers.jsonl", "rewards": ["reward"]}
    ranking = start(data, instructions="questions.jsonl", **settings)
    assert ranking["n_answers"] == 18


def test_a_teacher_of_the_user(
    data: Path, base: Path, instruction_texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher plug is any `module:function` that opens a function of instructions and seed."""
    (data / "own_teacher.py").write_text(
        "from preceptor.core.types import Reply, TeacherSource\n"
        "def reply(request):\n"
        "    n = request.decoding.max_new_tokens\n"
        "    return Reply(request.messages[-1][1][:n], 'stop', n)\n"
        "def open_teacher(setting, runtime):\n"
        "    return TeacherSource(\n"
        "        identity={'model': setting.model},\n"
        "        groups=lambda requests: [[place] for place in range(len(requests))],\n"
        "        ask=lambda groups: ((n, [reply(g[0])]) for n, g in enumerate(groups)),\n"
        "    )\n"
    )
    monkeypatch.syspath_prepend(data)
    write_jsonl(data / "questions.jsonl", [{"instruction": t, "r": 1} for t in instruction_texts])
    kind = "own_teacher:open_teacher"
    start(
        data,
        base=str(base),
        instructions="questions.jsonl",
        teachers=[
            {"model": str(base), "kind": kind, "name": f"first-{n}", "max_new_tokens": n}
            for n in (4, 8)
        ],
        rewards=["r"],
    )
    answers = pq.read_table(data / "run" / "answers.parquet")
    wanted = [text[:n] for n in (4, 8) for text in instruction_texts]
    assert answers["response"].to_pylist() == wanted
    assert answers["finish_reason"].unique().to_pylist() == ["stop"]


def test_a_reward_model_and_its_fingerprint(
    data: Path, base: Path, tiny_model: Callable[..., Path], chat_template: str
) -> None:
    judge = tiny_model("judge", chat_template=chat_template, labels=2, seed=5)
    reward = {"kind": "reward_model", "name": "judge", "model": str(judge), "map": "sigmoid"}
    ranking = start(data, base=str(base), answers="answers.jsonl", rewards=[reward])
    raw = pq.read_table(data / "run" / "signals.parquet")["reward.judge"].to_numpy()
    mapped = 1 / (1 + np.exp(-raw))
    assert ranking["rewards"]["judge"]["low"] == pytest.approx(mapped.min())
    assert ranking["rewards"]["judge"]["high"] == pytest.approx(mapped.max())
    assert raw.std() > 0.1
    assert set(read(data, "provenance.json")["models"]) == {"base", "reward judge"}


@pytest.mark.parametrize("map_", ["sigmoid", "minmax", "affine"])
def test_a_negative_reward_needs_a_map_for_car(data: Path, base: Path, map_: str) -> None:
    settings: dict[str, Any] = {"base": str(base), "answers": "answers.jsonl"}
    with pytest.raises(DataError, match="CAR needs rewards that are not negative") as caught:
        start(data, **settings, rewards=["second"])
    assert caught.value.where == "reward 'second'"
    assert "range [-0.9, -0]" in caught.value.found or "range [-0.9, 0]" in caught.value.found
    assert not (data / "run").exists()
    mapped: dict[str, Any] = {"name": "second", "map": map_}
    if map_ == "affine":
        mapped |= {"shift": 1.0, "scale": 0.5}
    ranking = start(data, **settings, rewards=[mapped], criteria=["car"])
    low, high = {
        "sigmoid": (1 / (1 + np.exp(0.9)), 0.5),
        "minmax": (0.0, 1.0),
        "affine": (0.55, 1.0),
    }[map_]
    found = ranking["rewards"]["second"]
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    raw = pq.read_table(data / "run" / "signals.parquet")["reward.second"].to_numpy()
    assert raw.min() == pytest.approx(-0.9)


def test_a_negative_reward_is_fine_without_car(data: Path, base: Path) -> None:
    ranking = start(
        data, base=str(base), answers="answers.jsonl", rewards=["second"], criteria=["mean_reward"]
    )
    assert ranking["recommended"] == "ash"
    assert ranking["beta_sensitivity"] == {}


def test_warnings_reach_the_ranking(data: Path, base: Path) -> None:
    rows = [json.loads(line) for line in (data / "answers.jsonl").read_text().splitlines()]
    rows[4]["response"] = ""
    rows[5]["response"] = "the house " * 200
    write_jsonl(data / "answers.jsonl", rows[1:])
    ranking = start(data, base=str(base), answers="answers.jsonl", rewards=["reward"])
    dropped, empty, truncated = ranking["warnings"]
    assert dropped.startswith("1 of 6 instructions were dropped")
    assert empty.startswith("1 empty responses")
    assert truncated.startswith("1 answers are longer than the base takes (128 tokens)")
    assert ranking["n_instructions"] == 5 and ranking["n_instructions_dropped"] == 1
    assert ranking["teachers"]["cherry"]["truncated"] == 1


@pytest.mark.parametrize(
    ("change", "kind", "what"),
    [
        ({"criteria": ["carr"]}, SettingsError, "unknown criterion 'carr'"),
        ({"criteria": ["json:dumps"]}, SettingsError, "not marked as a criterion"),
        ({"rewards": ["words"]}, DataError, "a reward is not a number"),
        ({"rewards": ["nothing"]}, DataError, "no such reward column"),
        ({"min_paired_share": 1.0, "answers": ["answers.jsonl", "more.jsonl"]}, DataError,
         "too few instructions"),
        ({"answers": ["answers.jsonl", "answers.jsonl"]}, DataError, "stands more than once"),
        ({"device": "abacus"}, ModelError, "the device cannot be used"),
        ({"base": "."}, ModelError, "the model cannot be opened"),
        ({"teachers": [{"model": "BASE"}], "instructions": "lab:test"},
         DataError, "no recorded answer belongs to the instructions"),
        ({"teachers": [{"model": "BASE", "name": "ash"}], "instructions": "questions.jsonl"},
         SettingsError, "a live teacher has the name of a recorded one"),
        ({"teachers": ["BASE"], "instructions": "questions.jsonl"}, DataError,
         "no such reward column"),
        ({"teachers": [{"model": "BASE", "kind": "llama_cpp"}], "instructions": "questions.jsonl",
          "rewards": [{"kind": "verifier", "name": "v", "function": "lab"}]},
         SettingsError, "unknown teacher 'llama_cpp'"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_anything_is_done(
    data: Path,
    base: Path,
    instruction_texts: tuple[str, ...],
    change: dict[str, Any],
    kind: type[PreceptorError],
    what: str,
) -> None:
    write_jsonl(data / "questions.jsonl", [{"instruction": text} for text in instruction_texts])
    write_jsonl(
        data / "more.jsonl",
        [{"instruction": "Another?", "generator": "ash", "response": "1", "reward": 1.0}],
    )
    settings = {"base": str(base), "answers": "answers.jsonl", "rewards": ["reward"], **change}
    if "teachers" in change:
        teachers = json.dumps(change["teachers"]).replace('"BASE"', json.dumps(str(base)))
        settings["teachers"] = json.loads(teachers)
    with pytest.raises(kind, match=what) as caught:
        start(data, **settings)
    assert caught.value.where or caught.value.found
    assert caught.value.next_step
    assert not (data / "run").exists()


def test_a_base_that_cannot_be_rendered_is_refused_before_teachers_are_asked(
    data: Path, tiny_model: Callable[..., Path], chatter: Path
) -> None:
    deaf = tiny_model("deaf", chat_template="{% for m in messages %}{{ m['role'] }}{% endfor %}")
    with pytest.raises(ModelError, match="drops the assistant's text") as caught:
        start(data, base=str(deaf), answers="answers.jsonl", rewards=["reward"])
    assert caught.value.where == str(deaf)
    assert not (data / "run").exists()


JUDGE = """
import math
from preceptor.core.types import RewardSource, even_batches

def open_reward(setting, runtime):
    def score(answers):
        return [math.nan if "LOST" in a.response else 1.0 + len(a.response) % 7 for a in answers]
    return RewardSource(
        lambda answers: even_batches(len(answers), 5), lambda: score, low={low}, may_miss=True
    )
"""


@pytest.fixture
def judged(data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings with a reward that may miss; it stands on the shelf in the place of another."""
    (data / "own_judge.py").write_text(JUDGE.replace("{low}", "0.0"))
    (data / "strict_judge.py").write_text(JUDGE.replace("{low}", "-1.0"))
    monkeypatch.syspath_prepend(data)
    monkeypatch.setitem(REWARDS, "verifier", "own_judge:open_reward")
    rows = [json.loads(line) for line in (data / "answers.jsonl").read_text().splitlines()]
    rows[4]["response"] = rows[12]["response"] = rows[13]["response"] = "LOST"
    write_jsonl(data / "answers.jsonl", rows)
    judge = {"kind": "verifier", "name": "judge", "function": "lab"}
    return {"answers": "answers.jsonl", "rewards": [judge, "reward"]}


def test_instructions_without_a_score_are_left_out(
    data: Path, base: Path, judged: dict[str, Any]
) -> None:
    ranking = start(data, base=str(base), **judged)
    why = (
        "2 of 6 instructions were left out: reward judge gave no score to 3 answers "
        "(most: beech 2, ash 1)"
    )
    assert ranking["warnings"] == [why]
    assert (ranking["n_instructions"], ranking["n_answers"]) == (4, 12)
    signals = pq.read_table(data / "run" / "signals.parquet")
    answers = pq.read_table(data / "run" / "answers.parquet")
    lost = {row["instruction_id"] for row in answers.to_pylist() if row["response"] == "LOST"}
    assert (signals.num_rows, answers.num_rows, len(lost)) == (12, 18, 2)
    kept = [row["instruction_id"] for row in answers.to_pylist()[:6]]
    kept = [key for key in kept if key not in lost]
    assert signals["instruction_id"].to_pylist() == kept * 3
    assert not np.isnan(signals["reward.judge"].to_numpy()).any()
    rows = {row["teacher"]: row for row in ranking["criteria"]["mean_reward"]["teachers"]}
    ash = signals["reward.judge"].to_numpy()[:4]
    assert rows["ash"]["score"] == pytest.approx(ash.mean())
    # killed before its ranking: the same ranking comes of what was kept
    before = (data / "run" / "ranking.json").read_bytes()
    (data / "run" / "ranking.json").unlink()
    facts = read(data, "provenance.json")
    (data / "run" / "provenance.json").write_text(json.dumps(facts | {"status": "running"}))
    start(data, base=str(base), **judged)
    assert (data / "run" / "ranking.json").read_bytes() == before


def test_too_few_scores_are_refused(data: Path, base: Path, judged: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="too few instructions have a score") as caught:
        start(data, base=str(base), min_paired_share=0.7, **judged)
    assert "2 of 6 instructions were left out" in caught.value.found


def test_a_declared_negative_reward_is_refused_at_once(
    data: Path, base: Path, judged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REWARDS, "verifier", "strict_judge:open_reward")
    with pytest.raises(DataError, match="CAR needs rewards") as caught:
        start(data, base=str(base), **judged)
    assert caught.value.found.startswith("declared range [-1, inf]")
    assert not (data / "run").exists()
    judged["rewards"][0]["map"] = "sigmoid"
    assert start(data, base=str(base), **judged)["n_instructions"] == 4


def test_a_model_that_no_criterion_reads_is_not_loaded(
    data: Path, tmp_path: Path, tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts of tokens need the tokenizer alone: a base without weights will do."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in tiny_model("base").iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    settings = {"base": str(bare), "answers": "answers.jsonl", "rewards": ["reward"]}
    ranking = start(data, criteria=["mean_reward", "length"], reference=str(bare), **settings)
    signals = pq.read_table(data / "run" / "signals.parquet")
    assert signals.schema.equals(artifacts.signals_schema(["reward"], measured=False))
    for name in ("nll", "nll_unconditional", "nll_reference", "n_tokens_reference"):
        assert signals[name].null_count == 18
    whole = start(data, "whole", **{**settings, "base": str(tiny_model("base"))})
    measured = pq.read_table(data / "whole" / "signals.parquet")
    assert signals["n_tokens"].equals(measured["n_tokens"])
    assert [t["loss"] for t in ranking["teachers"].values()] == [None] * 3
    for name in ("mean_reward", "length"):
        assert ranking["criteria"][name] == whole["criteria"][name]
    page = (data / "run" / "report.html").read_text("utf-8")
    assert "Reward against compatibility" not in page
    assert "Reward against compatibility" in (data / "whole" / "report.html").read_text("utf-8")
    print_ranking(ranking, data / "run")
    assert "mean_reward" in capsys.readouterr().out


def test_the_reference_is_measured_for_its_readers_only(
    data: Path, base: Path, chatter: Path
) -> None:
    settings: dict[str, Any] = {"base": str(base), "reference": str(chatter)}
    settings |= {"answers": "answers.jsonl", "rewards": ["reward"]}
    start(data, criteria=["car", "ifd"], **settings)
    start(data, "car", criteria=["car", "length"], **settings)
    read_ = pq.read_table(data / "run" / "signals.parquet")
    unread = pq.read_table(data / "car" / "signals.parquet")
    assert read_["nll_reference"].null_count == read_["nll_reference_unconditional"].null_count == 0
    assert unread["nll_reference"].null_count == unread["nll_unconditional"].null_count == 18
    assert unread["nll"].equals(read_["nll"])
