"""The functions against the command line: the same settings, files and errors; and what is more."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

import preceptor
from preceptor.cli import app
from preceptor.core.criterion import Mean, Signals, criterion
from preceptor.core.errors import DataError, RunFolderError, SettingsError
from preceptor.core.run import open_run as begin
from preceptor.recipes.settings.select import Select
from preceptor.recipes.settings.training import Sft
from preceptor.recipes.verbs import select_settings

FILES = ("ranking.json", "answers.parquet", "signals.parquet")
DIVERGENCE = {"name": "forward_kl", "weight": 1.0, "temperature": 1.0}


@criterion(direction="higher", unit="reward", needs=("reward",))
def twice(signals: Signals, mean: Mean) -> np.ndarray:
    """Twice the mean reward. Range [0, inf); higher is better."""
    assert signals.reward_MN is not None
    return 2 * mean(signals.reward_MN)


def letters(instruction: str, response: str, row: dict[str, Any]) -> float:
    """A reward in [0, 1]: share of the alphabet's letters that occur."""
    return len(set(response.lower()) & set("abcdefghijklmnopqrstuvwxyz")) / 26


def typed(*words: str) -> str:
    """What a command prints; it must succeed."""
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path, rows: list[dict[str, Any]], least: dict[str, Any]) -> Path:
    """A settings file beside its answers."""
    write_jsonl(tmp_path / "answers.jsonl", rows)
    path = tmp_path / "select.yaml"
    path.write_text(yaml.safe_dump({**least, "answers": "answers.jsonl"}))
    return path


def test_the_command_and_the_function_write_the_same_files(file: Path, tmp_path: Path) -> None:
    """A keyword is an override; each finishes what the other began."""
    by_command, by_function = tmp_path / "command", tmp_path / "function"
    more = ["beta=1", "betas=[0, 1]", "criteria=[car, length]", "--by", "task"]
    typed("select", str(file), *more, "--out", str(by_command))
    found = preceptor.select(
        str(file), out=by_function, beta=1, betas=(0, 1), criteria=["car", "length"], by="task"
    )
    for name in (*FILES, "settings.yaml"):
        assert (by_command / name).read_bytes() == (by_function / name).read_bytes(), name
    assert found.raw == json.loads((by_command / "ranking.json").read_text())
    assert sorted(path.name for path in by_command.iterdir()) == sorted(
        path.name for path in by_function.iterdir()
    )
    again = preceptor.select(file, out=by_command, beta=1, betas=(0, 1), criteria=["car", "length"],
                             by="task")  # fmt: skip
    assert again.raw == found.raw


