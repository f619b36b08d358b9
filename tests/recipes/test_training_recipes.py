"""The recipes that train, from settings to run folder, on tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from forked import preceptor
from preceptor.core.errors import (
    DataError,
    ModelError,
    PreceptorError,
    RunFolderError,
    SettingsError,
)

DIVERGENCE: dict[str, Any] = {"name": "forward_kl", "weight": 1.0, "temperature": 1.0}
ATTENTION: dict[str, Any] = {"name": "attention", "weight": 1.0, "layers": "one_to_one"}


def letters(instruction: str, response: str, row: dict[str, Any]) -> float:
    """A reward in [0, 1]: share of the alphabet's letters that occur."""
    return len(set(response.lower()) & set("abcdefghijklmnopqrstuvwxyz")) / 26


@pytest.fixture
def rows(tmp_path: Path, instruction_texts: tuple[str, ...]) -> Path:
    """24 recorded answers of one teacher, six of them about the house."""
    place = tmp_path / "answers.jsonl"
    records = [
        {
            "instruction": f"{text} Number {n}.",
            "generator": "ash",
            "response": f"It is {n} in the house.",
            "domain": "house" if number == 5 else "other",
        }
        for number, text in enumerate(instruction_texts)
        for n in range(4)
    ]
    place.write_text("".join(json.dumps(record) + "\n" for record in records))
    return place


@pytest.fixture
def settings(
    tiny_model: Callable[..., Path], chat_template: str, rows: Path
) -> Callable[..., dict[str, Any]]:
    """`settings(**changes)`: what sft, distill and align share, quick to train."""

    def make(**changes: Any) -> dict[str, Any]:
        tree: dict[str, Any] = {
            "base": str(tiny_model("pupil", chat_template=chat_template, seed=21)),
            "data": {"answers": str(rows)},
            "training": {"max_steps": 3, "batch_size": 8, "learning_rate": 0.01, "log_steps": 1},
            "quality": {
                "instructions": str(rows),
                "max_instructions": 8,
                "reward": {
                    "kind": "verifier",
                    "name": "letters",
                    "function": f"{__name__}:letters",
                },
                "group_by": "domain",
                "max_new_tokens": 6,
            },
        }
        return tree | changes

    return make


@pytest.fixture
def master(tiny_model: Callable[..., Path], chat_template: str) -> str:
    return str(tiny_model("master", chat_template=chat_template, seed=22))


def run_distill(tree: dict[str, Any], out: Path) -> dict[str, Any]:
    from preceptor.recipes.distill import distill
    from preceptor.recipes.settings.training import Distill

    return distill(Distill.model_validate(tree), out)


def run_align(tree: dict[str, Any], out: Path) -> dict[str, Any]:
    from preceptor.recipes.align import align
    from preceptor.recipes.settings.training import Align

    return align(Align.model_validate(tree), out)


def test_distill_leaves_a_plain_model_metrics_grades_and_a_page(
    settings: Any, master: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tree = settings(teacher=master, mix=0.5, losses=[DIVERGENCE, ATTENTION])
    quality = run_distill(tree, tmp_path / "run")
    out = tmp_path / "run"
    assert sorted(path.name for path in out.iterdir()) == [
        "grades.parquet",
        "metrics.jsonl",
        "model",
        "provenance.json",
        "quality.json",
        "report.html",
        "report.md",
        "settings.yaml",
    ]
    AutoModelForCausalLM.from_pretrained(out / "model")
    AutoTokenizer.from_pretrained(out / "model")
    assert not list(out.rglob("*.bin")), "no pickle is left"
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2, 3]
    assert {"next_token", "divergence", "attention", "grad_norm.attention"} <= metrics[0].keys()
    assert [row["model"] for row in quality["rows"]] == ["base", "KD"]
    grades = pq.read_table(out / "grades.parquet").to_pylist()
    for row in quality["rows"]:
        for group in ("other", "house"):
            own = [
                g["reward"] for g in grades if g["model"] == row["model"] and g["group"] == group
            ]
            if own:
                assert row[group]["score"] == pytest.approx(sum(own) / len(own))
                assert row[group]["low"] <= row[group]["score"] <= row[group]["high"]
    again = run_distill(tree, out)  # finished: nothing is trained
    assert again == quality
    with pytest.raises(RunFolderError, match="belongs to other settings"):
        run_distill(tree | {"mix": 0.4}, out)


def test_ablation_trains_each_loss_alone_and_watches_the_other(
    settings: Any, master: str, tmp_path: Path
) -> None:
    tree = settings(teacher=master, mix=1.0, losses=[DIVERGENCE, ATTENTION], quality=None)
    run_distill(tree | {"ablate": True}, tmp_path / "run")
    for name, learned in (("attention_only", "attention"), ("prediction_only", "divergence")):
        folder = tmp_path / "run" / "ablation" / name
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for row in metrics:
            assert row["loss"] == pytest.approx(row[learned], rel=1e-4)
            assert row["attention"] > 0 and row["divergence"] > 0
        assert (folder / "model" / "model.safetensors").exists()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "prediction_only" in page and "attention_only" in page
    with pytest.raises(SettingsError, match="nothing to ablate"):
        run_distill(tree | {"losses": [DIVERGENCE], "ablate": True}, tmp_path / "other")


