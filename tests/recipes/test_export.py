"""`preceptor export`: the sets of a table made by hand, their forms, their card, and TRL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from preceptor.core import artifacts
from preceptor.core.errors import PreceptorError
from preceptor.recipes.settings.asking import Export
from preceptor.recipes.settings.loading import load_settings

# instruction -> samples at temperature 1.0 with their reward `good` (None: no score)
SAMPLES = {
    "one": [("a", 0.2), ("b", 0.9), ("c", 0.9)],
    "two": [("d", 0.5), ("e", 0.5), ("f", 0.1)],
    "three": [("g", None), ("h", 0.3), ("i", 0.4)],
    "four": [("j", None), ("k", None), ("l", None)],
}
GREEDY = {"one": "A", "two": "D", "three": "G", "four": "J"}
AT = {"temperature": 1.0, "top_p": 0.9}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder of `ask`, made by hand: greedy answers and three samples of `t`, one of `u`."""

    def row(text: str, teacher: str, point: Any, sample: int, response: str, good: Any) -> Any:
        temperature, top_p = point
        values = ["id " + text, text, teacher, temperature, top_p, 9, sample, response, "stop"]
        return dict(
            zip(artifacts.samples_schema(["good"]).names, [*values, 1, 2, good], strict=True)
        )

    rows = [row(text, "t", (0.0, 1.0), 0, reply, 0.5) for text, reply in GREEDY.items()]
    rows += [
        row(text, "t", (1.0, 0.9), number, response, good)
        for text, own in SAMPLES.items()
        for number, (response, good) in enumerate(own)
    ]
    rows.append(row("one", "u", (0.0, 1.0), 0, "from u", 1.0))
    rows[0]["finish_reason"] = "length"
    table = pa.Table.from_pylist(rows, schema=artifacts.samples_schema(["good"]))
    folder = tmp_path / "asked"
    folder.mkdir()
    artifacts.write_table(folder / artifacts.SAMPLES, table)
    artifacts.write_json(folder / artifacts.ASK, {})
    settings = {
        "instructions": {"path": "/data/questions.jsonl", "split": "train"},
        "teachers": [{"name": "", "model": "lab:t", "max_new_tokens": 9}],
        "answers": [],
        "decodings": {"temperature": [0, 1.0], "top_p": [0.9], "samples": 3},
        "rewards": [{"kind": "verifier", "name": "good", "function": "mine:good"}],
        "seed": 4,
    }
    artifacts.write_json(
        folder / artifacts.PROVENANCE,
        {
            "preceptor": "0.0.0",
            "status": "finished",
            "command": "preceptor ask ask.yaml --out asked",
            "settings": settings,
            "inputs": {"/data/questions.jsonl": "sha256:abc"},
            "models": {"teacher t": json.dumps({"model": "t", "fingerprint": "sha256:def"})},
        },
    )
    return folder


@pytest.fixture
def exported(tmp_path: Path, made: Path) -> Callable[..., tuple[list[str], Path]]:
    def run(sets: dict[str, Any], name: str = "sets", **tree: Any) -> tuple[list[str], Path]:
        from preceptor.recipes.export import export

        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump({"run": str(made), "sets": sets, **tree}, sort_keys=False))
        out = tmp_path / name
        return export(load_settings(Export, file), out, "preceptor export sets.yaml"), out

    return run


