"""`select` with every criterion of the shelf, and with those of the page on writing one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from preceptor.core import artifacts
from preceptor.core.criterion import as_criterion
from preceptor.core.errors import SettingsError
from preceptor.core.plugs import plug
from preceptor.criteria import CRITERIA
from preceptor.recipes.select import select
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import model_location

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to" / "own-criterion.md").read_text("utf-8")
TEACHERS = ("aster-s", "birch-m", "dahlia-m")
FACTS = {
    "aster-s": {"family": "aster", "size": 0.001, "price": 0.5},
    "birch-m": {"family": "birch", "size": 0.002, "price": 1.5},
    "dahlia-m": {"family": "dahlia", "size": 0.003, "price": 2.5},
}
N = 12


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run on the lab: three live teachers, every criterion, two of the user's own."""
    folder = tmp_path_factory.mktemp("all")
    (folder / "my_criteria.py").write_text(blocks("python")[0])
    own = yaml.safe_load(blocks("yaml")[0])
    tree = {
        "base": "lab:base-notes",
        "instructions": "lab:selection",
        "teachers": [
            {"model": f"lab:{name}", "name": name, "max_new_tokens": 24} for name in TEACHERS
        ],
        "rewards": [{"kind": "verifier", "name": "correct", "function": "lab"}],
        "criteria": [*CRITERIA, *(name for name in own["criteria"] if ":" in name)],
        "criterion_options": {**own["criterion_options"], "rank_surprisal": {"limit": 30}},
        "step_separator": " ",
        "gradient_dim": 32,
        "teacher_facts": FACTS,
        "base_family": "birch",
        "max_instructions": N,
        "resamples": 100,
        "device": "cpu",
    }
    (folder / "select.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return folder, select(load_settings(Select, folder / "select.yaml"), folder / "run")


def table_of(folder: Path) -> pa.Table:
    return pq.read_table(folder / "run" / artifacts.SIGNALS)


def scores(ranking: dict[str, Any], name: str) -> list[float]:
    rows = {row["teacher"]: row["score"] for row in ranking["criteria"][name]["teachers"]}
    return [rows[teacher] for teacher in TEACHERS]


def test_every_criterion_ranks(finished: tuple[Path, dict[str, Any]]) -> None:
    _, ranking = finished
    assert list(ranking["criteria"]) == [*CRITERIA, "reward_per_token", "far_fetched"]
    for name, found in ranking["criteria"].items():
        assert found["teachers"][0]["rank"] == 1
        for row in found["teachers"]:
            assert np.isfinite([row["score"], row["low"], row["high"]]).all(), name
            assert row["low"] - 1e-9 <= row["high"], name
        if name in CRITERIA:
            own = as_criterion(name, plug("criterion", CRITERIA, name))
            assert (found["direction"], found["unit"]) == (own.direction, own.unit)
        if name not in ("family_prior", "size"):  # these do not depend on instructions
            assert any(row["high"] > row["low"] for row in found["teachers"]), name
    assert scores(ranking, "family_prior") == [0.0, 1.0, 0.0]
    assert scores(ranking, "size") == pytest.approx([0.001, 0.002, 0.003])
    described = ranking["criteria"]["far_fetched"]["description"]
    assert described == "Share of the tokens that the base would hardly have thought of."


def test_the_columns_of_signals(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    table = table_of(folder)
    assert table.column_names == [
        "teacher",
        "instruction_id",
        "n_tokens",
        "nll",
        "nll_unconditional",
        "n_tokens_reference",
        "nll_reference",
        "nll_reference_unconditional",
        "n_question",
        "nll_question",
        "brier",
        "similarity_answer",
        "similarity_question",
        "local",
        "truncated",
        "reward.correct",
        "token_start",
        "feature.aslec_casl.first",
        "feature.aslec_casl.rest",
        "feature.aslec_casl.share",
        "feature.aslec_drop.log_p",
        "feature.rank_surprisal.rank",
        "feature.far_fetched.share",
        "feature.grace.leverage",
    ]
    assert table.num_rows == len(TEACHERS) * N
    for column in table.column_names:
        found = table[column]
        empty = column in ("n_tokens_reference", "nll_reference", "nll_reference_unconditional")
        assert found.null_count == (table.num_rows if empty else 0), column
    cosines = np.array([table["similarity_answer"], table["similarity_question"]])
    assert (np.abs(cosines) <= 1 + 1e-6).all() and (cosines[0] >= 0).all()
    assert (table["local"].to_numpy() < 0).all()


def test_the_files_of_tokens(finished: tuple[Path, dict[str, Any]]) -> None:
    """What a row of `signals.parquet` sums up can be found token by token."""
    folder, _ = finished
    table = table_of(folder)
    stored = {
        path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
        for path in (folder / "run" / artifacts.TOKENS).iterdir()
    }
    assert {name: values.dtype.str for name, values in stored.items()} == {
        "nll": "<f4",
        "rank": "<u2",
    }
    for row in table.to_pylist():
        own = slice(row["token_start"], row["token_start"] + row["n_tokens"])
        nll_T, rank_T = stored["nll"][own], stored["rank"][own].astype(int)
        assert nll_T.sum() == pytest.approx(row["nll"], rel=1e-4)
        assert np.minimum(rank_T, 30).mean() == pytest.approx(row["feature.rank_surprisal.rank"])
        assert (rank_T > 5).mean() == pytest.approx(row["feature.far_fetched.share"])
        first, rest = row["feature.aslec_casl.first"], row["feature.aslec_casl.rest"]
        share = row["feature.aslec_casl.share"]
        whole = share * first + (1 - share) * rest
        assert whole == pytest.approx(-row["nll"] / row["n_tokens"], rel=1e-4)
        assert row["feature.aslec_drop.log_p"] == pytest.approx(rest)
        assert 0 < share <= 1
    assert (np.array(table["feature.aslec_casl.share"]) * np.array(table["n_tokens"]) > 1.5).any()


def test_scores_follow_from_the_columns(finished: tuple[Path, dict[str, Any]]) -> None:
    """Formulas written once more, on the columns of the table."""
    folder, ranking = finished
    table = table_of(folder)
    grid = {
        name: table[name].to_numpy().astype(float).reshape(len(TEACHERS), N)
        for name in table.column_names
        if name not in ("teacher", "instruction_id") and not table[name].null_count
    }
    assert table["teacher"].to_pylist()[::N] == list(TEACHERS)
    loss = grid["nll"] / grid["n_tokens"]
    question = grid["nll_question"] / grid["n_question"]
    brier = grid["brier"] / grid["n_tokens"]
    correct = grid["reward.correct"]
    wanted = {
        "grape": -loss.mean(1),
        "local_naturalness": grid["local"].mean(1),
        "aslec_drop": grid["feature.aslec_drop.log_p"].mean(1),
        "rank_surprisal": grid["feature.rank_surprisal.rank"].mean(1) / loss.mean(1),
        "ic_ifd": (grid["nll"] / grid["nll_unconditional"] / question).mean(1),
        "scas": (
            0.5 * loss**2 * grid["similarity_answer"]
            + 0.5 * loss * question * grid["similarity_question"]
        ).mean(1),
        "lark": ((2 * brier - loss / loss.sum(0) * brier.sum(0)) / loss.sum(0)).mean(1),
        "grace": grid["feature.grace.leverage"].mean(1),
        "yield": (correct >= 0.5).mean(1),
        "cost": np.array([0.5, 1.5, 2.5]) * grid["n_tokens"].mean(1) / 1e6,
        "far_fetched": grid["feature.far_fetched.share"].mean(1),
        "reward_per_token": correct.mean(1) / grid["n_tokens"].mean(1),
    }
    for name, values in wanted.items():
        assert scores(ranking, name) == pytest.approx(values.tolist(), rel=1e-6), name


def test_signals_are_the_models_own(finished: tuple[Path, dict[str, Any]]) -> None:
    """Answer by answer, with whole softmaxes and all pairs of activations."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from preceptor.data.rendering import Renderer

    folder, _ = finished
    place = model_location("lab:base-notes")
    tokenizer: Any = AutoTokenizer.from_pretrained(place)
    model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    kept: list[torch.Tensor] = []
    model.model.layers[-1].mlp.up_proj.register_forward_hook(lambda *call: kept.append(call[2][0]))

    def log_p(before: list[int], scored: list[int]) -> torch.Tensor:
        """log p of every token of the vocabulary at each scored place."""
        with torch.inference_mode():
            logits_TV = model(input_ids=torch.tensor([before + scored])).logits[0]
        return logits_TV[len(before) - 1 : -1].double().log_softmax(-1)

    renderer = Renderer(tokenizer, 256)
    answers = pq.read_table(folder / "run" / artifacts.ANSWERS).to_pylist()
    rows = table_of(folder).to_pylist()
    several = 0
    for number in (0, 7, 15, 30):
        question, response = answers[number]["instruction"], answers[number]["response"]
        [whole] = renderer.render([question], [response])
        prompt = list(whole.ids[: len(whole.ids) - whole.n_response])
        own, row, n = list(whole.response_ids), rows[number], whole.n_response
        p_NV = log_p(prompt, own).exp()
        own_N = p_NV[range(n), own]
        brier = (p_NV**2).sum() - 2 * own_N.sum() + n
        assert row["brier"] == pytest.approx(brier.item(), rel=1e-4)
        unit_TF = torch.nn.functional.normalize(kept[-1].double(), dim=-1)
        cosine_TT = unit_TF @ unit_TF.T
        read, first = slice(len(prompt) - 1, len(prompt) + n - 1), slice(0, len(prompt) - 1)
        found = (row["similarity_answer"], row["similarity_question"])
        pairs = (cosine_TT[read, read].mean().item(), cosine_TT[read, first].mean().item())
        assert found == pytest.approx(pairs, abs=1e-4)
        asked = tokenizer(question, add_special_tokens=False)["input_ids"]
        alone_NV = log_p([tokenizer.bos_token_id], asked)
        assert row["n_question"] == len(asked)
        loss = -alone_NV[range(len(asked)), asked].sum()
        assert row["nll_question"] == pytest.approx(loss.item(), rel=1e-4)
        # a step begins after a token that holds a space
        pieces = [tokenizer.decode([token]) for token in own]
        assert not pieces[0].startswith(" ")
        begins = [0] + [t for t in range(1, n - 1) if " " in pieces[t - 1] and pieces[t].strip()]
        ends = [*begins[1:], n]
        width = max(1, round(0.25 * len(begins)))
        means = []
        for step, (low, high) in enumerate(zip(begins, ends, strict=True)):
            if step < width:
                before = prompt + own[:low]
            else:
                before = [tokenizer.bos_token_id, *own[begins[step - width] : low]]
            part = own[low:high]
            means.append(log_p(before, part)[range(len(part)), part].mean().item())
        several += len(begins) > 2
        assert row["local"] == pytest.approx(np.mean(means), rel=1e-4)
    assert several > 1


def test_the_same_run_again_measures_nothing(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ranking = finished
    monkeypatch.syspath_prepend(folder)
    assert select(load_settings(Select, folder / "select.yaml"), folder / "run") == ranking


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        (
            {"criteria": ["grape"], "criterion_options": {"rank_surprisal": {"limit": 3}}},
            "options are given of a criterion that is not computed",
            "known names: grape",
        ),
        (
            {"criteria": ["rank_surprisal"], "criterion_options": {"rank_surprisal": {"limit": 0}}},
            "an option of 'rank_surprisal' cannot be used",
            "0: input should be greater than or equal to 1",
        ),
        (
            {"criteria": ["persyn"], "criterion_options": {"persyn": {"normalize": "rank"}}},
            "the criterion 'persyn' has no option of this name",
            "'normalize', did you mean 'normalise'?",
        ),
        ({"criteria": ["size"]}, "a criterion needs the size of every teacher", "none known of"),
        ({"criteria": ["cost"]}, "a criterion needs the price of every teacher", "none known of"),
    ],
)
def test_what_is_refused_before_a_weight_is_loaded(
    tmp_path: Path, base: Path, tall: list[dict[str, Any]], change: dict[str, Any], what: str,
    found: str,
) -> None:  # fmt: skip
    pq.write_table(pa.Table.from_pylist(tall), tmp_path / "answers.parquet")
    tree = {"base": str(base), "answers": "answers.parquet", "rewards": ["reward"], **change}
    (tmp_path / "select.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        select(load_settings(Select, tmp_path / "select.yaml"), tmp_path / "run")
    assert caught.value.what == what
    assert caught.value.found.startswith(found) and caught.value.next_step
    assert not (tmp_path / "run" / artifacts.SIGNALS).exists()


def test_the_reference_page_tells_of_every_criterion() -> None:
    """Name, direction and unit of each row are those of the shelf."""
    page = (DOCS / "reference" / "criteria.md").read_text("utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| .+? \| (higher|lower) \| (.+?) \| (.*?) \|", page, re.MULTILINE
    )
    told = {
        name: (direction, unit, set(re.findall(r"`(\w+)`", needs)))
        for name, direction, unit, needs in rows
    }
    assert set(told) == set(CRITERIA)
    for name in CRITERIA:
        own = as_criterion(name, plug("criterion", CRITERIA, name))
        assert told[name] == (own.direction, own.unit, set(own.needs | own.tokens)), name