def test_the_recorded_command_makes_the_run_again(
    selected: preceptor.Selection, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also of tables in memory: they are kept in the folder."""
    words = shlex.split(selected.provenance["command"])
    assert words[:2] == ["preceptor", "select"]
    before = (selected.folder / "ranking.json").read_bytes()
    assert "recommended: cherry" in typed(*words[1:])
    assert (selected.folder / "ranking.json").read_bytes() == before
    list_of_inputs = list(selected.provenance["inputs"])
    assert list_of_inputs == [str(selected.folder / "in_memory" / "answers.parquet")]


def test_tables_in_memory_are_all_the_same(
    tmp_path: Path, rows: list[dict[str, Any]], least: dict[str, Any], selected: Any
) -> None:
    import datasets
    import pandas as pd

    table = pa.Table.from_pylist(rows)
    views = table.set_column(1, "generator", table["generator"].cast(pa.string_view()))
    given = {
        "pandas": pd.DataFrame(rows),
        "datasets": datasets.Dataset.from_list(rows),
        "arrow": table,
        "views": views,
        "mapping": {"path": pd.DataFrame(rows), "columns": {"response": "response"}},
    }
    for name, answers in given.items():
        out = tmp_path / name
        found = preceptor.select(least, answers=answers, out=out)
        assert found.raw == selected.raw, name
        assert pq.read_table(out / "in_memory" / "answers.parquet").num_rows == len(rows)


def test_a_folder_serves_one_table(
    tmp_path: Path, rows: list[dict[str, Any]], least: dict[str, Any], capsys: Any
) -> None:
    import pandas as pd

    out, answers = tmp_path / "run", pd.DataFrame(rows)
    (tmp_path / "empty").mkdir()
    with pytest.raises(preceptor.PreceptorError, match="the model cannot be opened"):
        preceptor.select(least, base=tmp_path / "empty", answers=answers[:60], out=out)
    preceptor.select(least, answers=answers, out=out)  # no run had begun: another table may come
    kept = out / "in_memory" / "answers.parquet"
    before = kept.read_bytes()
    capsys.readouterr()
    preceptor.select(least, answers=answers.copy(), out=out)
    assert "holds the finished run of these settings" in capsys.readouterr().err
    with pytest.raises(RunFolderError, match="belongs to other inputs") as caught:
        preceptor.select(least, answers=answers.assign(reward=0.5), out=out)
    assert caught.value.found == "another table"
    with pytest.raises(RunFolderError, match="belongs to other inputs") as caught:
        preceptor.select(least, answers=answers, instructions=answers, out=out)
    assert caught.value.found == "a run that was begun without this table"
    assert kept.read_bytes() == before
    assert [path.name for path in kept.parent.iterdir()] == ["answers.parquet"]


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, rows: list[dict[str, Any]], least: dict[str, Any]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds files that are no run"):
        preceptor.select(least, answers=rows, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_dry_run_plans_and_writes_nothing(
    tmp_path: Path, rows: list[dict[str, Any]], least: dict[str, Any], selected: Any
) -> None:
    out = tmp_path / "run"
    found = preceptor.select(least, answers=rows, out=out, dry_run=True)
    assert isinstance(found, preceptor.Plan) and found.fits and not out.exists()
    stages = found.to_pandas()
    assert len(stages) and max(stages["tokens"]) > 0
    assert list(stages.columns) == [
        "stage", "kind", "model", "items", "reused", "prompt_tokens", "generated_tokens", "tokens",
        "unit", "tokens_from", "rate", "seconds", "money", "memory_bytes",
    ]  # fmt: skip
    found.check()
    over = preceptor.select(least, answers=rows, out=selected.folder, dry_run=True)
    assert "holds the finished run" in over.raw["notes"][0]
    by_file = preceptor.plan(least, answers=str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert by_file.raw["recipe"] == "select" and by_file.raw["stages"] == found.raw["stages"]
    timed = preceptor.plan(least, answers=rows, rates={"measure": 1000.0})
    assert timed.seconds is not None and timed.seconds > 0


def test_options_of_select_are_the_settings_of_their_names() -> None:
    """`--pilot` and `--race` bring all defaults, and leave what the file says."""
    verifier = {"kind": "verifier", "name": "right", "function": "lab"}
    tree: dict[str, Any] = {"base": "some/model", "answers": "some/answers", "rewards": [verifier]}
    plain = select_settings(tree, "here")
    assert plain == Select.model_validate(tree) and plain.pilot is None
    with_pilot = select_settings(tree, "here", pilot=True, by="task")
    assert with_pilot.pilot is not None and with_pilot.pilot.finalists == 3
    assert with_pilot.by == "task" and tree.keys() == {"base", "answers", "rewards"}
    own = select_settings({**tree, "pilot": {"finalists": 2}}, "here", pilot=True)
    assert own.pilot is not None and own.pilot.finalists == 2
    with pytest.raises(SettingsError, match=r"'pilot\.finalists'"):
        preceptor.select(tree, pilot={"finalists": 1}, out="nowhere")
    with pytest.raises(SettingsError, match="race"):
        preceptor.select(tree, pilot=True, race=True, out="nowhere")


def refused(**settings: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        preceptor.select(out="nowhere", **settings)
    assert not Path("nowhere").exists()
    return caught.value


def test_mistakes_are_told_as_on_the_command_line(
    least: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = refused(**least, answers="some/answers", betta=2)
    assert str(wrong).splitlines()[:3] == [
        "unknown setting 'betta'", "  where: arguments", "  found: did you mean 'beta'?",
    ]  # fmt: skip
    assert "cannot be read" in refused_config(tmp_path / "missing.yaml").what
    assert (
        refused_config(Sft.model_validate({"base": "b/c", "data": {"answers": "a/b"}})).found
        == "Sft"
    )
    assert refused_config(7).found == "int"
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**least, "answers": "some/answers", "beta": 1}))
    inner: dict[str, Any] = {"beta.inner": 1}
    with pytest.raises(SettingsError, match="holds no names to override"):
        preceptor.select(file, out="nowhere", **inner)


def refused_config(config: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        preceptor.select(config, out="nowhere")
    return caught.value


def test_functions_are_named_by_their_module(
    least: dict[str, Any], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A function of a file is `module:function`; what no later run could import is refused."""
    reward = {"kind": "verifier", "name": "letters", "function": letters}
    settings = {**least, "criteria": [twice], "rewards": [reward]}
    found = preceptor.select(settings, answers=rows, out=tmp_path / "run")
    assert found.criteria == ["twice"]
    said = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert said["criteria"] == [f"{__name__}:twice"]
    assert said["rewards"][0]["function"] == f"{__name__}:letters"

    def inner(signals: Signals, mean: Mean) -> np.ndarray:
        return mean(signals.n_tokens_MN)

    for function in (inner, lambda signals, mean: None):
        wrong = refused(**(least | {"answers": rows, "criteria": [function]}))
        assert wrong.what == "this function has no name that a resumed run could import"
        assert wrong.where == "criteria.0" and "a file of its own" in wrong.next_step
    wrong = refused(**(least | {"answers": rows, "rewards": [letters]}))
    assert wrong.what == "a function alone does not say what kind of reward it is"


def test_values_of_other_kinds(
    least: dict[str, Any], rows: list[dict[str, Any]], base: Path
) -> None:
    """Numbers of NumPy, paths, and settings as objects."""
    import datasets

    split = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})
    with pytest.raises(DataError, match="not one table") as caught:
        preceptor.select(least, answers=split, out="nowhere", dry_run=True)
    assert caught.value.found == "DatasetDict"
    mixed = [{**row, "reward": "none" if n else 1.0} for n, row in enumerate(rows)]
    with pytest.raises(DataError, match="the table cannot be read"):
        preceptor.select(least, answers=mixed, out="nowhere", dry_run=True)
    settings = Select.model_validate({**least, "base": str(base), "answers": "some/answers"})
    found = preceptor.select(
        settings, out="nowhere", answers=rows, seed=np.int64(3), base=base, dry_run=True
    )
    assert isinstance(found, preceptor.Plan)