def replies(out: Path, name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in pq.read_table(out / name / "train.parquet").to_pylist():
        user, reply = row["messages"][-2:]
        assert (user["role"], reply["role"]) == ("user", "assistant")
        assert row["instruction_id"] == "id " + user["content"]
        found.setdefault(user["content"], []).append(reply["content"])
    return found


def test_best_worst_and_greedy_of_a_table_made_by_hand(exported: Any) -> None:
    sets = {
        "best": {"pick": "best", "reward": "good", **AT},
        "worst": {"pick": "worst", "reward": "good", **AT},
        "one": {"pick": "one", **AT},
        "greedy": {"pick": "greedy", "teacher": "t"},
        "all": {"pick": "all", **AT},
        "first-two": {"pick": "best", "reward": "good", "samples": 2, **AT},
    }
    lines, out = exported(sets)
    assert replies(out, "best") == {"one": ["b"], "two": ["d"], "three": ["i"]}
    assert replies(out, "worst") == {"one": ["a"], "two": ["f"], "three": ["h"]}
    assert replies(out, "greedy") == {"one": ["A"], "two": ["D"], "three": ["G"]}
    assert replies(out, "all") == {"one": list("abc"), "two": list("def"), "three": list("ghi")}
    assert replies(out, "first-two") == {"one": ["b"], "two": ["d"], "three": ["h"]}
    drawn = replies(out, "one")
    assert list(drawn) == ["one", "two", "three"], "no set has `four`: best has no score there"
    assert all(len(own) == 1 and own[0] in "abcdefghi" for own in drawn.values())
    assert lines[0] == "best: 3 rows, good 0.600"
    assert lines[3] == "greedy: 3 rows, good 0.500"


def test_alone_a_set_keeps_every_instruction_it_can(exported: Any) -> None:
    _, out = exported({"greedy": {"pick": "greedy", "teacher": "t"}}, form="messages")
    assert set(replies(out, "greedy")) == set(GREEDY)
    assert not (out / "greedy-prompt-completion").exists()
    good = {"pick": "best", "reward": "good", "min_reward": 0.5, **AT}
    _, out = exported({"good": good}, "good")
    assert replies(out, "good") == {"one": ["b"], "two": ["d"]}


def test_the_best_of_several_teachers(exported: Any) -> None:
    _, out = exported({"best": {"pick": "best", "reward": "good", "temperature": 0}})
    assert replies(out, "best")["one"] == ["from u"]
    assert replies(out, "best")["two"] == ["D"]


def test_one_is_drawn_uniformly_and_by_the_seed() -> None:
    from preceptor.recipes.asking.picking import _draw

    draws = [_draw(seed, f"id {n}", 3) for seed in range(10) for n in range(300)]
    assert all(900 < count < 1100 for count in Counter(draws).values()) and len(set(draws)) == 3
    assert [_draw(1, f"id {n}", 3) for n in range(9)] != [_draw(2, f"id {n}", 3) for n in range(9)]


def test_another_seed_draws_others_and_the_same_the_same(exported: Any) -> None:
    found = []
    for name, seed in [("a", 0), ("b", 0), *((f"c{seed}", seed) for seed in range(1, 5))]:
        _, out = exported({"one": {"pick": "one", **AT}}, name, seed=seed)
        found.append(json.dumps(replies(out, "one")))
    assert found[0] == found[1]
    assert len(set(found)) > 2


def test_datasets_loads_both_forms_by_the_card(exported: Any, tmp_path: Path) -> None:
    import datasets

    sets = {"best": {"pick": "best", "reward": "good", **AT}}
    _, out = exported(sets, system="Be short.")
    datasets.disable_progress_bars()
    configs = datasets.get_dataset_config_names(str(out))
    assert configs == ["best", "best-prompt-completion"]
    cache = str(tmp_path / "cache")
    chat, apart = (
        datasets.load_dataset(str(out), config, split="train", cache_dir=cache)
        for config in configs
    )
    system = {"role": "system", "content": "Be short."}
    user, reply = {"role": "user", "content": "one"}, {"role": "assistant", "content": "b"}
    assert chat[0]["messages"] == [system, user, reply]
    assert apart[0]["prompt"] == [system, user]
    assert apart[0]["completion"] == [reply]
    beside = {"instruction_id", "teacher", "temperature", "top_p", "sample", "reward.good"}
    assert set(chat.column_names) == {"messages", *beside}
    assert set(apart.column_names) == {"prompt", "completion", *beside}
    assert chat["reward.good"] == apart["reward.good"] == [0.9, 0.5, 0.4]


def test_datasets_tells_sets_of_one_name_apart(exported: Any, tmp_path: Path) -> None:
    """`datasets` caches by folder name, config and version: another content, another version."""
    import datasets

    datasets.disable_progress_bars()
    loaded = []
    for place, pick in (("here", "best"), ("there", "worst")):
        sets = {"picked": {"pick": pick, "reward": "good", **AT}}
        _, out = exported(sets, name=f"{place}/sets")
        rows = datasets.load_dataset(str(out), "picked", split="train", cache_dir=str(tmp_path))
        loaded.append(rows["reward.good"])
    assert loaded[0] == [0.9, 0.5, 0.4] and max(loaded[1]) < 0.9


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")  # TRL's
@pytest.mark.parametrize("config", ["best", "best-prompt-completion"])
def test_trl_trains_on_both_forms_unchanged(
    exported: Any, chatter: Path, tmp_path: Path, config: str
) -> None:
    """Of `prompt_completion` only the completion is learned; of `messages` the whole."""
    import datasets
    import torch
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    _, out = exported({"best": {"pick": "best", "reward": "good", **AT}})
    datasets.disable_progress_bars()
    rows = datasets.load_dataset(str(out), config, split="train", cache_dir=str(tmp_path / "cache"))
    arguments = SFTConfig(
        output_dir=str(tmp_path / "trained"),
        max_steps=1,
        per_device_train_batch_size=3,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = SFTTrainer(str(chatter), args=arguments, train_dataset=rows)
    batch = next(iter(trainer.get_train_dataloader()))
    learned = batch["labels"] != -100
    tokenizer: Any = trainer.processing_class
    texts = {
        tokenizer.decode(ids[own]) for ids, own in zip(batch["input_ids"], learned, strict=True)
    }
    if config == "best":
        assert any("one" in text for text in texts)
    else:
        assert texts == {"b</s>", "d</s>", "i</s>"} or texts == {
            "<|assistant|>b</s>", "<|assistant|>d</s>", "<|assistant|>i</s>"
        }  # fmt: skip
    before = [weight.detach().clone() for weight in trainer.model.parameters()]  # type: ignore[union-attr]
    trainer.train()
    after = list(trainer.model.parameters())  # type: ignore[union-attr]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_card_says_how_the_sets_came_to_be(exported: Any, made: Path) -> None:
    sets = {
        "best": {"pick": "best", "reward": "good", **AT},
        "one": {"pick": "one", **AT},
        "greedy": {"pick": "greedy", "teacher": "t"},
    }
    _, out = exported(sets, seed=7)
    card = (out / "README.md").read_text("utf-8")
    header = yaml.safe_load(card.split("---")[1])
    assert [config["config_name"] for config in header["configs"]] == [
        name + form for name in sets for form in ("", "-prompt-completion")
    ]
    for config in header["configs"]:
        assert (out / config["data_files"][0]["path"]).is_file()
    for line in (
        "| `best` | best, by good | 3 | 0.6000 | 2.0 | 0 |",
        "| `greedy` | greedy | 3 | 0.5000 | 2.0 | 1 |",
        "- Instructions: `questions.jsonl`, split `train`.",
        "- Hash of `questions.jsonl`: `sha256:abc`.",
        "- Teacher t: model `t`, fingerprint `sha256:def`.",
        "- Longest answer of t: 9 tokens.",
        "- Samples at each point (one where greedy): 3; seed 4.",
        "- Reward `good`: kind verifier, function `mine:good`.",
        "- Set `best`: best, by good; rows of t at temperature 1, top-p 0.9.",
        "- Set `one`: one, seed 7; rows of t at temperature 1, top-p 0.9.",
        "- Set `greedy`: greedy; rows of t, greedy.",
        "- All sets hold the same instructions: 3 of 4; 1 were left out, since some set had no row",
        "preceptor ask ask.yaml --out asked",
        "preceptor export sets.yaml",
        "None is stated here.",
    ):
        assert line in card
    assert "/data/" not in card, "folders of this machine say nothing to readers"
    assert artifacts.read_json(out / artifacts.PROVENANCE)["sets"]["best"] == 3


def test_the_same_settings_write_the_same_files_once(exported: Any, capsys: Any) -> None:
    sets = {"best": {"pick": "best", "reward": "good", **AT}}
    first, out = exported(sets)
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    again, _ = exported(sets)
    assert again == first
    assert "holds the sets of these settings" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == before
    with pytest.raises(PreceptorError, match="belongs to other settings"):
        exported(sets, seed=1)


@pytest.mark.parametrize(
    ("own", "what", "found"),
    [
        ({"pick": "best", "reward": "god", **AT}, "the run has no reward 'god'", "'good'"),
        ({"pick": "best", **AT}, "a set is picked by a reward", "pick best"),
        ({"pick": "one", "min_reward": 1, **AT}, "a set is picked by a reward", "pick one"),
        ({"pick": "one", "teacher": "tea", **AT}, "the run has no teacher 'tea'", "'t'?"),
        ({"pick": "one"}, "the run has several", "t at temperature 1, top_p 0.9"),
        ({"pick": "one", "temperature": 0.5}, "no samples at this point", "it has t at temp"),
        ({"pick": "greedy"}, "several teachers have greedy answers", "t, u"),
        ({"pick": "greedy", "temperature": 1}, "greedy answers have temperature 0", "1.0"),
        ({"pick": "all", "samples": 9, **AT}, "a set would be empty", "no sample fits"),
        ({"pick": "bst"}, "the setting 'sets.x.pick' cannot be used", "'best'"),
    ],
)
def test_refusals(
    exported: Any, tmp_path: Path, own: dict[str, Any], what: str, found: str
) -> None:
    with pytest.raises(PreceptorError, match=what) as caught:
        exported({"x": own})
    assert found in caught.value.found
    assert caught.value.where and caught.value.next_step
    assert not (tmp_path / "sets").exists()


def test_a_run_without_greedy_answers(exported: Any, made: Path) -> None:
    table = pq.read_table(made / artifacts.SAMPLES)
    sampled = table.filter(pa.compute.greater(table["temperature"], 0))  # type: ignore[attr-defined]
    artifacts.write_table(made / artifacts.SAMPLES, sampled)
    with pytest.raises(PreceptorError, match="the run has no greedy answers") as caught:
        exported({"greedy": {"pick": "greedy"}})
    assert "temperature 0" in caught.value.next_step


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda folder: (folder / "samples.parquet").unlink(), "no samples.parquet"),
        (lambda folder: (folder / "provenance.json").unlink(), "no provenance.json"),
        (
            lambda folder: (folder / "provenance.json").write_text('{"status": "running"}'),
            "a run that is not finished",
        ),
        (lambda folder: folder.rename(folder.with_name("elsewhere")), "no such folder"),
    ],
)
def test_a_folder_that_is_no_asking(
    exported: Any, made: Path, tmp_path: Path, spoil: Any, found: str
) -> None:
    spoil(made)
    with pytest.raises(PreceptorError, match="no folder of a finished `preceptor ask`") as caught:
        exported({"greedy": {"pick": "greedy"}})
    assert caught.value.found == found
    assert not (tmp_path / "sets").exists()


def test_names_of_sets_are_apart_and_safe(exported: Any) -> None:
    best = {"pick": "best", "reward": "good", **AT}
    with pytest.raises(PreceptorError, match="two sets would be written under one name"):
        exported({"a": best, "a-prompt-completion": best})
    with pytest.raises(PreceptorError, match="cannot be used"):
        exported({"../a": best})


def test_no_instruction_in_every_set(exported: Any) -> None:
    sets = {
        "high": {"pick": "best", "reward": "good", "min_reward": 0.6, **AT},
        "of-u": {"pick": "greedy", "teacher": "u"},
        "two": {"pick": "worst", "reward": "good", "samples": 3, "min_reward": 0.25, **AT},
    }
    with pytest.raises(PreceptorError, match="no instruction has a row in every set") as caught:
        exported(sets)
    assert caught.value.found == "high 1 rows, of-u 1 rows, two 1 rows"