def test_sft_learns_the_answers_of_the_chosen_rows(settings: Any, tmp_path: Path) -> None:
    from preceptor.recipes.settings.training import Sft
    from preceptor.recipes.sft import sft

    tree = settings(quality=None)
    tree["data"]["where"] = {"domain": "house"}
    tree["training"]["max_steps"] = 12
    assert sft(Sft.model_validate(tree), tmp_path / "run") == {}
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["next_token"] for line in metrics]
    assert losses[-1] < 0.5 * losses[0]
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["examples"] == 4
    (tmp_path / "sft.json").write_text(json.dumps(tree))
    for rank, told in (("0", f"report: {tmp_path / 'run' / 'report.html'}\n"), ("1", "")):
        # the run is finished; of processes launched together, the first one tells of it
        command = ("sft", tmp_path / "sft.json", "--out", tmp_path / "run")
        done = preceptor(*command, variables={"RANK": rank})
        assert (done.returncode, done.stdout) == (0, told), done.stderr


def test_lora_is_merged_into_a_plain_model(settings: Any, master: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tree = settings(teacher=master, mix=1.0, losses=[DIVERGENCE], quality=None)
    tree["training"]["lora"] = {"r": 2, "alpha": 4}
    run_distill(tree, tmp_path / "run")
    base = AutoModelForCausalLM.from_pretrained(tree["base"]).state_dict()
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").state_dict()
    assert base.keys() == tuned.keys()
    assert any(not base[name].equal(tuned[name]) for name in base)


def test_align_routes_rows_keeps_the_share_and_trains_its_controls(
    settings: Any, master: str, tiny_model: Any, chat_template: str, tmp_path: Path
) -> None:
    expert = str(tiny_model("expert", chat_template=chat_template, seed=23, hidden_size=48))
    tree = settings(
        route_by="domain",
        experts={"house": expert},
        reference=master,
        domain_share=0.25,
        mix=1.0,
        divergence=DIVERGENCE,
        mean="tokens",
        controls=True,
    )
    quality = run_align(tree, tmp_path / "run")
    names = [row["model"] for row in quality["rows"]]
    controls = ["SFT on the same rows", "expert only (house)", "reference only"]
    assert names == ["base", "DAE", *controls]
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["examples"] == 16  # 4 of the house, so 12 others
    for folder in ("sft", "expert_only_house", "reference_only"):
        assert (tmp_path / "run" / "controls" / folder / "model").exists()
    with pytest.raises(DataError, match="no column 'topic'"):
        run_align(tree | {"route_by": "topic"}, tmp_path / "other")
    with pytest.raises(DataError, match="lacks rows of the domain"):
        run_align(tree | {"experts": {"garden": expert}}, tmp_path / "third")


def test_align_asks_every_row_of_its_own_teacher(
    settings: Any, master: str, rows: Path, tmp_path: Path
) -> None:
    tree = settings(
        route_by="domain",
        experts={"house": master},
        reference=master,
        domain_share=0.25,
        mix=1.0,
        divergence=DIVERGENCE,
        mean="samples",
        quality=None,
    )
    tree["data"] = {"instructions": str(rows), "max_rows": 24}
    tree["data"]["max_truncated_share"] = 1.0  # untrained teachers ramble
    assert run_align(tree, tmp_path / "run") == {}
    answers = pq.read_table(tmp_path / "run" / "answers.parquet").to_pylist()
    assert {(row["teacher"], row["domain"]) for row in answers} == {
        ("house", "house"),
        ("master", "other"),
    }
    asked = json.loads((tmp_path / "run" / "provenance.json").read_text())["asked"]
    assert {name: facts["answers"] for name, facts in asked.items()} == {"house": 4, "master": 12}


def test_a_stored_teacher_gives_the_training_of_the_live_one(
    settings: Any, master: str, tmp_path: Path
) -> None:
    """With every token stored (k = V) the tail is empty, so the losses are those of the teacher."""
    from preceptor.recipes.cache import cache
    from preceptor.recipes.settings.training import Cache

    tree = settings(teacher=master, mix=1.0, losses=[DIVERGENCE], quality=None)
    run_distill(tree, tmp_path / "live")
    stored = {name: tree[name] for name in ("base", "data", "teacher")}
    stored |= {"form": "top_k", "k": 320, "temperature": 1.0}
    report = cache(Cache.model_validate(stored), tmp_path / "store")
    assert report["bytes_per_token"] > 0
    path = str(tmp_path / "store" / "signals")
    run_distill(tree | {"teacher": {"kind": "cached", "path": path}}, tmp_path / "cached")
    live, cached = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("live", "cached")
    )
    for one, other in zip(live, cached, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-3)
    losses = [DIVERGENCE | {"temperature": 2.0}]
    tree |= {"teacher": {"kind": "cached", "path": path}, "losses": losses}
    with pytest.raises(PreceptorError, match="temperature"):
        run_distill(tree, tmp_path / "hot")


