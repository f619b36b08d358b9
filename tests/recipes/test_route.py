"""`preceptor route`: from a selection to a teacher for each instruction, and a training set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from preceptor.core import artifacts
from preceptor.core.errors import DataError, PreceptorError, RunFolderError
from preceptor.data.answer_shards import read_answers
from preceptor.lab.tasks import instructions as lab_instructions
from preceptor.recipes.ask import ask
from preceptor.recipes.export import export
from preceptor.recipes.planning.select import AskJob
from preceptor.recipes.route import ASK_FILE, ROUTE, ROUTED_TABLE, route
from preceptor.recipes.select import select
from preceptor.recipes.settings.asking import Ask, Export
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.shared import Source
from preceptor.reporting.terminal.route import print_route
from preceptor.selection import routing
from preceptor.selection.router import Router, choose

NEW = [f"{verb} the {thing}." for thing in ("spoon", "violin", "tower")
       for verb in ("Paint", "Count")]  # fmt: skip


def records(n: int = 60) -> list[dict[str, Any]]:
    """Ash is best at painting, beech at counting; cherry is behind both."""
    things = "apple pear stone road bird lamp river book cloud chair".split()
    found = []
    for number in range(n):
        paints = number % 2 == 0
        text = f"{'Paint' if paints else 'Count'} the {things[number % 7]} of {number} nights."
        rewards = {"ash": 0.9 if paints else 0.2, "beech": 0.2 if paints else 0.9, "cherry": 0.1}
        found += [
            {
                "instruction": text,
                "generator": teacher,
                "response": f"It is {number}.",
                "right": reward + 0.01 * (number % 5),
            }
            for teacher, reward in rewards.items()
        ]
    return found


@pytest.fixture
def selected(tmp_path: Path, base: Path) -> Callable[..., Path]:
    """`selected(rows, **settings)`: the run folder of a selection among recorded answers."""

    def run(rows: list[dict[str, Any]], name: str = "selection", **settings: Any) -> Path:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        tree = {
            "base": str(base),
            "answers": str(file),
            "rewards": ["right"],
            "criteria": ["perplexity"],
            "resamples": 200,
            "device": "cpu",
        }
        select(Select.model_validate(tree | settings), tmp_path / name)
        return tmp_path / name

    return run


@pytest.fixture
def one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds of one split and fewer penalties, where what several bring is not looked at."""
    monkeypatch.setattr(routing, "SPLITS", 1)
    monkeypatch.setattr(routing, "PENALTIES", routing.PENALTIES[:5])


@pytest.fixture
def wanted(tmp_path: Path) -> Source:
    """New instructions, with a column of their own."""
    file = tmp_path / "new.jsonl"
    rows = [{"prompt": text, "level": number} for number, text in enumerate(NEW)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path=str(file))


