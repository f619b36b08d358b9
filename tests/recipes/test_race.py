"""`select` with `race`: the recorded race, the live one, kills, limits, and what is refused."""

from __future__ import annotations

import json
import math
import os
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from forked import start as fork
from preceptor.cli import select as select_verb
from preceptor.core import artifacts
from preceptor.core.criterion import Signals
from preceptor.core.errors import DataError, SettingsError
from preceptor.core.types import Answer, Reply, RewardSource, TeacherSource, even_batches
from preceptor.criteria.car import car
from preceptor.data.answer_store import AnswerStore
from preceptor.recipes.select import select
from preceptor.recipes.selecting.race_fleet import KeptOpen
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select
from preceptor.reporting.terminal.ranking import print_ranking
from preceptor.selection.racing import alpha_of, bound, look, race_order

N = 200
MEANS = {"ash": 0.9, "beech": 0.5, "cherry": 0.87, "dogwood": 0.3, "elder": 0.7}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def start(folder: Path, out: str = "run", **settings: Any) -> dict[str, Any]:
    """Write the settings file beside the data and run it."""
    tree = {"device": "cpu", "resamples": 100, "race": {}, **settings}
    (folder / "select.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return select(load_settings(Select, folder / "select.yaml"), folder / out)


def recorded_rows(n: int = N) -> list[dict[str, Any]]:
    """Recorded answers with a reward: some teachers are clearly worse than others."""
    rng = np.random.default_rng(5)
    difficulty = rng.normal(0, 0.2, n)
    return [
        {
            "instruction_id": f"i{number:03d}",
            "instruction": f"Say {number}.",
            "generator": teacher,
            "response": f"{number} " * (2 + place),
            "reward": float(np.clip(mean + difficulty[number] + rng.normal(0, 0.1), 0, 2)),
        }
        for number in range(n)
        for place, (teacher, mean) in enumerate(MEANS.items())
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "answers.jsonl", recorded_rows())
    return tmp_path


@pytest.fixture
def settings(base: Path) -> dict[str, Any]:
    """Of a race by mean reward over recorded answers; the base's tokens are counted only."""
    return {
        "base": str(base),
        "answers": "answers.jsonl",
        "rewards": ["reward"],
        "criteria": ["mean_reward", "length"],
    }


def plain_race(
    value_TN: dict[str, np.ndarray], seed: int, first: int, growth: float, confidence: float
) -> tuple[list[tuple[int, list[str], dict[str, tuple[float, float]]]], list[str]]:
    """A race of means, written out: (instructions, who was asked, who went), and who is left."""
    order, alpha = race_order(N, seed), alpha_of(confidence, len(value_TN))
    active, n, size, rounds = sorted(value_TN), 0, float(first), []
    while True:
        n = min(N, n + math.ceil(size))
        size *= growth
        seen = {name: value_TN[name][order[:n]] for name in active}
        leader = max(active, key=lambda name: seen[name].mean())
        gone = {}
        for name in active:
            gap = seen[leader] - seen[name]
            if gap.mean() > gap.std(ddof=1) * bound(n, alpha):
                gone[name] = (gap.mean(), gap.std(ddof=1) * bound(n, alpha))
        rounds.append((n, active, gone))
        active = [name for name in active if name not in gone]
        if len(active) == 1 or n == N:
            return rounds, active


def rewards_of(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {
        name: np.array([row["reward"] for row in rows if row["generator"] == name])
        for name in MEANS
    }


@pytest.mark.parametrize(("seed", "growth", "confidence"), [(0, 1.5, 0.95), (3, 1.0, 0.8)])
def test_a_recorded_race_is_the_plain_one(
    data: Path, settings: dict[str, Any], seed: int, growth: float, confidence: float
) -> None:
    race = {"growth": growth, "confidence": confidence}
    ranking = start(data, seed=seed, race=race, **settings)
    values = rewards_of(recorded_rows())
    rounds, left = plain_race(values, seed, 20, growth, confidence)
    found = ranking["race"]
    assert found["criterion"] == "mean_reward" and found["confidence"] == confidence
    assert len(found["rounds"]) == len(rounds)
    for one, (n, active, gone) in zip(found["rounds"], rounds, strict=True):
        assert (one["n_asked"], one["n_instructions"], one["active"]) == (n, n, active)
        assert {out["teacher"] for out in one["eliminated"]} == set(gone)
        for out in one["eliminated"]:
            assert (out["difference"], out["bound"]) == pytest.approx(gone[out["teacher"]])
    asked = {name: n for n, active, _ in rounds for name in active}
    order = race_order(N, seed)
    wanted = {(name, f"i{place:03d}") for name, n in asked.items() for place in order[:n].tolist()}
    for table in (artifacts.ANSWERS, artifacts.SIGNALS):
        rows = pq.read_table(data / "run" / table).select(["teacher", "instruction_id"])
        pairs = [(row["teacher"], row["instruction_id"]) for row in rows.to_pylist()]
        assert len(pairs) == len(set(pairs)) and set(pairs) == wanted
    assert found["answers_used"] == len(wanted) == ranking["n_answers"]
    assert found["answers_full"] == N * len(MEANS)
    _assert_ranked(ranking, values, rounds, left, order)


def _assert_ranked(
    ranking: dict[str, Any],
    values: dict[str, np.ndarray],
    rounds: list[tuple[int, list[str], dict[str, tuple[float, float]]]],
    left: list[str],
    order: np.ndarray,
) -> None:
    """Survivors on all that they share; then the others, the last one first, as of then."""
    rows = ranking["criteria"]["mean_reward"]["teachers"]
    assert {row["teacher"] for row in rows[: len(left)]} == set(left)
    assert ranking["recommended"] == rows[0]["teacher"] == "ash"
    at = dict.fromkeys(left, rounds[-1][0])
    behind: list[str] = []
    for n, _, gone in rounds:
        at |= dict.fromkeys(gone, n)
        behind = [*sorted(gone, key=lambda name: gone[name][0]), *behind]
    assert [row["teacher"] for row in rows[len(left) :]] == behind
    for place, row in enumerate(rows, 1):
        own = values[row["teacher"]][order[: at[row["teacher"]]]]
        assert row["score"] == pytest.approx(own.mean())
        assert row["low"] <= row["score"] <= row["high"]
        assert row["rank"] == place and row["rank_low"] <= place <= row["rank_high"]
        profile = ranking["teachers"][row["teacher"]]
        assert profile["rewards"]["reward"] == pytest.approx(own.mean())
    assert sum(row["p_best"] for row in rows) == pytest.approx(1)
    assert list(ranking["teachers"]) == sorted(MEANS)
    assert {row["teacher"] for row in ranking["criteria"]["length"]["teachers"]} == set(left)


def test_a_race_by_car_decides_as_the_whole_signals_would(
    data: Path, settings: dict[str, Any]
) -> None:
    """Rounds measure what one pass measures, and the influence values decide on it."""
    settings |= {"criteria": ["car", "perplexity"], "max_instructions": 90}
    whole = start(data, "whole", **settings | {"race": None})
    ranking = start(data, **settings)
    assert whole["recommended"] == ranking["recommended"] == "ash"
    full = {(row["teacher"], row["instruction_id"]): row for row in rows_of(data / "whole")}
    own = rows_of(data / "run")
    assert 0 < len(own) < len(full)
    for row in own:
        wanted = full[row["teacher"], row["instruction_id"]]
        assert row["nll"] == pytest.approx(wanted["nll"], rel=1e-4)
        assert row["n_tokens"] == wanted["n_tokens"]
        assert row["reward.reward"] == wanted["reward.reward"]
    order = race_order(90, 0)
    for one in ranking["race"]["rounds"]:
        ids = [f"i{place:03d}" for place in order[: one["n_asked"]].tolist()]

        def grid(column: str, ids: list[str] = ids, names: list[str] = one["active"]) -> Any:
            return np.array([[full[name, key][column] for key in ids] for name in names])

        signals = Signals(
            tuple(one["active"]), grid("n_tokens"), grid("nll"), reward_MN=grid("reward.reward")
        )
        found = look(
            signals,
            partial(car, beta=3.0, loss_reduction="answers"),
            higher_is_better=True,
            alpha=alpha_of(0.95, len(MEANS)),
        )
        assert one["leader"] == one["active"][found.leader]
        assert [out["teacher"] for out in one["eliminated"]] == [
            one["active"][m] for m in found.out
        ]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / artifacts.SIGNALS).to_pylist()


def test_the_report_and_the_terminal_tell_the_race(
    data: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ranking = start(data, **settings)
    told = capsys.readouterr().err
    assert "race, round 1: 20 instructions, 5 teachers, ash leads; out: " in told
    page = (data / "run" / "report.html").read_text("utf-8")
    section = page[page.index('<section id="race"') : page.index('<section id="ranks"')]
    for name in MEANS:
        assert f"<bdi>{name}</bdi>" in section
    assert "answers (" in section
    with (data / "printed").open("w") as file:
        print_ranking(ranking, data / "run", Console(file=file, width=120))
    printed = (data / "printed").read_text()
    used, full = ranking["race"]["answers_used"], ranking["race"]["answers_full"]
    assert f"Asked for {used:,} of {full:,} answers" in printed
    assert "Race by mean_reward, 0.95 confidence" in printed


def test_what_would_separate_the_survivors(data: Path, settings: dict[str, Any]) -> None:
    ranking = start(data, max_instructions=30, **settings)
    race = ranking["race"]
    assert race["stopped_because"] == "instructions"
    (pair,) = [pair for pair in race["needed"] if "cherry" in (pair["first"], pair["second"])]
    assert pair["n_more"] > 0
    values, order = rewards_of(recorded_rows()), race_order(30, 0)
    gap = (values["ash"] - values["cherry"])[order]
    first = pair["first"] == "ash"
    assert first == (gap.mean() > 0)
    n, alpha = 30 + pair["n_more"], alpha_of(0.95, 5)
    spread = gap.std(ddof=1)
    assert spread * bound(n, alpha) < abs(gap.mean()) <= spread * bound(n - 1, alpha)


def test_a_finished_race_again_and_one_without_its_ranking(
    data: Path, settings: dict[str, Any]
) -> None:
    ranking = start(data, **settings)
    assert start(data, **settings) == ranking
    kept = {name: (data / "run" / name).read_bytes() for name in ("ranking.json", "report.html")}
    (data / "run" / "ranking.json").unlink()
    facts = json.loads((data / "run" / "provenance.json").read_text())
    (data / "run" / "provenance.json").write_text(json.dumps(facts | {"status": "running"}))
    assert start(data, **settings) == ranking
    assert (data / "run" / "ranking.json").read_bytes() == kept["ranking.json"]


def by_letters(instruction: str, response: str, row: object) -> float:
    """A verifier for these tests: longer answers are better, up to a hundred characters."""
    return min(len(response), 100) / 100


LETTERS = {"kind": "verifier", "name": "letters", "function": f"{__name__}:by_letters"}


def by_chance(instruction: str, response: str, row: object) -> float:
    """A verifier for these tests: nothing for a word or less, else something between 1 and 2."""
    drawn = zlib.crc32(f"{instruction}{response}".encode()) % 1000
    return (1 + drawn / 1000) * (len(response) > 8)


def test_dropped_lab_teachers_are_not_asked_again(tmp_path: Path, base: Path) -> None:
    """A talkative model of the lab, twice, and cut short: the latter goes after the first round."""
    tokens = {"short": 1, "medium": 8, "long": 12}
    teachers = [{"model": "lab:elm-m", "name": n, "max_new_tokens": t} for n, t in tokens.items()]
    ranking = start(
        tmp_path,
        base=str(base),
        instructions="lab:selection",
        max_instructions=50,
        teachers=teachers,
        rewards=[LETTERS | {"function": f"{__name__}:by_chance"}],
        criteria=["mean_reward"],
    )
    first = ranking["race"]["rounds"][0]
    assert "short" in [out["teacher"] for out in first["eliminated"]]
    store = AnswerStore(tmp_path / "run" / "store")
    asked = Counter(store.table(["max_new_tokens"])["max_new_tokens"].to_pylist())
    used = {
        name: max(r["n_asked"] for r in ranking["race"]["rounds"] if name in r["active"])
        for name in tokens
    }
    assert used["short"] == 20 < used["medium"] == used["long"]
    assert asked == {tokens[name]: n for name, n in used.items()}
    answers = pq.read_table(tmp_path / "run" / artifacts.ANSWERS)["teacher"].to_pylist()
    assert Counter(answers) == used


def open_counter(setting: Any, runtime: Any) -> TeacherSource:
    """A teacher that says a word `options.words` times, for one coin; it notes who was asked."""
    del runtime

    def ask(groups: Sequence[Sequence[Any]]) -> Any:
        for number, group in enumerate(groups):
            replies = []
            for request in group:
                text = request.messages[-1][1]
                with open(setting.options["log"], "a") as log:
                    log.write(f"{setting.name}\t{text}\n")
                words = setting.options["words"] + len(text) % 3
                replies.append(Reply("word " * words, "stop", words, 5))
            yield number, replies

    return TeacherSource(
        {"model": setting.name},
        lambda requests: even_batches(len(requests), 7),
        ask,
        lambda n_prompt, n_generated: 1.0,
    )


def counters(folder: Path, **words: int) -> list[dict[str, Any]]:
    return [
        {
            "kind": f"{__name__}:open_counter",
            "name": name,
            "options": {"words": n, "log": str(folder / "log.txt")},
        }
        for name, n in words.items()
    ]


def asked_of(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (folder / "log.txt").read_text().splitlines():
        name, _, text = line.partition("\t")
        found.setdefault(name, []).append(text)
    return found


@pytest.fixture
def live(tmp_path: Path, base: Path) -> dict[str, Any]:
    rows = [{"instruction": f"Question {'x' * (n % 7)} {n}?"} for n in range(N)]
    write_jsonl(tmp_path / "questions.jsonl", rows)
    return {
        "base": str(base),
        "instructions": "questions.jsonl",
        "rewards": [LETTERS],
        "criteria": ["mean_reward"],
    }


def test_live_and_recorded_teachers_in_one_race(tmp_path: Path, live: dict[str, Any]) -> None:
    lines = (tmp_path / "questions.jsonl").read_text().splitlines()
    questions = [json.loads(line) for line in lines]
    rows = [
        {**row, "generator": name, "response": "a " * n + "b" * (place % 2)}
        for place, row in enumerate(questions)
        for name, n in (("recorded-long", 40), ("recorded-short", 2))
    ]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    teachers = counters(tmp_path, good=16, poor=3)
    ranking = start(tmp_path, answers="answers.jsonl", teachers=teachers, **live)
    first = ranking["race"]["rounds"][0]
    assert {out["teacher"] for out in first["eliminated"]} >= {"poor", "recorded-short"}
    asked = asked_of(tmp_path)
    assert len(asked["poor"]) == 20
    assert ranking["recommended"] == "good"
    answers = pq.read_table(tmp_path / "run" / artifacts.ANSWERS).to_pylist()
    by_name = Counter(row["teacher"] for row in answers)
    assert by_name["poor"] == by_name["recorded-short"] == 20
    texts = {name: [r["instruction"] for r in answers if r["teacher"] == name] for name in by_name}
    assert sorted(texts["good"]) == sorted(asked["good"])
    assert sorted(texts["recorded-short"]) == sorted(asked["poor"])  # the same instructions
    lengths = {(r["teacher"], r["instruction"]): len(r["response"]) for r in answers}
    assert lengths["recorded-short", texts["poor"][0]] in (4, 5)


@pytest.mark.parametrize(
    ("limit", "most"), [({"budget": 130.0}, 130), ({"tokens": 4000}, None), ({"budget": 25.0}, 60)]
)
def test_limits_end_a_race(
    tmp_path: Path, live: dict[str, Any], limit: dict[str, Any], most: int | None
) -> None:
    """Three teachers who cannot be told apart, a coin an answer; the first round is 60 coins."""
    teachers = counters(tmp_path, one=10, other=10, third=10)
    ranking = start(tmp_path, teachers=teachers, race=limit, **live)
    race = ranking["race"]
    assert race["stopped_because"] == next(iter(limit))
    assert race["cost"] == sum(map(len, asked_of(tmp_path).values())) == race["answers_used"]
    assert race["cost_full"] == pytest.approx(3 * N)
    if most is not None:
        assert most - 3 < race["cost"] <= most
    else:
        assert 0.8 * 4000 < race["tokens_used"] <= 1.05 * 4000
    assert all(pair["n_more"] is None for pair in race["needed"])  # their answers are the same


def open_grader(setting: Any, runtime: Any) -> TeacherSource:
    """A judge that gives an answer's length in words as its grade, for two coins."""
    del setting, runtime

    def ask(groups: Sequence[Sequence[Any]]) -> Any:
        for number, group in enumerate(groups):
            grades = [min(request.messages[-1][1].count("word") % 100, 10) for request in group]
            yield number, [Reply(f"[[{max(grade, 1)}]]", "stop", 4, 9) for grade in grades]

    return TeacherSource(
        {"model": "grader"},
        lambda requests: even_batches(len(requests), 7),
        ask,
        lambda n_prompt, n_generated: 2.0,
    )


def test_judges_are_paid_from_the_budget(tmp_path: Path, live: dict[str, Any]) -> None:
    live["rewards"] = [
        {"kind": "judge", "name": "grade", "teacher": {"kind": f"{__name__}:open_grader"}}
    ]
    teachers = counters(tmp_path, one=5, other=5, third=5)
    settings = {"teachers": teachers, "race": {"budget": 400.0}, **live}
    race = start(tmp_path, **settings)["race"]
    assert race["stopped_because"] == "budget"
    assert race["cost"] == 3 * race["answers_used"] and 390 < race["cost"] <= 400
    assert race["cost_full"] == pytest.approx(3 * 3 * N)
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    graded = sum(one["replies"] for one in facts["rewards"]["grade"])
    assert len(facts["rewards"]["grade"]) == len(race["rounds"])
    assert graded == race["answers_used"]
    # begun again with its answers kept: nothing is asked, everything is counted
    before = (tmp_path / "run" / "ranking.json").read_bytes()
    asked = (tmp_path / "log.txt").read_bytes()
    (tmp_path / "run" / "ranking.json").unlink()
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(facts | {"status": "running"}))
    start(tmp_path, **settings)
    assert (tmp_path / "run" / "ranking.json").read_bytes() == before
    assert (tmp_path / "log.txt").read_bytes() == asked


def open_patchy(setting: Any, runtime: Any) -> RewardSource:
    """A reward that has no score for every fifth instruction."""
    del setting, runtime

    def score(answers: Sequence[Answer]) -> list[float]:
        return [
            math.nan if int(a.instruction_id[1:]) % 5 == 0 else float(a.row["reward"])
            for a in answers
        ]

    return RewardSource(lambda a: even_batches(len(a), 50), lambda: score, may_miss=True)


def test_instructions_without_a_score_do_not_count(data: Path, settings: dict[str, Any]) -> None:
    settings["rewards"] = [{"kind": f"{__name__}:open_patchy", "name": "patchy"}]
    ranking = start(data, **settings)
    for one in ranking["race"]["rounds"]:
        seen = race_order(N, 0)[: one["n_asked"]]
        assert one["n_instructions"] == sum(place % 5 > 0 for place in seen.tolist())
    assert ranking["race"]["rounds"][0]["eliminated"] == []  # fewer than twenty of them
    assert ranking["race"]["rounds"][1]["eliminated"]
    assert any("were left out" in warning for warning in ranking["warnings"])
    assert ranking["n_instructions"] == ranking["race"]["rounds"][-1]["n_instructions"]
    with pytest.raises(DataError, match="too few instructions have a score"):
        start(data, "strict", min_paired_share=0.9, **settings)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"race": {"budget": 5}}, "a budget needs prices"),
        ({"race": {"first": 5}}, "the setting 'race.first' cannot be used"),
        ({"race": {"confidence": 1}}, "the setting 'race.confidence' cannot be used"),
        ({"race": {"growht": 2}}, "unknown setting 'race.growht'"),
        ({"rewards": [{"name": "reward", "map": "minmax"}]}, "a race has no ends for minmax"),
        ({"answers": "one.jsonl"}, "a race needs two teachers"),
        ({"by": "generator"}, "`race` and `by` exclude each other"),
        (
            {
                "rewards": [
                    {
                        "kind": "pairwise",
                        "name": "wins",
                        "teacher": "lab:elm-m",
                        "baseline": {"teacher": "ash"},
                    }
                ]
            },
            "the baseline of a reward takes part in the race",
        ),
    ],
)
def test_what_a_race_cannot_do_is_refused_at_once(
    data: Path, settings: dict[str, Any], change: dict[str, Any], what: str
) -> None:
    alone = [row for row in recorded_rows() if row["generator"] == "ash"]
    write_jsonl(data / "one.jsonl", alone)
    with pytest.raises(SettingsError) as caught:
        start(data, **settings | change)
    assert caught.value.what == what
    assert caught.value.where and caught.value.next_step
    assert not (data / "run").exists()