def test_training_and_evaluation_go_on_from_each_other(
    tiny_model: Callable[..., Path],
    chat_template: str,
    rows: list[dict[str, Any]],
    tmp_path: Path,
    pictures: Callable[[Any], bytes],
) -> None:
    pupil = tiny_model("pupil", chat_template=chat_template, seed=21)
    master = tiny_model("master", chat_template=chat_template, seed=22)
    asked = {
        "instructions": rows[::3],
        "reward": {"kind": "verifier", "name": "letters", "function": letters},
        "max_new_tokens": 6,
    }
    training = {"max_steps": 3, "batch_size": 8, "learning_rate": 0.01, "log_steps": 1}
    student = preceptor.distill(
        base=pupil, teacher=master, mix=0.5, losses=[DIVERGENCE], quality=asked,
        data={"answers": rows, "teacher": "cherry"}, training=training, out=tmp_path / "student",
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "student" / "in_memory").iterdir()) == [
        "data.answers.parquet", "quality.instructions.parquet",
    ]  # fmt: skip
    model, tokenizer = student.load("cpu")
    assert not model.training and tokenizer.chat_template == chat_template
    assert list(student.quality["model"]) == ["base", "KD"]
    assert list(student.metrics["step"]) == [1, 2, 3]
    losses: Any = student.plot("loss")
    quality: Any = student.plot()
    assert [line.get_label() for line in losses.lines] == ["next token", "divergence"]
    assert list(losses.lines[0].get_ydata()) == list(student.metrics["next_token"])
    assert [tick.get_text() for tick in quality.get_yticklabels()] == ["base", "KD"]
    assert min(len(pictures(losses)), len(pictures(quality))) > 5000
    with pytest.raises(SettingsError, match="no group 'some'"):
        student.plot("quality", group="some")
    lab = {"kind": "lab", "max_questions": 4, "max_new_tokens": 4}
    exam = preceptor.evaluate(
        models=[pupil, student], benchmarks=[lab], fail_if=["lab.reward < 2"], resamples=100,
        out=tmp_path / "exam",
    )  # fmt: skip
    assert exam.models == ["pupil", "student"] and not exam.passed
    assert list(exam.gate["fails"]) == [True]
    words = shlex.split(exam.provenance["command"])
    done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert done.exit_code == 1, "the recorded command keeps the gate"
    for folder, kind in (("student", preceptor.Training), ("exam", preceptor.Evaluation)):
        opened = preceptor.open_run(tmp_path / folder)
        assert isinstance(opened, kind) and opened.report.exists()
        assert opened._repr_html_() == (student if folder == "student" else exam)._repr_html_()