def test_an_upcycled_mixture_is_distilled(settings: Any, master: str, tmp_path: Path) -> None:
    from preceptor.recipes.settings.training import Upcycle
    from preceptor.recipes.upcycle import upcycle

    tree = settings(teacher=master, mix=1.0, losses=[DIVERGENCE, ATTENTION], quality=None)
    mixture = {"models": [tree["base"]], "experts": 2, "per_token": 2, "dtype": "float32"}
    place = upcycle(Upcycle.model_validate(mixture), tmp_path / "mixture")
    run_distill(tree | {"base": str(place)}, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert kept["output_router_logits"] is False  # TRL turns it on, and generating with it fails
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["aux_loss"] >= 1.0
    with pytest.raises(RunFolderError, match="taken"):
        upcycle(Upcycle.model_validate(mixture), place)


def test_an_ensemble_teaches(settings: Any, master: str, tmp_path: Path) -> None:
    for mixture in ("probability", "geometric"):
        teacher = {
            "kind": "ensemble",
            "teachers": [master, settings()["base"]],
            "weights": [0.5, 0.5],
            "mixture": mixture,
        }
        tree = settings(teacher=teacher, mix=1.0, losses=[DIVERGENCE], quality=None)
        run_distill(tree, tmp_path / mixture)
        rows = (tmp_path / mixture / "metrics.jsonl").read_text().splitlines()
        assert json.loads(rows[0])["divergence"] > 0
    with pytest.raises(SettingsError, match="next-token distributions only"):
        run_distill(tree | {"losses": [ATTENTION]}, tmp_path / "other")


def test_what_cannot_work_is_refused_before_a_weight_is_loaded(
    settings: Any,
    master: str,
    tiny_model: Any,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import preceptor.models.load as load

    def touched(*_: Any, **__: Any) -> None:
        raise AssertionError("a weight was loaded")

    monkeypatch.setattr(load, "_load", touched)
    deep = str(tiny_model("deep", seed=24, num_hidden_layers=4, num_attention_heads=4))
    odd = str(tiny_model("odd", seed=25, num_attention_heads=3, hidden_size=48))
    both = [DIVERGENCE, ATTENTION]
    cases: list[tuple[dict[str, Any], type[PreceptorError], str]] = [
        ({"teacher": deep, "losses": both}, ModelError, "paired one to one"),
        ({"teacher": odd, "losses": both}, ModelError, "head"),
        ({"losses": [DIVERGENCE | {"name": "forwrd_kl"}]}, SettingsError, "forward_kl"),
        ({"losses": [DIVERGENCE | {"temperature": None}]}, SettingsError, "temperature"),
        ({"data": {"answers": str(rows), "teacher": "oak"}}, DataError, "no answer of 'oak'"),
        ({"data": {"answers": str(rows), "where": {"topic": 1}}}, DataError, "no column 'topic'"),
        ({"data": {"instructions": str(rows)}}, SettingsError, "nobody answers"),
    ]
    for change, kind, text in cases:
        tree = settings(teacher=master, mix=1.0, losses=[DIVERGENCE]) | change
        with pytest.raises(kind, match=text):
            run_distill(tree, tmp_path / "run")
    with pytest.raises(ValueError, match="mix"):
        run_distill(settings(teacher=master, mix=1.5, losses=[DIVERGENCE]), tmp_path / "run")
    long = settings(teacher=master, mix=1.0, losses=[DIVERGENCE])
    long["training"]["max_length"] = 12
    with pytest.raises(DataError, match="do not fit into the longest sequence"):
        run_distill(long, tmp_path / "long")


def test_another_tokenizer_is_refused_with_the_first_differing_tokens(
    settings: Any, tmp_path: Path
) -> None:
    from preceptor.lab.place import model_folder

    tree = settings(teacher=str(model_folder("dahlia-m")), mix=1.0, losses=[DIVERGENCE])
    with pytest.raises(ModelError, match="different tokenizers") as caught:
        run_distill(tree, tmp_path / "run")
    assert "id 0 is" in str(caught.value)


def test_domain_share() -> None:
    import numpy as np

    from preceptor.recipes.align import at_share

    inside = np.arange(100) % 4 == 0  # 25 of 100
    kept = at_share(inside, 0.1, seed=0)
    assert kept == sorted(kept) and len(kept) == 83  # all 75 outside and 8 inside
    assert sum(inside[kept]) == 8
    kept = at_share(inside, 0.5, seed=0)
    assert len(kept) == 50 and sum(inside[kept]) == 25
    assert at_share(inside, 0.5, seed=0) == kept
