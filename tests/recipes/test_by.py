"""`select --by COLUMN`: a ranking for each value, and a fragment that `align` takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from preceptor.core.criterion import Signals
from preceptor.core.errors import DataError, SettingsError
from preceptor.data.answer_table import Answers
from preceptor.data.answers import read_recorded
from preceptor.models.load import open_card
from preceptor.recipes.select import select
from preceptor.recipes.selecting.by import routing
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import TransformersTeacher, VllmTeacher, model_location
from preceptor.recipes.settings.training import Align
from preceptor.reporting.pages.select import report as select_report
from preceptor.reporting.terminal.ranking import print_ranking
from preceptor.selection.groups import LEAST, MOST, of_instructions, read_groups

GROUPS = {"law": 24, "shop": 14, "rare": 4}
REST = {  # of a settings file of align, beside the fragment
    "base": "lab:base-notes",
    "data": {"instructions": "lab:train", "max_rows": 80, "max_new_tokens": 8},
    "mix": 1.0,
    "divergence": {"name": "forward_kl", "weight": 1.0, "temperature": 1.0},
    "mean": "tokens",
    "training": {"max_steps": 2, "batch_size": 8, "max_length": 128, "log_steps": 1},
}


def rows() -> list[dict[str, Any]]:
    """Ash is first overall and in law, beech is clearly first in shop; two have no domain."""
    found = []
    domains = [name for name, n in GROUPS.items() for _ in range(n)] + [None, None]
    for number, domain in enumerate(domains):
        noise = 0.02 * (number % 5)
        rewards = {"ash": 0.6, "beech": 0.9 if domain == "shop" else 0.3, "cherry": 0.2}
        found += [
            {
                "instruction": f"Name the number {number}.",
                "generator": teacher,
                "response": f"It is {number}." + " Yes." * place,
                "right": reward + noise * (place + 1),
                "domain": domain,
            }
            for place, (teacher, reward) in enumerate(rewards.items())
        ]
    return found


@pytest.fixture
def start(tmp_path: Path, base: Path) -> Callable[..., dict[str, Any]]:
    """`start(out, records, **settings)`: a selection among recorded answers."""

    def run(out: str, records: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
        file = tmp_path / f"{out}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in records))
        tree = {
            "base": str(base),
            "answers": str(file),
            "rewards": ["right"],
            "criteria": ["car", "length"],
            "resamples": 200,
            "device": "cpu",
        }
        return select(Select.model_validate(tree | settings), tmp_path / out)

    return run


def test_each_value_is_ranked_as_a_run_of_its_own(start: Any, tmp_path: Path) -> None:
    ranking = start("by", rows(), by="domain")
    groups = {group["value"]: group for group in ranking["by"]["groups"]}
    assert {value: group["n_instructions"] for value, group in groups.items()} == GROUPS
    assert list(groups) == ["law", "shop", "rare"], "the largest first"
    for value in ("law", "shop"):
        alone = start(value, [row for row in rows() if row["domain"] == value])
        assert list(groups[value]["criteria"]) == list(alone["criteria"])
        for name, criterion in alone["criteria"].items():
            found = groups[value]["criteria"][name]["teachers"]
            assert found == [  # other batches: the last digits of a loss differ
                {key: v if isinstance(v, str) else pytest.approx(v) for key, v in row.items()}
                for row in criterion["teachers"]
            ]
        assert groups[value]["teachers"] == groups[value]["criteria"]["car"]["teachers"]
    assert (ranking["recommended"], groups["law"]["recommended"]) == ("ash", "ash")
    assert groups["law"]["against_overall"] is None
    gap = groups["shop"]["against_overall"]
    scores = {row["teacher"]: row["score"] for row in groups["shop"]["teachers"]}
    assert gap["difference"] == pytest.approx(scores["beech"] - scores["ash"])
    assert gap["separable"] and gap["low"] > 0
    assert groups["rare"]["recommended"] is None and str(LEAST) in groups["rare"]["why"]
    assert ranking["by"]["n_without"] == 2
    assert ranking["by"]["routing"] == {"law": "ash", "shop": "beech"}
    assert any("rare" in warning for warning in ranking["by"]["warnings"])
    assert json.loads((tmp_path / "by" / "ranking.json").read_text()) == ranking


def test_nothing_else_changes(start: Any, tmp_path: Path) -> None:
    start("off", rows())
    ranking = start("on", rows(), by="domain")
    del ranking["by"]
    wanted = (tmp_path / "off" / "ranking.json").read_text()
    assert json.dumps(ranking, indent=2, ensure_ascii=False) + "\n" == wanted
    assert not (tmp_path / "off" / "routing.yaml").exists()


def test_the_winner_overall_is_kept_where_it_shares_the_first_place(start: Any) -> None:
    records = [row | {"right": 0.5 if row["domain"] == "shop" else row["right"]} for row in rows()]
    records = [row | {"generator": f"z-{row['generator']}"} if row["generator"] == "ash" else row
               for row in records]  # fmt: skip
    ranking = start("shared", records, by="domain", criteria=["mean_reward"])
    shop = ranking["by"]["groups"][1]
    assert ranking["recommended"] == "z-ash" and shop["value"] == "shop"
    assert shop["recommended"] == "z-ash" and shop["tied_with_first"] == ["beech", "cherry"]


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        (lambda row: row, "there is no column 'topic'", "columns right, domain"),
        (lambda row: row | {"topic": None}, "no instruction has a value in 'topic'", "columns"),
        (
            lambda row: row | {"topic": row["generator"]},
            "an instruction has two values in 'topic'",
            "'ash' and 'beech'",
        ),
        (
            lambda row: row | {"topic": row["instruction"]},
            "'topic' does not sort the instructions into groups",
            "44 values",
        ),
    ],
)
def test_a_column_that_cannot_be_used(
    start: Any, tmp_path: Path, change: Any, what: str, found: str
) -> None:
    with pytest.raises(DataError) as caught:
        start("refused", [change(row) for row in rows()], by="topic")
    assert caught.value.what == what
    assert found in caught.value.found
    assert caught.value.next_step
    assert not (tmp_path / "refused").exists(), "before anything was begun"


def test_values_of_any_kind_come_from_answers_and_from_questions() -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "instruction": [f"Ask {n}." for n in range(24) for _ in "ab"],
            "generator": ["a", "b"] * 24,
            "response": ["yes"] * 48,
            "level": [n % 2 for n in range(24) for _ in "ab"],
            "tags": [[str(n % 2)] for n in range(24) for _ in "ab"],
        }
    )
    recorded = read_recorded(table, {}, "here")
    assert sorted(set(read_groups("level", recorded, []).values())) == ["0", "1"]
    assert sorted(set(read_groups("tags", recorded, []).values())) == ["['0']", "['1']"]
    questions = [(f"q{n}", f"Say {n}.", {"level": True}) for n in range(LEAST)]
    assert read_groups("level", Answers.of([]), questions) == {key: "True" for key, *_ in questions}
    both = read_groups("level", recorded, questions)
    assert sorted(set(both.values())) == ["0", "1", "True"]
    many = [(f"q{n}", f"Say {n}.", {"level": n % (MOST + 1)}) for n in range(20 * MOST)]
    with pytest.raises(DataError, match="does not sort"):
        read_groups("level", Answers.of([]), many)


def test_a_cut_table_holds_every_signal() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    signals = Signals(
        teachers=("a", "b", "c"),
        n_tokens_MN=grid,
        nll_MN=grid + 1,
        reward_MN=grid + 2,
        rewards={"right": grid + 3},
        features={"rank.mean": grid + 4},
    )
    kept = np.array([True, False, False, True])
    cut = of_instructions(signals, kept)
    assert cut.teachers == signals.teachers and cut.nll_unconditional_MN is None
    for name in ("n_tokens_MN", "nll_MN", "reward_MN"):
        assert np.array_equal(getattr(cut, name), getattr(signals, name)[:, kept])
    assert np.array_equal(cut.rewards["right"], (grid + 3)[:, kept])
    assert np.array_equal(cut.features["rank.mean"], (grid + 4)[:, kept])


def test_page_and_terminal_show_the_winners(start: Any, tmp_path: Path) -> None:
    records = [row | {"domain": {"shop": "<b>shop</b>"}.get(row["domain"], row["domain"])}
               for row in rows()]  # fmt: skip
    ranking = start("page", records, by="domain")
    html = select_report.render(tmp_path / "page")
    assert "Winners by" in html and "&lt;b&gt;shop&lt;/b&gt;" in html and "<b>shop</b>" not in html
    assert "not ranked: <bdi>fewer than 10 instructions</bdi>" in html
    printed = StringIO()
    print_ranking(ranking, tmp_path / "page", Console(file=printed, width=110))
    assert "<b>shop</b>" in printed.getvalue() and "routing.yaml" in printed.getvalue()


def test_recorded_teachers_leave_models_to_fill_in(
    start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start("filled", rows(), by="domain")
    text = (tmp_path / "filled" / "routing.yaml").read_text()
    assert yaml.safe_load(text) == {
        "route_by": "domain",
        "reference": {"model": None},
        "experts": {"shop": {"model": None}},
    }
    assert "# fill in: a folder or hub id of beech" in text
    assert "only answers are known of ash, beech" in capsys.readouterr().err
    (tmp_path / "align.yaml").write_text(yaml.safe_dump(REST) + text)
    with pytest.raises(SettingsError) as caught:
        load_settings(Align, tmp_path / "align.yaml")
    assert "experts.shop.model" in caught.value.what or "reference.model" in caught.value.what


def group(value: str, *order: str, overall: str = "birch") -> dict[str, Any]:
    gap = {"difference": 0.1, "low": -0.1, "high": 0.3, "separable": False}
    return {
        "value": value,
        "n_instructions": 20,
        "recommended": order[0],
        "against_overall": None if order[0] == overall else gap,
        "teachers": [{"teacher": name} for name in order],
    }


def routed(groups: list[dict[str, Any]], live: dict[str, Any], first: str = "birch") -> Any:
    ranking = {
        "recommended": first,
        "recommended_by": "car",
        "criteria": {"car": {"teachers": [{"teacher": n} for n in (first, *live, "aster")]}},
    }
    base = open_card(model_location("lab:base-notes"))
    text, told = routing("topic", groups, ranking, live, base, False)
    return yaml.safe_load(text) if text else None, text, told


def test_the_fragment_passes_over_other_tokenizers() -> None:
    live = {
        "birch": TransformersTeacher(model="lab:birch-m"),
        "dahlia": TransformersTeacher(model="lab:dahlia-m"),
        "aster": TransformersTeacher(model="lab:aster-m"),
    }
    tree, text, told = routed([group("a", "dahlia", "aster", "birch")], live)
    assert tree == {
        "route_by": "topic",
        "reference": {"model": "lab:birch-m"},
        "experts": {"a": {"model": "lab:aster-m"}},
    }
    assert "before it dahlia, with another tokenizer" in text and len(told) == 1
    tree, _, told = routed([group("a", "dahlia", "birch", "aster")], live)
    assert tree is None and told == ["no routing.yaml: birch is to teach every value of topic"]
    tree, text, _ = routed([group("a", "aster", "birch")], live, first="dahlia")
    assert tree["reference"] == {"model": "lab:birch-m"} and "not separable" in text
    alone = {"dahlia": live["dahlia"], "aster": live["dahlia"]}
    tree, _, told = routed([group("a", "dahlia")], alone, first="dahlia")
    assert tree is None
    assert told == ["no routing.yaml: every teacher's tokenizer differs from the base's"]


def test_names_of_any_kind_stay_in_their_place() -> None:
    values = ["no", "1", "a: b # c", "line\nbreak", "sep\u2028arator", "x" * 200, "ключ", "*"]
    wild = "evil\nexperts: {a: {model: b}}"
    live = {
        "birch": TransformersTeacher(model="lab:birch-m"),
        wild: VllmTeacher(kind="vllm", model="lab:aster-m", adapter="some/adapter"),
    }
    tree, text, told = routed([group(value, wild, "birch") for value in values], live)
    assert tree["experts"] == {value: {"model": None} for value in values}
    assert tree["reference"] == {"model": "lab:birch-m"}
    assert "evil\\nexperts" in text and "fill in" in told[1]


def test_the_lab_is_routed_and_aligned(tmp_path: Path) -> None:
    """From live teachers to an aligned student, with the fragment as it stands."""
    from preceptor.recipes.align import align

    tree = {
        "base": "lab:base-notes",
        "instructions": "lab:selection",
        "max_instructions": 140,
        "teachers": [
            {"model": "lab:birch-m", "max_new_tokens": 24},
            {"model": "lab:marlow-expert", "max_new_tokens": 24},
        ],
        "rewards": [{"kind": "verifier", "name": "correct", "function": "lab"}],
        "criteria": ["mean_reward"],
        "by": "domain",
        "resamples": 200,
    }
    ranking = select(Select.model_validate(tree), tmp_path / "run")
    assert ranking["by"]["routing"] == {"general": "birch-m", "shop": "marlow-expert"}
    assert ranking["recommended"] == "birch-m"
    assert ranking["by"]["groups"][1]["against_overall"]["separable"]
    text = (tmp_path / "run" / "routing.yaml").read_text()
    (tmp_path / "align.yaml").write_text(yaml.safe_dump(REST) + text)
    settings = load_settings(Align, tmp_path / "align.yaml")
    assert settings.route_by == "domain" and settings.reference.model == "lab:birch-m"
    assert settings.experts["shop"].model == "lab:marlow-expert"
    align(settings, tmp_path / "aligned")
    facts = json.loads((tmp_path / "aligned" / "provenance.json").read_text())
    assert facts["status"] == "finished" and "teacher shop" in facts["models"]
    assert set(facts["asked"]) == {"birch-m", "shop"}
