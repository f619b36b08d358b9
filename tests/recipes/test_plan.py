"""Plans: against real runs on the lab, and what they refuse, reuse, and leave alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from forked import preceptor
from preceptor.core.errors import PreceptorError, RunFolderError, SettingsError
from preceptor.data.answer_store import AnswerStore
from preceptor.data.rendering import Renderer
from preceptor.lab.place import model_folder
from preceptor.models.load import open_card
from preceptor.recipes.plan import plan, refuse
from preceptor.recipes.planning.devices import host_total
from preceptor.recipes.planning.jobs import read_any
from preceptor.recipes.select import select
from preceptor.recipes.settings.select import Select
from preceptor.recipes.starter import write_starter
from preceptor.selection.measure import make_plan

WITHIN = 0.25
TWO = {
    "base": "lab:base-notes",
    "instructions": "lab:selection",
    "max_instructions": 60,
    "teachers": [
        {"model": "lab:birch-m", "max_new_tokens": 48},
        {"model": "lab:aster-s", "max_new_tokens": 48},
    ],
    "rewards": [{"kind": "verifier", "name": "correct", "function": "lab"}],
    "criteria": ["car", "ifd"],
}
KD = {
    "base": "lab:base-notes",
    "teacher": "lab:birch-m",
    "data": {
        "instructions": "lab:train",
        "max_rows": 96,
        "ask": {"model": "lab:birch-m", "max_new_tokens": 48},
    },
    "mix": 1.0,
    "losses": [
        {"name": "forward_kl", "weight": 1.0, "temperature": 1.0},
        {"name": "attention", "weight": 1.0, "layers": "one_to_one"},
    ],
    "training": {"epochs": 2, "batch_size": 32, "max_length": 256, "log_steps": 10},
}


def write(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def select_plan(settings: dict[str, Any], out: Path | None = None, **options: Any) -> Any:
    return plan("select", Select.model_validate(settings), out, **options)


def asking(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(stage for stage in found["stages"] if stage["stage"].startswith(f"asking {name}"))


# a process takes the size of the one that it was forked from: this small one stands between
SMALL = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
raise SystemExit(status)
"""


