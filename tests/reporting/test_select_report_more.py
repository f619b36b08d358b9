"""Cost, agreement, controls, race and tokens on the page of a selection, and how large it gets."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outline import Outline
from scipy import stats
from selections import add_controls, add_race, add_tokens, change, dress, quoted_texts, read_ranking

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.reporting.findings import agreement, race_words
from preceptor.reporting.pages.select import controls as select_controls
from preceptor.reporting.pages.select import cost as select_cost
from preceptor.reporting.pages.select import report as select_report
from preceptor.reporting.pages.select import samples
from preceptor.reporting.pages.select import tokens as select_tokens

MakeFolder = Callable[..., Path]
LIMIT = 3_000_000  # bytes of a page


def words_of(folder: Path) -> str:
    return Outline(select_report.render(folder)).words


def data_of(folder: Path) -> dict[str, Any]:
    return json.loads(Outline(select_report.render(folder)).data)


@pytest.fixture(scope="module")
def dressed(run_folder: MakeFolder) -> Path:
    return dress(run_folder(n_instructions=12))


# the verdict


def test_the_verdict_is_one_sentence_with_confidence_and_cost(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=8, teachers=["one", "two", "three"])
    facts = json.loads((folder / artifacts.PROVENANCE).read_text())
    facts |= {
        "tokens": 1_234_567,
        "asked": {
            "one": {"answers": 8, "generated_tokens": 900, "seconds": 30.0, "cost": 1.5},
            "judge:gpt": {"answers": 16, "generated_tokens": 99, "seconds": 6.0, "cost": 0.25},
        },
        "stage_seconds": {"measuring base nll": 4524.0},
    }
    artifacts.write_json(folder / artifacts.PROVENANCE, facts)
    page = select_report.render(folder)
    verdict = re.search(r'<p class="verdict" id="verdict">(.*?)</p>', page, re.DOTALL)
    assert verdict is not None
    text = " ".join(re.sub("<[^>]*>", "", verdict[1]).split())
    assert text.count(". ") == 0 and text.endswith(".")
    assert "resamples of the 8 instructions; this took 24 answers (8 of them asked for)" in text
    cost = ", 16 judgements, 999 generated tokens, 1,234,567 scored tokens, 1.3 hours and 1.75 in"
    assert f"{cost} money." in text


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({}, "this took 24 answers"),
        ({"asked": {}}, "this took 24 recorded answers"),
        ({"asked": {"a": {"answers": 24}}}, "this took 24 answers"),
        ({"asked": "no", "stage_seconds": ["no"], "tokens": "x"}, "this took 24 answers"),
        (None, "this took 24 answers"),
        ({"asked": {}, "tokens": 7}, "this took 24 recorded answers and 7 scored tokens"),
    ],
)
def test_what_it_took_is_told_as_far_as_it_is_known(provenance: Any, words: str) -> None:
    assert select_cost.clause({"n_answers": 24}, provenance) == words


def test_nothing_known_is_nothing_said() -> None:
    assert select_cost.clause({}, {}) == "" and select_cost.table({}) is None


def test_a_race_says_what_it_saved_and_what_is_sure(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=8)
    ranking = add_race(folder)
    words = words_of(folder)
    gone = sum(len(one["eliminated"]) for one in ranking["race"]["rounds"])
    assert f"the race dropped {gone} teachers, none of them the best at 95% confidence" in words
    share = round(100 * ranking["race"]["answers_used"] / ranking["race"]["answers_full"])
    assert f"answers ({share}% of what asking everybody everything takes)" in words
    ranking["race"]["stopped_because"] = "one_left"
    change(folder, race=ranking["race"])
    assert "it came first in" not in words_of(
        folder
    )  # of one survivor there is nothing to resample
    for one in ranking["race"]["rounds"]:
        one["eliminated"] = []
    assert race_words.surely(ranking["race"]) == ""


def test_costs_stand_in_a_table(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=8, teachers=["one", "two"])
    facts = json.loads((folder / artifacts.PROVENANCE).read_text())
    own = {"answers": 8, "reused": 3, "prompt_tokens": 11, "generated_tokens": 22}
    asked = {"<b>one</b>": own | {"seconds": 90.0, "cost": 0.0}}
    facts |= {"asked": asked, "stage_seconds": {"measuring base nll": 7.0}}
    artifacts.write_json(folder / artifacts.PROVENANCE, facts)
    outline = Outline(select_report.render(folder))
    assert (
        "<b>one</b> 8 3 11 22 90 seconds" in outline.words or "<b>one</b>83112290" in outline.words
    )
    assert "Money" not in outline.text and "measuring base nll" in outline.text


# agreement of criteria


def test_agreement_is_scipys(run_folder: MakeFolder) -> None:
    ranking = read_ranking(run_folder(n_instructions=12, second_reward=True))
    found = agreement.pairs(ranking)
    keys = list(ranking["criteria"])
    assert len(found) == len(keys) ** 2
    order = sorted(ranking["teachers"])
    signed = {}
    for key, criterion in ranking["criteria"].items():
        score = {row["teacher"]: row["score"] for row in criterion["teachers"]}
        sign = 1 if criterion["direction"] == "higher" else -1
        signed[key] = [sign * score[name] for name in order]
    for (first, second), (rho, n) in found.items():
        wanted = stats.spearmanr(signed[first], signed[second])[0]
        assert rho == pytest.approx(wanted) and n == 20


def test_agreement_with_ties_and_with_teachers_that_one_of_them_lacks() -> None:
    def criterion(**rank: int) -> dict[str, Any]:
        return {"teachers": [{"teacher": name, "rank": own} for name, own in rank.items()]}

    criteria = {"a": criterion(x=1, y=1, z=3, w=4), "b": criterion(x=2, y=1, z=3)}
    criteria["flat"] = criterion(x=1, y=1, z=1, w=1)
    found = agreement.pairs({"criteria": criteria})
    rho, n = found["a", "b"]
    assert n == 3 and rho == pytest.approx(stats.spearmanr([1.5, 1.5, 3], [2, 1, 3])[0])
    assert found["a", "flat"] == (None, 4)
    matrix = agreement.matrix({"criteria": criteria, "recommended_by": "a"})
    assert matrix is not None and matrix["n"] is None and matrix["least"][0] == "B"
    assert matrix["rows"][0][2]["value"] == "–" and matrix["rows"][0][2]["shade"] == "rho-none"
    assert agreement.matrix({"criteria": {"a": 1}, "recommended_by": "a"}) is None


def test_shades_follow_rho() -> None:
    shades = [agreement.shade(rho) for rho in (-1, -0.5, -0.1, 0, 0.2, 0.79, 1)]
    assert shades == ["rho-n4", "rho-n2", "rho-0", "rho-0", "rho-p1", "rho-p3", "rho-p4"]


def test_the_matrix_is_a_table_of_numbers(dressed: Path) -> None:
    page = select_report.render(dressed)
    section = page[page.index('<table id="agreement-table"') :]
    section = section[: section.index("</table>")]
    cells = re.findall(r'<td class="(rho-[a-z0-9]+)">([^<]*)</td>', section)
    n = len(read_ranking(dressed)["criteria"])
    assert len(cells) == n * n
    assert [text for shade, text in cells if shade == "rho-self"] == ["1.00"] * n


# controls


def test_controls_speak_of_length_family_and_size(dressed: Path) -> None:
    ranking, words = read_ranking(dressed), words_of(dressed)
    assert "Teachers with longer answers rank better by ρ = 0.45 (p = 0.043)" in words
    assert "length explains 20% of the order" in words
    last = ranking["criteria"]["car"]["teachers"][-1]["teacher"]
    assert f"Furthest above what its length predicts is {last}." in words
    assert "whose size is known, smaller ones rank better by ρ = 0.31 (p = 0.18)" in words
    assert (
        "5 families explain 62% of the order, where chance alone explains 21% (p < 0.001)" in words
    )
    assert "the longer ones score higher by reward (mean ρ = 0.23)" in words
    assert "and the shorter ones have the higher loss (mean ρ = −0.11)" in words
    change(dressed, controls=ranking["controls"] | {"within": {"reward.reward": 0.09}})
    assert "length hardly matters to reward (mean ρ = 0.09)" in words_of(dressed)
    change(dressed, controls=ranking["controls"])


def test_controls_without_size_family_or_correlation(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=8, teachers=["one", "two", "three"])
    controls = add_controls(folder)["controls"]
    for own in controls["criteria"].values():
        own |= {"size": None, "family": None, "length": {"spearman": None, "p_value": None}}
    controls["within"] = {"reward.reward": None}
    change(folder, controls=controls)
    outline = Outline(select_report.render(folder))
    assert "What else would explain the order" in outline.text
    assert "ρ with size" not in outline.text and "Family explains" not in outline.text
    assert "Of answers to one" not in outline.text


def test_controls_need_three_teachers_and_a_run_that_has_them(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=8, teachers=["one", "two", "three"])
    assert select_controls.section(read_ranking(folder), ["one", "two", "three"]) is None
    ranking = add_controls(folder)
    assert select_controls.section(ranking, ["one", "two"]) is None
    assert select_controls.section(ranking, ["one", "two", "three"]) is not None
    assert [select_controls.chance(p) for p in (None, 0.0002, 0.0432, 0.5)] == [
        "", "p < 0.001", "p = 0.043", "p = 0.50",
    ]  # fmt: skip


# domains


def test_every_teacher_has_a_rank_in_every_domain(dressed: Path) -> None:
    ranking = read_ranking(dressed)
    page = select_report.render(dressed)
    section = page[page.index('<section id="by"') :]
    section = section[: section.index("</section>")]
    assert "not ranked: <bdi>1 instruction</bdi>" in section
    table = section[section.index('<table class="ranks"') :]
    found = re.findall(r'<td class="shade-\d">(\d+)</td>', table)
    n = len(ranking["teachers"])
    assert found == [rank for m in range(n) for rank in (str(m + 1), str((m - 1) % n + 1))]


# the race


def test_the_race_is_a_chart_and_a_table(dressed: Path) -> None:
    ranking, data = read_ranking(dressed), data_of(dressed)
    race = data["race"]
    assert [one["n"] for one in race["rounds"]] == [
        one["n_asked"] for one in ranking["race"]["rounds"]
    ]
    names = data["teachers"]
    assert sorted(names[life["teacher"]] for life in race["lives"]) == sorted(names)
    gone = {
        out["teacher"]: number
        for number, one in enumerate(ranking["race"]["rounds"], 1)
        for out in one["eliminated"]
    }
    assert {
        names[life["teacher"]]: life["round"] for life in race["lives"] if life["round"] is not None
    } == gone
    page = select_report.render(dressed)
    table = page[page.index('<table id="race-table"') :]
    table = table[: table.index("</table>")]
    assert all(f"<bdi>{name}</bdi>" in table for name in names)


# tokens


def test_tokens_of_the_page_are_those_of_the_folder(dressed: Path) -> None:
    data, texts = data_of(dressed), quoted_texts(dressed)
    rows = pq.read_table(dressed / artifacts.SAMPLE_TOKENS).to_pylist()
    nll: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        nll.setdefault((row["instruction_id"], row["teacher"]), []).append(row["nll"])
    seen = 0
    for sample in data["samples"]:
        for answer in sample["answers"]:
            key = (sample["id"], data["teachers"][answer["teacher"]])
            assert sum(answer["pieces"]) == len(answer["text"])
            assert texts[key].startswith(answer["text"])
            n = len(answer["pieces"])
            assert len(answer["nll"]) == len(answer["rank"]) == n
            assert answer["nll"] == [round(100 * value) for value in nll[key][:n]]
            assert ("end" in answer) == ("of" not in answer)
            seen += 1
    assert seen == 6 * 20


def test_pieces_are_cut_with_their_text() -> None:
    tokens = select_tokens.Tokens("abcdef", [2, 3, 1, 0], [0.5, 1.0, 2.341, 3.0], [1, 2, 3, 4])
    assert select_tokens.cut(tokens, 9) == {
        "pieces": [2, 3, 1], "nll": [50, 100, 234], "rank": [1, 2, 3], "end": [300, 4],
    }  # fmt: skip
    assert select_tokens.cut(tokens, 4) == {"pieces": [2, 2], "nll": [50, 100], "rank": [1, 2]}
    bare = select_tokens.Tokens("ab", [2], [0.5], None)
    assert select_tokens.cut(bare, 9) == {"pieces": [2], "nll": [50]}
    assert select_tokens.cut(None, 9) == {}


def test_an_answer_that_the_base_s_limit_cut_is_quoted_whole(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=6, teachers=["one", "two"])
    table = add_tokens(folder)
    kept = pa.array(table["piece"].to_numpy() < 5)
    artifacts.write_table(folder / artifacts.SAMPLE_TOKENS, table.filter(kept))
    for sample in data_of(folder)["samples"]:
        for answer in sample["answers"]:
            assert len(answer["pieces"]) == 5 and "end" not in answer
            assert len(answer["text"]) > sum(answer["pieces"])


def test_tokens_of_another_layout_are_refused(run_folder: MakeFolder) -> None:
    folder = run_folder(n_instructions=6, teachers=["one", "two"])
    for content in (b"no table", None):
        path = folder / artifacts.SAMPLE_TOKENS
        if content is None:
            artifacts.write_table(path, pa.table({"a": [1]}))
        else:
            path.write_bytes(content)
        with pytest.raises(RunFolderError, match="tokens of the quoted answers"):
            select_report.render(folder)


def test_a_folder_without_any_of_it_still_has_a_page(run_folder: MakeFolder) -> None:
    outline = Outline(select_report.render(run_folder(n_instructions=6, teachers=["one", "two"])))
    ids = {attributes.get("id") for _, attributes in outline.tags}
    assert not ids & {"race", "controls", "heat-legend"}
    assert {"agreement", "samples", "provenance"} <= ids


def test_hostile_texts_are_inert_in_every_part(
    run_folder: MakeFolder, hostile_texts: list[str]
) -> None:
    folder = run_folder(n_instructions=8, teachers=hostile_texts)
    dress(folder)
    ranking = add_controls(folder, families=tuple(hostile_texts[:2]))
    criteria = {
        (hostile_texts[0] if key == "length" else key): own
        for key, own in ranking["criteria"].items()
    }
    controls = ranking["controls"]
    controls["criteria"][hostile_texts[0]] = controls["criteria"].pop("length")
    controls["within"] = {f"reward.{hostile_texts[1]}": 0.5}
    change(folder, criteria=criteria, controls=controls)
    page = select_report.render(folder)
    outline = Outline(page)
    assert [tag for tag, _ in outline.tags].count("script") == 2 + len(select_report.SCRIPTS)
    assert "img" not in [tag for tag, _ in outline.tags]
    assert not re.search("[\u202a-\u202e\x00-\x08\x7f]", page)
    data = json.loads(outline.data)
    assert {own["family"] for own in data["controls"]["of"]} == set(hostile_texts[:2])


# size


def _wide(folder: Path, names: list[str], n: int) -> list[str]:
    """Tables of n instructions, built column by column; the ids that must be quoted."""
    ids = pa.array([f"i{place:06d}" for place in range(n)])
    code = pa.array(np.tile(np.arange(n, dtype=np.int32), len(names)))
    teacher = pa.array(np.repeat(np.arange(len(names), dtype=np.int32), n))
    rng = np.random.default_rng(0)
    reward = rng.uniform(0.4, 0.6, n * len(names))
    extremes = [n - 1, n // 2, 7, 11, n // 3, n - 9]
    for place, gap in zip(extremes, (0.4, 0.39, 0.38, -0.4, -0.39, -0.38), strict=True):
        reward[place::n] = 0.5
        reward[place] = 0.5 + gap
    long = np.isin(np.arange(n), extremes)
    texts = pa.array(
        ["A short answer. "] + [f"{k} " + "words and more of them " * 200 for k in "abc"]
    )
    text = pa.array(np.tile(np.where(long, 1 + np.arange(n) % 3, 0), len(names)).astype(np.int32))
    zeros = pa.array(np.zeros(n * len(names), dtype=np.int32))

    def column(values: pa.Array, indices: pa.Array) -> pa.Array:
        return pa.DictionaryArray.from_arrays(indices, values).cast(pa.string())

    def write(name: str, columns: dict[str, Any], schema: pa.Schema, rows: int) -> None:
        own = [columns.get(each.name, pa.nulls(n * len(names), each.type)) for each in schema]
        table = pa.Table.from_arrays(own, schema=schema)
        pq.write_table(table, folder / name, row_group_size=rows)

    common = {"instruction_id": column(ids, code), "teacher": column(pa.array(names), teacher)}
    answers = common | {
        "instruction": column(ids, code),
        "response": column(texts, text),
        "finish_reason": column(pa.array(["stop"]), zeros),
        "n_generated": zeros,
    }
    write(artifacts.ANSWERS, answers, artifacts.ANSWERS_SCHEMA, 16_384)
    signals = common | {
        "n_tokens": pa.array(np.full(n * len(names), 40, dtype=np.int32)),
        "nll": pa.array(reward * 80),
        "truncated": pa.array(np.zeros(n * len(names), dtype=bool)),
        "reward.reward": pa.array(reward),
    }
    write(artifacts.SIGNALS, signals, artifacts.signals_schema(["reward"]), 1 << 20)
    return [f"i{place:06d}" for place in extremes]


def test_a_page_of_twenty_teachers_and_100_000_instructions(run_folder: MakeFolder) -> None:
    """Two million answers: no table is ever a list of Python objects."""
    folder = run_folder(n_instructions=8)
    ranking = read_ranking(folder)
    first = ranking["recommended"]
    names = [first, *(name for name in ranking["teachers"] if name != first)]
    wanted = _wide(folder, names, 100_000)
    tracemalloc.start()
    try:
        chosen = samples.choose(folder, ranking)
        found = samples.read_rows(folder, [name for name, _ in chosen])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [name for name, _ in chosen] == wanted
    assert [gap for _, gap in chosen] == pytest.approx([0.4, 0.39, 0.38, -0.4, -0.39, -0.38])
    assert len(found) == 6 * 20
    assert peak < 100_000_000  # of Python and numpy: two million texts alone would be more
    add_tokens(folder, found)
    assert select_report.write(folder).stat().st_size < LIMIT