def test_route_then_ask_then_export(
    selected: Any,
    wanted: Source,
    tmp_path: Path,
    tiny_model: Callable[..., Path],
    chat_template: str,
) -> None:
    """Each prompt goes to the teacher that is best at its kind, and to nobody else."""
    out = tmp_path / "routed"
    found = route(selected(records()), wanted, out, alpha=0.0)
    assert found["verdict"] == "gain" and found["share_of_room"] > 0.9
    assert found["routed"]["teachers"] == {"ash": 3, "beech": 3, "cherry": 0}
    assert found == artifacts.read_json(out / ROUTE)
    rows = pq.read_table(out / ROUTED_TABLE).to_pylist()
    assert [(row["prompt"], row["level"], row["teacher"]) for row in rows] == [
        (text, number, ("ash", "beech")[number % 2]) for number, text in enumerate(NEW)
    ]
    router = Router.load(out / artifacts.ROUTER)
    u_NM = router.utilities(NEW)
    assert [[row[f"route.{name}"] for name in router.teachers] for row in rows] == [
        pytest.approx(own) for own in u_NM
    ]
    assert [router.teachers[m] for m in choose(u_NM, router.teachers)] == [
        row["teacher"] for row in rows
    ]

    assert found["fill_in"] == ["ash", "beech"], "only answers are known of them"
    tree = yaml.safe_load((out / ASK_FILE).read_text())
    assert [own["name"] for own in tree["teachers"]] == ["ash", "beech"]
    with pytest.raises(PreceptorError, match="model"):
        load_settings(Ask, out / ASK_FILE)
    for number, own in enumerate(tree["teachers"]):
        name = f"routed-{own['name']}"
        own["model"] = str(tiny_model(name, chat_template=chat_template, seed=number))
        own["max_new_tokens"] = 6
    (out / ASK_FILE).write_text(yaml.safe_dump(tree))

    settings = load_settings(Ask, out / ASK_FILE)
    planned = AskJob(settings, tmp_path / "asked").draft()
    assert [stage.items for stage in planned.stages if stage.kind == "ask"] == [3, 3]
    ask(settings, tmp_path / "asked")
    samples = pq.read_table(tmp_path / "asked" / artifacts.SAMPLES).to_pylist()
    answered = {row["instruction"]: row["teacher"] for row in samples}
    assert answered == {row["prompt"]: row["teacher"] for row in rows} and len(samples) == 6
    assert _asked(tmp_path / "asked" / "store") == {
        "routed-ash": Counter(NEW[0::2]), "routed-beech": Counter(NEW[1::2]),
    }  # fmt: skip

    tree = {"run": str(tmp_path / "asked"), "sets": {"routed": {"pick": "greedy"}}}
    export(Export.model_validate(tree), tmp_path / "sets")
    lessons = pq.read_table(tmp_path / "sets" / "routed" / "train.parquet").to_pylist()
    assert {row["messages"][0]["content"]: row["teacher"] for row in lessons} == answered


def _asked(store: Path) -> dict[str, Counter[str]]:
    """Name of the model -> instructions that the store holds an answer of it to."""
    found: dict[str, Counter[str]] = {}
    for part in filter(Path.is_dir, store.iterdir()):
        for table in read_answers(part, ["teacher", "instruction"]):
            for row in table.to_pylist():
                found.setdefault(Path(row["teacher"]).name, Counter())[row["instruction"]] += 1
    return found