def test_asking(tiny_model: Callable[..., Path], chat_template: str, tmp_path: Path,
                rows: list[dict[str, Any]]) -> None:  # fmt: skip
    teacher = tiny_model("master", chat_template=chat_template, seed=22)
    found = preceptor.ask(
        instructions=rows[::3],
        teachers=[{"model": teacher, "max_new_tokens": 4}],
        decodings={"temperature": [0.0, 1.0], "samples": 2},
        rewards=[{"kind": "verifier", "name": "letters", "function": letters}],
        resamples=100,
        out=tmp_path / "asked",
    )
    assert len(found.samples) == found.raw["n_answers"] == 72
    assert list(found.points["temperature"]) == [0.0, 1.0]
    opened = preceptor.open_run(tmp_path / "asked")
    assert (
        repr(opened)
        == repr(found)
        == (f"Samples(folder='{tmp_path / 'asked'}', n_answers=72, n_instructions=24)")
    )


def test_comparing_criteria(selected: preceptor.Selection, tmp_path: Path) -> None:
    import pandas as pd

    outcomes = {"ash": 1.0, "beech": 2.0, "cherry": 3.0}
    table = pd.DataFrame({"teacher": outcomes.keys(), "outcome": outcomes.values()})
    found = preceptor.compare_criteria([selected], outcomes=table)
    assert found.folder is None and "car" in set(found.outcomes["criterion"])
    alone = preceptor.compare_criteria(selected, out=tmp_path / "compared")
    assert len(alone.outcomes) == 0 and len(alone.agreement) == 3
    assert preceptor.open_run(tmp_path / "compared").raw == alone.raw
    assert alone.report.name == "compare.html"
    with pytest.raises(RunFolderError, match="lacks a file"):
        _ = found.report
    kept = preceptor.compare_criteria([selected], outcomes=table, out=tmp_path / "compared")
    assert list(kept.raw["inputs"]) == [str(tmp_path / "compared/in_memory/outcomes.parquet")]
    with pytest.raises(DataError, match="a file or a table"):
        preceptor.compare_criteria([selected], outcomes=7)


def test_open_run(selected: preceptor.Selection, tmp_path: Path) -> None:
    opened = preceptor.open_run(selected)
    assert isinstance(opened, preceptor.Selection) and opened.raw == selected.raw
    with pytest.raises(RunFolderError, match="no folder that preceptor wrote"):
        preceptor.open_run(tmp_path)
    settings = {"base": "b", "criteria": ["car"]}
    identity: dict[str, Any] = {"settings": settings, "inputs": {}, "models": {}}
    with begin(tmp_path / "begun", identity, "preceptor select s.yaml --out begun"):
        pass
    with pytest.raises(RunFolderError, match="not finished") as caught:
        preceptor.open_run(tmp_path / "begun")
    assert caught.value.found == "a begun run of `select`"
    with begin(tmp_path / "cached", identity | {"settings": {"teacher": 1, "form": "top_k"}}, "x"):
        pass
    with pytest.raises(RunFolderError, match="no result class for a run of `cache`"):
        preceptor.open_run(tmp_path / "cached")