def test_the_flag_of_the_command_line(
    data: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file = data / "plain.yaml"
    file.write_text(yaml.safe_dump({"device": "cpu", "resamples": 100, **settings}))
    common: dict[str, Any] = {"by": None, "pilot": False, "dry_run": False}
    select_verb(file, data / "off", [], race=False, **common)
    assert "race" not in json.loads((data / "off" / "ranking.json").read_text())
    select_verb(file, data / "on", [], race=True, **common)
    assert "Race by mean_reward" in capsys.readouterr().out
    found = json.loads((data / "on" / "ranking.json").read_text())["race"]
    assert (found["confidence"], found["rounds"][0]["n_asked"]) == (0.95, 20)
    select_verb(file, data / "set", ["race={first: 40}"], race=True, **common)
    found = json.loads((data / "set" / "ranking.json").read_text())["race"]
    assert found["rounds"][0]["n_asked"] == 40


def _open_named(name: str, opened: list[str]) -> Callable[[Any], Any]:
    opened.append(name)
    return lambda group: (name, group)


def test_a_model_stays_open_until_another_one_is_wanted() -> None:
    opened: list[str] = []
    kept = KeptOpen()
    one, two = (partial(_open_named, name, opened) for name in ("one", "two"))
    assert list(kept(one, [1, 2])) == [(0, ("one", 1)), (1, ("one", 2))]
    assert list(kept(partial(_open_named, "one", opened), [3])) == [(0, ("one", 3))]
    assert opened == ["one"]
    assert list(kept(two, [])) == [] and opened == ["one"]
    assert list(kept(two, [4])) == [(0, ("two", 4))]
    assert list(kept(one, [5])) == [(0, ("one", 5))]
    assert opened == ["one", "two", "one"]
    kept.close()
    list(kept(one, [6]))
    list(kept(lambda: _open_named("other", opened), [7]))
    list(kept(lambda: _open_named("other", opened), [8]))
    assert opened == ["one", "two", "one", "one", "other", "other"]


MOMENTS = (  # what there is of a race when it is killed
    "store/*/*.parquet",
    "work/race-0000-reward-000/*.parquet",
    "work/race-0000-measure-*/*.parquet",
    "work/race-0001-reward-000/*.parquet",
    "work/race-0001-measure-*/*.parquet",
)


def _run(config: str, out: str) -> None:
    from preceptor.core import stage
    from preceptor.data import answer_store

    stage.COMMIT_SECONDS = answer_store.COMMIT_SECONDS = 0.02
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    torch.set_num_threads(1)
    select(load_settings(Select, Path(config)), Path(out))


def open_slow(setting: Any, runtime: Any) -> RewardSource:
    """A reward in batches of four, slow enough to be killed in."""
    del setting, runtime

    def score(answers: Sequence[Answer]) -> list[float]:
        time.sleep(0.02)
        return [by_letters(a.instruction, a.response, a.row) for a in answers]

    return RewardSource(lambda answers: even_batches(len(answers), 4), lambda: score)


def test_a_killed_race_ends_like_an_undisturbed_one(
    tmp_path: Path, live: dict[str, Any], tiny_model: Callable[..., Path], chat_template: str
) -> None:
    """Two models that sample and one cut short, scored slowly and measured by CAR."""
    model = tiny_model("race-live", chat_template=chat_template, seed=3)
    common = {"model": str(model), "batch_size": 8, "temperature": 0.9}
    live |= {
        "teachers": [
            {**common, "name": "warm", "max_new_tokens": 16},
            {**common, "name": "hot", "max_new_tokens": 16, "temperature": 1.3},
            {**common, "name": "short", "max_new_tokens": 2},
        ],
        "rewards": [{"kind": f"{__name__}:open_slow", "name": "slow"}],
        "criteria": ["car", "mean_reward"],
        "race": {"tokens": 2500},
        "batch_tokens": 256,
    }
    tree = {"device": "cpu", "resamples": 100, "max_instructions": 50, **live}
    (tmp_path / "select.yaml").write_text(yaml.safe_dump(tree))
    config = str(tmp_path / "select.yaml")

    def finish(out: Path) -> None:
        process = fork(_run, config, str(out))
        process.join(120)
        assert process.exitcode == 0

    finish(tmp_path / "whole")
    names = (artifacts.RANKING, artifacts.ANSWERS, artifacts.SIGNALS, artifacts.SAMPLE_TOKENS)
    wanted = [(tmp_path / "whole" / name).read_bytes() for name in names]
    race = json.loads(wanted[0])["race"]
    assert any(one["eliminated"] for one in race["rounds"]) and len(race["rounds"]) > 1
    out = tmp_path / "killed"
    for place, moment in enumerate(MOMENTS):
        process = fork(_run, config, str(out))
        deadline = time.monotonic() + 60
        while not any(out.glob(moment)):
            assert process.exitcode is None, f"it ended before {moment}"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(0.02 * place)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"it ended at {moment}"
    finish(out)
    assert [(out / name).read_bytes() for name in names] == wanted
    assert not (out / "work").exists()