def run(peak: Path, *arguments: str | Path) -> str:
    """A command line in a process of its own; the most memory that it held goes to a file."""
    command = [sys.executable, "-m", "preceptor.cli", *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-S", "-c", SMALL, str(peak), *command],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plan_and_run(verb: str, config: Path, out: Path) -> tuple[dict[str, Any], int]:
    """The plan, after a probe, and the most memory that the run then held, in bytes."""
    peak = config.with_name("peak")
    planned = json.loads(run(peak, "plan", config, "--out", out, "--probe", "24", "--json"))
    run(peak, verb, config, "--out", out)
    unit = 1 if sys.platform == "darwin" else 1024
    return planned, int(peak.read_text()) * unit


def test_a_selection_takes_what_its_plan_says(tmp_path: Path) -> None:
    """Tokens to generate and to score, and peak memory, each within a quarter."""
    out = tmp_path / "run"
    found, peak = plan_and_run("select", write(tmp_path, TWO), out)
    facts = json.loads((out / "provenance.json").read_text())
    store = AnswerStore(out / "store").table(["teacher", "n_generated", "n_prompt"]).to_pylist()
    for name in ("birch-m", "aster-s"):
        stage, asked = asking(found, name), facts["asked"][name]
        assert stage["reused"] == asked["reused"] == 24  # the probe's answers are not asked again
        own = [row for row in store if row["teacher"] == name]
        left = own[24:]  # in the order in which they were stored
        generated = sum(row["n_generated"] for row in left)
        assert stage["generated_tokens"] == pytest.approx(generated, rel=WITHIN)
        assert stage["prompt_tokens"] == sum(row["n_prompt"] for row in left)
        assert stage["rate"] > 0 and stage["seconds"] > 0
    card = open_card(str(model_folder("lab:base-notes")))
    renderer = Renderer(card.tokenizer, card.limit)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    rendered = renderer.render(
        [row["instruction"] for row in rows], [row["response"] for row in rows]
    )
    passes = {"nll": rendered, "nll_unconditional": [renderer.unconditional(r) for r in rendered]}
    for name, sequences in passes.items():
        real = sum(batch.n_tokens for batch in make_plan(sequences, 2048).batches)
        stage = next(s for s in found["stages"] if s["stage"] == f"measuring base-notes ({name})")
        assert stage["tokens"] == pytest.approx(real, rel=WITHIN)
    (memory,) = found["memory"]
    assert memory["peak_bytes"] == pytest.approx(peak, rel=WITHIN)
    again = select_plan(TWO, out)
    assert asking(again, "birch-m")["generated_tokens"] == 0
    assert "nothing is left to do" in again["notes"][-1]


def test_a_distillation_takes_what_its_plan_says(tmp_path: Path) -> None:
    out = tmp_path / "run"
    found, peak = plan_and_run("distill", write(tmp_path, KD), out)
    facts = json.loads((out / "provenance.json").read_text())
    stage, asked = asking(found, "birch-m"), facts["asked"]["birch-m"]
    assert stage["reused"] == asked["reused"] == 24
    rows = AnswerStore(out / "store").table(["n_generated"])["n_generated"].to_pylist()
    assert stage["generated_tokens"] == pytest.approx(sum(rows[24:]), rel=WITHIN)
    (training,) = (s for s in found["stages"] if s["kind"] == "train")
    lines = (out / "metrics.jsonl").read_text().splitlines() or ["{}"]
    assert training["items"] == 6  # 96 rows in batches of 32, twice
    assert training["tokens"] == pytest.approx(2 * facts["tokens"], rel=WITHIN), lines
    (memory,) = found["memory"]
    assert memory["peak_bytes"] == pytest.approx(peak, rel=WITHIN)


def test_a_plan_writes_nothing_and_says_how_it_knows(tmp_path: Path) -> None:
    """Without answers the tokens are an upper bound; stored ones are taken off exactly."""
    out, store = tmp_path / "run", tmp_path / "store"
    settings = TWO | {"store": str(store), "max_instructions": 6}
    first = select_plan(settings, out)
    assert list(tmp_path.iterdir()) == []
    stage = asking(first, "birch-m")
    assert (stage["items"], stage["reused"], stage["tokens_from"]) == (6, 0, "upper bound")
    assert stage["generated_tokens"] == 6 * 48
    assert first["totals"]["seconds"] is None
    assert f"asking {'birch-m'}" in first["totals"]["without_rate"]
    select(Select.model_validate(settings), out)
    before = sorted(path for path in tmp_path.rglob("*"))
    more = select_plan(settings | {"max_instructions": 10}, tmp_path / "other")
    assert sorted(path for path in tmp_path.rglob("*")) == before
    stage = asking(more, "birch-m")
    known = AnswerStore(store).table(["teacher", "n_generated"]).to_pylist()
    mean = sum(row["n_generated"] for row in known if row["teacher"] == "birch-m") / 6
    assert (stage["items"], stage["reused"]) == (10, 6)
    assert stage["generated_tokens"] == round(4 * mean)
    assert stage["tokens_from"] == "store: 6 answers"
    with pytest.raises(RunFolderError, match="other settings"):
        select_plan(settings | {"seed": 1}, out)


def test_rates_make_hours_of_tokens(tmp_path: Path) -> None:
    """tokens / rate, by a rate's own name before its kind's; an earlier run gives them, too."""
    settings = TWO | {"max_instructions": 6}
    found = select_plan(settings, rates=["ask=100", "ask.aster-s=50", "measure=1000"])
    by_name = {stage["stage"]: stage for stage in found["stages"]}
    assert by_name["asking birch-m"]["seconds"] == 6 * 48 / 100
    assert by_name["asking aster-s"]["seconds"] == 6 * 48 / 50
    measured = by_name["measuring base-notes (nll)"]
    assert measured["seconds"] == measured["tokens"] / 1000
    assert found["totals"]["seconds"] == pytest.approx(sum(s["seconds"] for s in found["stages"]))
    for wrong in ("ask", "ask=0", "asking=3", "ask=fast"):
        with pytest.raises(SettingsError, match="NAME=NUMBER"):
            select_plan(settings, rates=[wrong])
    with pytest.raises(RunFolderError, match="no finished run"):
        select_plan(settings, like=tmp_path)
    with pytest.raises(SettingsError, match="no place for them"):
        select_plan(settings, probe=2)


EVERY = ["ifd", "ic_ifd", "local_naturalness", "scas", "rank_surprisal", "aslec_casl", "grace"]


def recorded(folder: Path, base: Path, n: int = 12) -> dict[str, Any]:
    """Settings of every pass over recorded answers; two of the answers are the same."""
    forms = {"ash": "One.\nThe {k} cats.\nIn the house.", "beech": "{k} dogs", "fir": "{k} dogs"}
    rows = [
        {
            "instruction": f"Name the number {k} and a house.",
            "generator": name,
            "response": form.format(k=k if name != "fir" else min(k, 1)),
            "reward": 1.0,
        }
        for k in range(n)
        for name, form in forms.items()
    ]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "base": str(base),
        "answers": str(folder / "answers.jsonl"),
        "rewards": [{"kind": "column", "name": "reward"}],
        "criteria": EVERY,
        "gradient_dim": 32,
    }


