"""Tasks of EleutherAI's harness: its own numbers, exactly, and what weights make of them.

The tasks are files made on the spot; the models are tiny and real.
"""

from __future__ import annotations

import importlib.util
import json
import math
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.benchmarks.eleuther.aggregates import (
    EXACT,
    Metric,
    Score,
    aggregated,
    marks_of,
    scored,
)
from preceptor.benchmarks.eleuther.tasks import harness, quietly
from preceptor.core.benchmark import Benchmark, Examinee, Graded, Marks
from preceptor.core.errors import DataError, ModelError, PreceptorError, SettingsError
from preceptor.core.types import Runtime
from preceptor.recipes.examining.examinees import open_benchmark
from preceptor.recipes.settings.benchmarks import BenchmarkSetting, LmEval

pytest.importorskip("lm_eval", reason="the harness is an extra: pip install 'preceptor[lm-eval]'")

WORDS = ("cat", "dog", "house", "garden", "sky", "sum", "one", "two")
CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{data}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
  - {{metric: brier_score, aggregation: brier_score, higher_is_better: false}}
  - {{metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}}
"""
WRITE = """
task: tiny_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/write.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 8, do_sample: false}}
filter_list:
  - name: first
    filter: [{{function: take_first}}]
  - name: letters
    filter:
      - {{function: regex, regex_pattern: "([A-Za-z])"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
TEXTS = """
task: tiny_texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/texts.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
"""
LAST = """
task: tiny_last
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/last.jsonl}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
GROUP = """
group: tiny_group
task:
  - tiny_choice
  - group: tiny_inner
    task: [tiny_other]
    aggregate_metric_list: [{metric: acc, weight_by_size: true}]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
  - {metric: acc_norm, weight_by_size: false}
"""
ALL = "group: tiny_all\ntask: [tiny_write, tiny_texts, tiny_last]\n"
REMOTE = """
task: tiny_remote
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/write.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: a_metric_of_the_hub, aggregation: mean, higher_is_better: true}}]
"""
UNSAFE = "unsafe_code: true\n"


def rows_of(n: int, start: int) -> list[dict[str, Any]]:
    """Questions with three choices, an answer and a text each."""
    found = []
    for number in range(start, start + n):
        choices = [
            f" {WORDS[(number + k) % 8]}{' and more' * ((number + k) % 2)}" for k in (0, 3, 5)
        ]
        found.append(
            {
                "question": f"Where is the {WORDS[number % 8]}?",
                "choices": choices,
                "label": number % 3,
                "answer": choices[number % 3],
                "text": f"The {WORDS[number % 8]} is in the house.\nIt is {number}.",
            }
        )
    return found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of tasks with their data; what `datasets` caches stays beside it."""
    import datasets.config

    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in {
        "choice": rows_of(9, 0),
        "other": rows_of(4, 20),
        "write": rows_of(5, 3),
        "texts": rows_of(4, 7),
        "last": rows_of(6, 1),
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {
        "choice": CHOICE.format(name="tiny_choice", data="choice", folder=folder),
        "other": CHOICE.format(name="tiny_other", data="other", folder=folder),
        "write": WRITE.format(folder=folder),
        "texts": TEXTS.format(folder=folder),
        "last": LAST.format(folder=folder),
        "group": GROUP,
        "all": ALL,
        "remote": REMOTE.format(folder=folder),
        "unsafe": WRITE.format(folder=folder).replace("tiny_write", "tiny_unsafe") + UNSAFE,
        "imported": WRITE.format(folder=folder).replace("tiny_write", "tiny_imported")
        + "process_results: !function of_the_hub.grade\n",
        "lost": WRITE.format(folder=folder / "nowhere").replace("tiny_write", "tiny_lost"),
    }
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "of_the_hub.py").write_text(
        "import evaluate\n\ngrade = evaluate.load('nobody/metric').compute\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        # the harness's own call lists all that is installed with every result: seconds each time
        patch.setattr(harness("evaluator"), "add_env_info", lambda results: None)
        yield folder


def opened(tasks: Path, task: str, runtime: Runtime | None = None, **setting: Any) -> Benchmark:
    whole = {"kind": "lm_eval", "task": task, "include": str(tasks), "batch_size": 4, **setting}
    return open_benchmark(LmEval.model_validate(whole), runtime or Runtime("cpu"))


def asked(tasks: Path, task: str, model: Path, **options: Any) -> Mapping[str, Any]:
    """What the harness itself says, with the model loaded its own way."""
    with quietly():
        manager = harness("tasks").TaskManager(include_path=str(tasks), include_defaults=False)
        wrapped = harness("models.huggingface").HFLM(
            pretrained=str(model), device="cpu", dtype="float32", batch_size=4
        )
        return harness("evaluator").simple_evaluate(
            model=wrapped, tasks=[task], task_manager=manager, bootstrap_iters=0, **options
        )


def points(benchmark: Benchmark, grades: Graded, *weights: Sequence[float]) -> dict[str, Any]:
    weight_RN = np.array(weights or [[1.0] * len(grades.marks.keys)], dtype=np.float64)
    found = benchmark.score({"base": grades.marks})("base", weight_RN)
    return {name: value_R[0] if not weights else value_R for name, value_R in found.items()}


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def test_a_group_on_a_fleet_is_as_the_harness_has_it(
    tasks: Path, base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything a worker needs, and gives, can be pickled; nothing is asked of the network."""
    called: list[Any] = []
    connect = socket.socket.connect

    def noted(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            called.append(address)
        connect(self, address)

    def pickling(open_worker: Callable[[], Any], groups: Sequence[Any]) -> Iterator[Any]:
        work = pickle.loads(pickle.dumps(open_worker))()
        for number, group in enumerate(groups):
            yield number, pickle.loads(pickle.dumps(work(group)))

    monkeypatch.setattr(socket.socket, "connect", noted)
    benchmark = opened(tasks, "tiny_group", Runtime("cpu", fleet=pickling))
    inner = "tiny_group::tiny_inner"
    assert [measure.name for measure in benchmark.measures] == [
        *("acc", "acc_norm", f"{inner}/acc"),
        *("tiny_choice/brier_score", "tiny_choice/mcc", "tiny_other/brier_score", "tiny_other/mcc"),
    ]
    grades = benchmark.grade(Examinee("base", str(base)), [])
    assert called == []
    assert capsys.readouterr() == ("", "")  # a worker elsewhere has no screen
    whole = asked(tasks, "tiny_group", base)["results"]
    found = points(benchmark, grades)
    assert found["acc"] == close(whole["tiny_group"]["acc,none"])
    assert found["acc_norm"] == close(whole["tiny_group"]["acc_norm,none"])
    assert found[f"{inner}/acc"] == close(whole[inner]["acc,none"])
    for task in ("tiny_choice", "tiny_other"):
        assert found[f"{task}/brier_score"] == close(whole[task]["brier_score,none"])
        assert found[f"{task}/mcc"] == close(whole[task]["mcc,none"])
        own_N = [float(category == task) for category in grades.marks.categories]
        assert points(benchmark, grades, own_N)["acc_norm"] == close(whole[task]["acc_norm,none"])
    assert len(set(found.values())) > 4  # the numbers are not all alike
    assert grades.marks.keys[:2] == ("tiny_choice/0", "tiny_choice/1")
    assert grades.marks.categories == ("tiny_choice",) * 9 + ("tiny_other",) * 4
    assert benchmark.facts["items"] == {"tiny_choice": 9, "tiny_other": 4}
    items = {measure.name: measure.item for measure in benchmark.measures}
    assert items["acc"] == "acc" and items["acc_norm"] == "" and items["tiny_choice/mcc"] == ""
    assert grades.marks.values["acc"].mean() == close(found["acc"])


def test_answers_texts_and_last_words_are_as_the_harness_has_them(
    tasks: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group without aggregates: each task has its own measures. Ours is the only progress."""
    benchmark = opened(tasks, "tiny_all")
    capsys.readouterr()
    grades = benchmark.grade(Examinee("base", str(base)), [])
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("base (lm_eval:tiny_all): ") for line in lines)
    assert sum("requests" in line for line in lines) == 3
    whole = asked(tasks, "tiny_all", base)["results"]
    found = points(benchmark, grades)
    wanted = {
        "tiny_write/exact_match,first": whole["tiny_write"]["exact_match,first"],
        "tiny_write/exact_match,letters": whole["tiny_write"]["exact_match,letters"],
        "tiny_texts/word_perplexity": whole["tiny_texts"]["word_perplexity,none"],
        "tiny_texts/bits_per_byte": whole["tiny_texts"]["bits_per_byte,none"],
        "tiny_last/acc": whole["tiny_last"]["acc,none"],
        "tiny_last/perplexity": whole["tiny_last"]["perplexity,none"],
    }
    assert list(found) == list(wanted)
    assert found == {name: close(value) for name, value in wanted.items()}
    directions = {own.name: own.direction for own in benchmark.measures}
    assert directions["tiny_texts/bits_per_byte"] == directions["tiny_last/perplexity"] == "lower"
    assert directions["tiny_last/acc"] == "higher"
    ends = {own.name: (own.low, own.high) for own in benchmark.measures}
    assert ends["tiny_last/acc"] == (0, 1) and ends["tiny_last/perplexity"] == (1, math.inf)


def test_settings_reach_the_harness(tasks: Path, chatter: Path) -> None:
    """Few-shot examples, the chat template, the first items, and the longest answer."""
    benchmark = opened(tasks, "tiny_choice", fewshot=1, chat_template=True, max_questions=5)
    assert [measure.name for measure in benchmark.measures][:2] == ["acc_norm", "acc"]
    grades = benchmark.grade(Examinee("chatter", str(chatter)), [])
    options = {"num_fewshot": 1, "apply_chat_template": True, "limit": 5}
    results = asked(tasks, "tiny_choice", chatter, **options)
    found = points(benchmark, grades)
    for name in ("acc", "acc_norm", "brier_score", "mcc"):
        assert found[name] == close(results["results"]["tiny_choice"][f"{name},none"])
    assert grades.marks.categories == ("",) * 5
    plain = asked(tasks, "tiny_choice", chatter, limit=5)["results"]["tiny_choice"]
    assert plain["brier_score,none"] != close(found["brier_score"])  # they do change it
    assert opened(tasks, "tiny_choice").fingerprint != benchmark.fingerprint
    assert opened(tasks, "tiny_choice").fingerprint == opened(tasks, "tiny_choice").fingerprint


def test_a_longer_answer_than_the_model_can_write_is_told(tasks: Path, base: Path) -> None:
    benchmark = opened(tasks, "tiny_write", max_new_tokens=500)
    with pytest.raises(ModelError, match="cannot run the task") as caught:
        benchmark.grade(Examinee("base", str(base)), [])
    assert "(500)" in caught.value.found and "base" in caught.value.where


def test_a_model_that_cannot_be_loaded_is_refused(tasks: Path, base: Path) -> None:
    benchmark = opened(tasks, "tiny_choice", chat_template=True)
    with pytest.raises(ModelError, match="no checkpoint to load") as caught:
        benchmark.grade(Examinee("api"), [])
    assert "behind a server, or recorded" in caught.value.found
    with pytest.raises(ModelError, match="no chat template"):
        benchmark.grade(Examinee("base", str(base)), [])


@pytest.mark.parametrize(
    ("task", "kind", "told"),
    [
        ("tiny_remote", SettingsError, "'a_metric_of_the_hub' of the library `evaluate`"),
        ("tiny_imported", DataError, "'nobody/metric' is code of the hub"),
        ("tiny_unsafe", SettingsError, "code that the model wrote"),
        ("tiny_lost", DataError, "cannot be loaded"),
    ],
)
def test_what_cannot_be_run_is_refused_at_opening(
    tasks: Path, task: str, kind: type[PreceptorError], told: str
) -> None:
    with pytest.raises(kind) as caught:
        opened(tasks, task)
    assert told in str(caught.value)
    assert caught.value.where and caught.value.found and caught.value.next_step


def test_the_harness_may_not_be_there(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "lm_eval" else find(name)
    )
    with pytest.raises(SettingsError, match="needs EleutherAI's harness") as caught:
        opened(tasks, "tiny_choice")
    assert "lm_eval" in caught.value.found and "preceptor[lm-eval]" in caught.value.next_step


def test_the_short_form_of_the_setting() -> None:
    from pydantic import TypeAdapter

    setting: Any = TypeAdapter(BenchmarkSetting).validate_python("lm_eval:hellaswag")
    assert (setting.kind, setting.task) == ("lm_eval", "hellaswag")


def values_for(aggregation: str, rng: np.random.Generator, n: int) -> list[Any]:
    if aggregation == "brier_score":
        return [(int(rng.integers(3)), rng.dirichlet(np.ones(3))) for _ in range(n)]
    if aggregation in ("weighted_perplexity", "bits_per_byte"):
        return [(float(-20 * rng.random()), int(rng.integers(1, 30))) for _ in range(n)]
    if aggregation == "perplexity":
        return [float(-3 * rng.random()) for _ in range(n)]
    return [float(rng.integers(2)) for _ in range(n)]


@pytest.mark.parametrize("aggregation", EXACT)
def test_weights_are_what_repeated_items_are_to_the_harness(aggregation: str) -> None:
    rng = np.random.default_rng(len(aggregation))
    function = getattr(harness("api.metrics"), aggregation)
    values = values_for(aggregation, rng, 12)
    if aggregation == "nanmean":
        values[3] = float("nan")
    metric = Metric("t", "m", "none", aggregation, True)
    marks = marks_of(metric, values, float(function(values)))
    assert "m:whole" not in marks
    weight_RN = rng.integers(0, 4, size=(5, 12)).astype(np.float64)
    for weight_N, value in zip(weight_RN, aggregated(metric, marks, weight_RN), strict=True):
        repeated = [own for own, n in zip(values, weight_N, strict=True) for _ in range(int(n))]
        assert value == close(float(function(repeated)))


def test_a_number_that_weights_cannot_enter_has_a_point_alone() -> None:
    """Of an unknown aggregation, of items that are no numbers, and where our formula disagrees."""
    uneven_RN = np.array([[1.0] * 3, [2.0, 1.0, 0.0], [0.5] * 3])
    for aggregation, values in (
        ("", [1.0, 2.0, 3.0]),
        ("mean", ["a", "b", "c"]),
        ("mean", [1, 2, 4]),
    ):
        metric = Metric("t", "m", "none", aggregation, True)
        marks = marks_of(metric, values, 7.5)
        assert marks["m:whole"].tolist() == [7.5] * 3
        found = aggregated(metric, marks, uneven_RN)
        assert found == pytest.approx([7.5, math.nan, 7.5], nan_ok=True)
    broken = Metric("t", "m", "none", "mean", True)
    assert "m:whole" in marks_of(broken, [1.0, float("nan")], float("nan"))


@pytest.mark.parametrize("by_size", [True, False])
def test_tasks_of_a_group_are_weighted_as_the_harness_does(by_size: bool) -> None:
    """Task a has 1, 0, 0, 0; b has 1, 1; c lacks the metric: 3 of 6 items, or (1/4 + 1) / 2."""
    metrics = {(task, "acc"): Metric(task, "acc", "none", "mean", True) for task in "abc"}
    marks = {"acc": np.array([1.0, 0, 0, 0, 1, 1, np.nan])}
    rows = {"a": np.arange(4), "b": np.array([4, 5]), "c": np.array([6])}
    score = Score("acc", "acc", ("a", "b", "c"), by_size)
    weight_RN = np.array([[1.0] * 7, [1, 1, 0, 0, 0, 0, 5], [0, 0, 0, 0, 0, 0, 1]])
    found = scored(score, metrics, marks, rows, weight_RN)
    wanted = harness("api.metrics").aggregate_subtask_metrics([0.25, 1.0], [4, 2], by_size)
    assert wanted == (0.5 if by_size else 0.625)
    assert found == pytest.approx([wanted, 0.5, math.nan], nan_ok=True)


def test_marks_survive_without_what_a_model_lacks(tasks: Path) -> None:
    """Scores of marks that hold one task of two, as a table of another run may."""
    benchmark = opened(tasks, "tiny_group")
    values = {"acc": np.array([1.0, 0.0]), "acc_norm": np.array([1.0, 1.0])}
    part = Marks(("tiny_other/0", "tiny_other/1"), ("tiny_other",) * 2, values)
    found = benchmark.score({"x": part})("x", np.ones((1, 2)))
    assert found["acc"] == [0.5] and found["acc_norm"] == [1.0]
    assert np.isnan(found["tiny_choice/mcc"]).all()