def test_the_lab_from_a_selection_to_a_training_set(one_split: None, tmp_path: Path) -> None:
    """Live teachers need no filling in; answers of the selection are not asked for again."""
    tree = {
        "base": "lab:base-notes",
        "instructions": "lab:selection",
        "max_instructions": 40,
        "teachers": [
            {"model": "lab:birch-m", "max_new_tokens": 24},
            {"model": "lab:marlow-expert", "max_new_tokens": 24, "name": "marlow"},
        ],
        "rewards": [{"kind": "verifier", "name": "right", "function": "lab"}],
        "criteria": ["persyn"],
        "criterion_options": {"persyn": {"alpha": 0.25}},
        "resamples": 200,
        "device": "cpu",
    }
    select(Select.model_validate(tree), tmp_path / "selection")
    rows = [row.row() for row in lab_instructions("selection", 10)]
    rows += [row.row() for row in lab_instructions("train", 20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    out = tmp_path / "routed"
    found = route(tmp_path / "selection", Source(path=str(tmp_path / "new.parquet")), out)
    assert (found["alpha"], found["fill_in"], found["reward"]) == (0.25, [], "right")
    assert found["held_out"]["n_prompts"] == 40 and found["routed"]["n_known"] == 10
    counts = {name: n for name, n in found["routed"]["teachers"].items() if n}
    assert sum(counts.values()) == 30
    asked = ask(load_settings(Ask, out / ASK_FILE), tmp_path / "asked")
    assert {p["teacher"]: p["n_answers"] for p in asked["points"]} == counts
    facts = artifacts.read_json(tmp_path / "asked" / artifacts.PROVENANCE)["asked"]
    assert sum(own["reused"] for own in facts.values()) == 10, "the selection's store was read"
    tree = {"run": str(tmp_path / "asked"), "sets": {"all": {"pick": "all"}}}
    export(Export.model_validate(tree), tmp_path / "sets")
    assert pq.read_table(tmp_path / "sets" / "all" / "train.parquet").num_rows == 30


def test_a_finished_run_is_read_and_another_refused(
    one_split: None, selected: Any, wanted: Source, tmp_path: Path, capsys: Any
) -> None:
    run, out = selected(records()), tmp_path / "routed"
    found = route(run, wanted, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert route(run, wanted, out) == found
    assert "holds the finished run" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert set(before) == {
        ROUTE, ROUTED_TABLE, ASK_FILE, artifacts.ROUTER, artifacts.SETTINGS, artifacts.PROVENANCE,
    }  # fmt: skip
    again = tmp_path / "again"
    route(run, wanted, again)
    for name in (ROUTE, ROUTED_TABLE, ASK_FILE, artifacts.ROUTER):
        assert (again / name).read_bytes() == before[name], "the same bytes from the same settings"
    with pytest.raises(RunFolderError, match="other settings"):
        route(run, wanted, out, alpha=0.1)


def test_alpha_weighs_what_is_learned_from(
    one_split: None, selected: Any, wanted: Source, tmp_path: Path
) -> None:
    """With quality alone the painter paints; with learnability alone the reward is not read."""
    run = selected(records())
    quality = route(run, wanted, tmp_path / "quality", alpha=0.0)
    learnable = route(run, wanted, tmp_path / "learnable", alpha=1.0)
    assert quality["held_out"]["means"]["score"]["oracle"]["mean"] > 0.9
    score = learnable["held_out"]["means"]["score"]
    assert score["oracle"]["mean"] == pytest.approx(score["random"]["mean"]), "equal answers"
    assert learnable["verdict"] == "open"


def test_the_terminal_says_what_it_is_worth(
    one_split: None, selected: Any, wanted: Source, tmp_path: Path
) -> None:
    run = selected(records())
    texts = {}
    for name, alpha in (("gain", 0.0), ("open", 1.0)):
        found = route(run, wanted, tmp_path / name, alpha=alpha)
        console = Console(file=StringIO(), width=110)
        print_route(found, tmp_path / name, console)
        texts[name] = console.file.getvalue()  # type: ignore[attr-defined]
        gap = found["held_out"]["means"]["score"]["routed_minus"]["single"]
        assert "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**gap) in texts[name]
        assert f"{found['held_out']['means']['reward']['routed']['mean']:.3f}" in texts[name]
    assert "routing is better than" in texts["gain"] and "ash 3, beech 3" in texts["gain"]
    assert "asks for 6 answers, where all teachers would give 18" in texts["gain"]
    assert "fill in the models in ask.yaml: ash, beech" in texts["gain"]
    assert "routing cannot be told from" in texts["open"]
    found |= {"verdict": "loss"}
    console = Console(file=StringIO(), width=110)
    print_route(found, tmp_path, console)
    assert "routing is worse than" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_cannot_be_routed(selected: Any, wanted: Source, tmp_path: Path) -> None:
    run = selected(records())

    def refused(kind: type[PreceptorError], match: str, folder: Path, **more: Any) -> Any:
        with pytest.raises(kind, match=match) as caught:
            route(folder, more.pop("source", wanted), tmp_path / "out", **more)
        assert caught.value.next_step and not (tmp_path / "out").exists()
        return caught.value

    refused(RunFolderError, "no folder of a finished", tmp_path / "nothing")
    refused(PreceptorError, "alpha cannot be used", run, alpha=1.5)
    refused(PreceptorError, "prompts cannot be used", run, prompts=0)
    taken = [{"prompt": "Paint it.", "teacher": "mine"}]
    pq.write_table(pa.Table.from_pylist(taken), tmp_path / "taken.parquet")
    source = Source(path=str(tmp_path / "taken.parquet"))
    error = refused(DataError, "a column that routing is to write", run, source=source)
    assert error.found == "column 'teacher'"
    lonely = selected([r for r in records() if r["generator"] == "ash"], "lonely")
    assert "ash alone" in refused(DataError, "nobody to route between", lonely).found
    unmeasured = selected(records(), "unmeasured", criteria=["mean_reward"])
    assert "persyn" in refused(RunFolderError, "measured no losses", unmeasured).next_step
    (run / artifacts.ANSWERS).unlink()
    assert "answers.parquet" in refused(RunFolderError, "no folder of a finished", run).found


def test_who_did_not_answer_all_is_left_out(
    one_split: None, selected: Any, wanted: Source, tmp_path: Path
) -> None:
    """A race asks those that it drops no further: they cannot be routed to."""
    run = selected(records())
    table = pq.read_table(run / artifacts.SIGNALS)
    cherry = [n for n, name in enumerate(table["teacher"].to_pylist()) if name == "cherry"]
    kept = [n for n in range(table.num_rows) if n not in cherry[10:]]
    artifacts.write_table(run / artifacts.SIGNALS, table.take(kept))
    found = route(run, wanted, tmp_path / "out")
    assert found["teachers"] == ["ash", "beech"] and "cherry" in found["warnings"][0]
    beech = [n for n in kept if n not in cherry and n % 60 >= 10 and n >= 60]
    artifacts.write_table(run / artifacts.SIGNALS, table.take([n for n in kept if n not in beech]))
    with pytest.raises(DataError, match="nobody to route between") as caught:
        route(run, wanted, tmp_path / "again")
    assert "a race dropped the others" in caught.value.found


def test_few_prompts_are_refused(selected: Any, wanted: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more prompts to be fitted on"):
        route(selected(records(16)), wanted, tmp_path / "out")


def asking(tmp_path: Path, rows: list[dict[str, Any]], **more: Any) -> Ask:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "questions.parquet")
    tree = {
        "instructions": str(tmp_path / "questions.parquet"),
        "route_by": "who",
        "teachers": [{"model": "lab:elm-m"}, {"model": "lab:birch-m"}],
    }
    return Ask.model_validate(tree | more)


@pytest.mark.parametrize(
    ("rows", "what", "found"),
    [
        ([{"prompt": "a", "whom": "elm-m"}], "no column 'who'", "did you mean 'whom'?"),
        ([{"prompt": "a", "who": "elm"}], "a teacher that is not there", "'elm' in 1 rows; did"),
        ([{"prompt": "a", "who": "elm-m"}, {"prompt": "b", "who": None}], "name nobody", "1 of 2"),
    ],
)
def test_ask_refuses_a_column_that_cannot_route(
    tmp_path: Path, rows: list[dict[str, Any]], what: str, found: str
) -> None:
    with pytest.raises(DataError, match=what) as caught:
        ask(asking(tmp_path, rows), tmp_path / "run")
    assert found in caught.value.found and caught.value.where.startswith("route_by")
    assert not (tmp_path / "run").exists(), "refused before anything is written"


def test_ask_needs_instructions_to_route(tmp_path: Path) -> None:
    with pytest.raises(PreceptorError, match="is to route, and there are none"):
        Ask.model_validate({"answers": "some/answers", "route_by": "who"})


def test_recorded_answers_are_routed_too(
    tmp_path: Path, chatter: Path, tall: list[dict[str, Any]], capsys: Any
) -> None:
    """Who is named answers, live or recorded; what others have said is left aside."""
    texts = list(dict.fromkeys(row["instruction"] for row in tall))
    names = ["ash", "chat", "ash", "beech", "chat", "ash"]
    rows = [{"prompt": t, "who": n, "teacher": "x"} for t, n in zip(texts, names, strict=True)]
    pq.write_table(pa.Table.from_pylist(tall), tmp_path / "tall.parquet")
    live = [{"model": str(chatter), "name": name, "max_new_tokens": 4} for name in ("chat", "idle")]
    answers = str(tmp_path / "tall.parquet")
    found = ask(asking(tmp_path, rows, teachers=live, answers=answers), tmp_path / "run")
    samples = pq.read_table(tmp_path / "run" / artifacts.SAMPLES).to_pylist()
    assert {row["instruction"]: row["teacher"] for row in samples} == dict(
        zip(texts, names, strict=True)
    )
    assert len(samples) == 6 and {p["teacher"] for p in found["points"]} == {*names}
    told = capsys.readouterr().err
    assert "14 of 18 recorded answers are not by whom the column 'who' names" in told
    assert "idle is not asked" in told