def test_every_pass_takes_what_its_plan_says(tmp_path: Path, base: Path) -> None:
    """Recorded answers: each pass to the token, what it leaves on disk to the byte."""
    from preceptor.data.steps import Windows

    settings, out = recorded(tmp_path, base), tmp_path / "run"
    found = select_plan(settings, out, rates=["measure=1000"])
    stages = {s["stage"].split("(")[1][:-1]: s for s in found["stages"] if s["kind"] == "measure"}
    assert list(stages) == ["nll", "nll_unconditional", "nll_question", "local", "gradient"]
    card = open_card(str(base))
    renderer = Renderer(card.tokenizer, card.limit)
    select(Select.model_validate(settings), out)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    asked = [row["instruction"] for row in rows]
    whole = renderer.render(asked, [row["response"] for row in rows])
    passes = {
        "nll": whole,
        "nll_unconditional": [renderer.unconditional(row) for row in whole],
        "nll_question": renderer.questions(sorted(set(asked))),
        "local": Windows(renderer, whole, "\n", 0.25).sequences,
        "gradient": whole,
    }
    for name, sequences in passes.items():
        real = sum(batch.n_tokens for batch in make_plan(sequences, 2048).batches)
        assert (stages[name]["items"], stages[name]["tokens"]) == (len(sequences), real), name
        assert stages[name]["tokens_from"].startswith("exact")
        assert stages[name]["memory"]["weights"] > 0
    assert stages["local"]["items"] == 5 * 12  # three steps of one teacher, one each of the others
    plan_of = make_plan(whole, 1)
    distinct = len(plan_of.unique)
    assert distinct == 3 * 12 - 2
    seconds = (3 * stages["gradient"]["tokens"] + 32 * distinct) / 1000
    assert stages["gradient"]["seconds"] == pytest.approx(seconds)
    disks = {disk["what"]: disk["bytes"] for disk in found["disk"]}
    header = 128
    files = list((out / "tokens").iterdir())
    assert sorted(file.name for file in files) == ["nll.npy", "rank.npy"]
    assert disks["token signals"] == sum(file.stat().st_size - header for file in files)
    assert disks["projected gradients"] == distinct * 32 * 4
    fewer = select_plan(settings | {"criteria": ["perplexity"]}, rates=["measure=1000"])
    assert [s["stage"] for s in fewer["stages"] if s["kind"] == "measure"] == [
        "measuring base (nll)",
        "measuring base (quoted)",
    ]
    (quoted,) = (s for s in fewer["stages"] if s["stage"].endswith("(quoted)"))
    assert quoted["items"] == 6 * 3  # six instructions, three teachers; theirs of 36 answers
    assert quoted["tokens"] == round(stages["nll"]["tokens"] * 18 / 36)
    assert {disk["what"]: disk["bytes"] for disk in fewer["disk"]} == {
        "run folder": disks["run folder"]
    }


def test_passes_over_answers_that_are_not_there_are_bounds(tmp_path: Path) -> None:
    settings = TWO | {"max_instructions": 12, "criteria": EVERY}
    found = select_plan(settings)
    stages = {s["stage"].split("(")[1][:-1]: s for s in found["stages"] if s["kind"] == "measure"}
    for name in ("nll", "nll_unconditional", "local", "gradient"):
        assert stages[name]["tokens_from"].startswith("upper bound"), name
    assert stages["local"]["items"] == 2 * 12 * 2  # 49 tokens are two steps of 32
    assert stages["local"]["tokens"] > 2 * 12 * 49
    assert stages["nll_question"]["items"] == 12
    assert stages["nll_question"]["tokens_from"] == "exact"
    assert found["fits"]


def hollow(folder: Path, base: Path, **shape: Any) -> Path:
    """A checkpoint with config and tokenizer, and no weights: a plan must not miss them."""
    from transformers import AutoConfig, AutoTokenizer

    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    config = AutoConfig.from_pretrained(base)
    for name, value in shape.items():
        setattr(config, name, value)
    config.save_pretrained(folder)
    return folder


LARGE = {"hidden_size": 16384, "intermediate_size": 65536, "num_hidden_layers": 200}
LARGE |= {"num_attention_heads": 128, "num_key_value_heads": 8}


def test_what_cannot_fit_is_refused(tmp_path: Path, base: Path) -> None:
    """A teacher of a terabyte: an error before anything is loaded, and exit status 2."""
    teacher = hollow(tmp_path / "large", base, **LARGE)
    settings = TWO | {"teachers": [str(teacher)]}
    found = select_plan(settings)
    assert not found["fits"]
    with pytest.raises(PreceptorError, match="does not fit into the device's memory") as caught:
        refuse(found)
    assert caught.value.where == "asking large"
    assert "use a device with at least" in caught.value.next_step
    done = preceptor("select", write(tmp_path, settings), "--out", tmp_path / "run", "--dry-run")
    assert done.returncode == 2 and "the run does not fit" in done.stdout
    assert done.stderr.startswith("error: a stage does not fit into the device's memory")
    assert not (tmp_path / "run").exists()


def test_the_advice_fits(tmp_path: Path, base: Path) -> None:
    """A batch whose cache is larger than the machine; the batch that is advised is planned, too."""
    shape = {"num_attention_heads": 64, "num_key_value_heads": 64, "hidden_size": 8192}
    teacher = hollow(tmp_path / "wide", base, **shape, max_position_embeddings=4096)
    tokens = 2 * 2 * 64 * 128 * 4 * 100  # keys and values of two layers, for about 100 tokens
    rows = 4 * host_total() // tokens
    wide: dict[str, Any] = {"model": str(teacher), "max_new_tokens": 90, "batch_size": rows}
    found = select_plan(TWO | {"teachers": [wide]})
    (refusal,) = found["refusals"]
    name, _, rest = refusal["next"].partition("batch_size ")
    assert name == "wide: "
    advised = int(rest.split()[0].rstrip(","))
    assert rows / 64 < advised < rows
    assert select_plan(TWO | {"teachers": [wide | {"batch_size": advised}]})["fits"]
    assert not select_plan(TWO | {"teachers": [wide | {"batch_size": 2 * advised}]})["fits"]


def test_training_that_cannot_fit_is_told_what_would(tmp_path: Path, base: Path) -> None:
    """Full training of some billions of parameters, on this machine's memory."""
    from preceptor.recipes.settings.training import Sft

    layers = host_total() // (16 * 12 * 4096**2) + 4  # 16 bytes a parameter are just too many
    student = hollow(
        tmp_path / "student",
        base,
        hidden_size=4096,
        intermediate_size=4 * 4096 * 2 // 3,
        num_attention_heads=32,
        num_key_value_heads=32,
        num_hidden_layers=layers,
    )
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"instruction": "a", "generator": "t", "response": "b"}\n' * 1)
    settings = Sft.model_validate({"base": str(student), "data": {"answers": str(answers)}})
    found = plan("sft", settings)
    memory = next(r for r in found["refusals"] if r["where"] == "training SFT")
    assert "training.lora 64" in memory["next"] and "would fit" in memory["next"]


def test_long_instructions_are_refused(tmp_path: Path, chatter: Path, base: Path) -> None:
    """A prompt beyond the teacher's limit ends a run in its middle; a plan says so before."""
    rows = [{"instruction": text} for text in ("Name a house.", "Where is the cat?", "cat " * 300)]
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = select_plan(
        TWO | {"base": str(base), "teachers": [str(chatter)], "instructions": str(path)}
    )
    (refusal,) = found["refusals"]
    assert refusal["what"] == "instructions are longer than the teacher can read"
    assert refusal["found"].startswith("1 of 3 looked at")


def test_a_server_costs_money_and_keeps_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices a million tokens; requests a minute bound the time from below."""
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = {
        "kind": "openai",
        "model": "served",
        "url": "http://127.0.0.1:9/v1",
        "max_new_tokens": 100,
        "price": {"input": 1.0, "output": 10.0},
        "requests_per_minute": 10,
    }
    found = select_plan(TWO | {"teachers": [server], "max_instructions": 20})
    stage = asking(found, "served")
    assert stage["money"] == pytest.approx((stage["prompt_tokens"] + 10 * 20 * 100) / 1e6)
    assert stage["seconds"] == pytest.approx(120.0)
    assert stage["memory"] == {} and not stage["here"]
    assert found["tokenizers"][0]["verdict"] == "not known here"


@pytest.mark.parametrize("recipe", ["select", "ask", "distill", "align", "sft", "cache"])
def test_every_starter_file_is_recognised_and_planned(recipe: str, tmp_path: Path) -> None:
    path, _ = write_starter(tmp_path / "file.yaml", recipe)
    name, settings = read_any(path, [])
    assert name == recipe
    small = ["max_instructions=4"] if recipe in ("select", "ask") else ["data.max_rows=40"]
    if recipe in ("distill", "align", "sft"):
        small.append("quality.max_instructions=4")
    if recipe == "align":
        small = ["quality.max_instructions=4", "data.max_rows=200"]
    settings = read_any(path, small)[1]
    found = plan(recipe, settings)
    assert found["fits"] and found["stages"]
    assert set(found) == {
        "version",
        "recipe",
        "fits",
        "device",
        "stages",
        "memory",
        "disk",
        "tokenizers",
        "totals",
        "notes",
        "refusals",
    }
    assert {key for stage in found["stages"] for key in stage} == {
        "stage",
        "kind",
        "model",
        "items",
        "reused",
        "prompt_tokens",
        "generated_tokens",
        "tokens",
        "unit",
        "tokens_from",
        "memory",
        "here",
        "workers",
        "rate_name",
        "rate",
        "rate_from",
        "seconds",
        "money",
    }
    json.dumps(found, allow_nan=False)


def test_a_file_of_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("base: lab:base-notes\nnobody: 1\n")
    with pytest.raises(SettingsError, match="of no recipe that can be planned"):
        read_any(path, [])
    with pytest.raises(SettingsError, match="unknown setting 'nobody'"):
        read_any(path, [], "select")
    with pytest.raises(SettingsError, match="no plan for 'upcycle'"):
        read_any(path, [], "upcycle")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_any(tmp_path / "missing.yaml", [])


def test_tokenizer_verdicts(tiny_model: Callable[..., Path], base: Path, tmp_path: Path) -> None:
    """A padded vocabulary is told from an equal one."""
    from preceptor.recipes.settings.training import Distill

    padded = hollow(tmp_path / "padded", base, vocab_size=384)
    answers = tmp_path / "answers.jsonl"
    rows = [{"instruction": f"a {n}", "generator": "t", "response": "b"} for n in range(3)]
    answers.write_text("\n".join(map(json.dumps, rows)))
    losses = [{"name": "forward_kl", "weight": 1.0, "temperature": 1.0}]
    settings = {"base": str(base), "data": {"answers": str(answers)}, "mix": 1.0, "losses": losses}
    for teacher, verdict in (
        (base, "same tokenizer"),
        (padded, "same tokenizer, padded vocabulary"),
    ):
        found = plan("distill", Distill.model_validate(settings | {"teacher": str(teacher)}))
        assert verdict in [row["verdict"] for row in found["tokenizers"]]
