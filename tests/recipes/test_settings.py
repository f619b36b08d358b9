"""Settings files: paths, overrides, and one clear error for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from preceptor.core.errors import SettingsError
from preceptor.recipes.settings.asking import Ask, Decodings, Export, ExportSet
from preceptor.recipes.settings.benchmarks import (
    AlpacaEval,
    ArenaHard,
    LabTest,
    LmEval,
    MTBench,
    Opponent,
    OwnBenchmark,
    Verifiable,
)
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.pilot import Pilot
from preceptor.recipes.settings.race import Race
from preceptor.recipes.settings.rewards import (
    Baseline,
    ColumnReward,
    JudgeReward,
    ModelReward,
    OwnReward,
    PairwiseLogprobReward,
    PairwiseReward,
    VerifierReward,
)
from preceptor.recipes.settings.select import Select, TeacherFacts
from preceptor.recipes.settings.shared import (
    Columns,
    Fleet,
    OpenAITeacher,
    OwnTeacher,
    Source,
    TransformersTeacher,
    VllmTeacher,
    model_location,
    model_name,
)
from preceptor.recipes.settings.study import Arm, StudentSettings, Study

LEAST: dict[str, Any] = {"base": "some/model", "answers": "some/answers", "rewards": ["reward"]}
LIVE: dict[str, Any] = {
    "base": "some/model",
    "instructions": "lab:selection",
    "rewards": [{"kind": "verifier", "name": "right", "function": "lab"}],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "select.yaml"


def load(file: Path, tree: dict[str, Any], *overrides: str) -> Select:
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return load_settings(Select, file, overrides)


def refused(file: Path, tree: dict[str, Any], *overrides: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(file, tree, *overrides)
    return caught.value


def test_defaults(file: Path) -> None:
    settings = load(file, LEAST)
    assert settings.model_dump(mode="json") == {
        "base": "some/model",
        "answers": [
            {
                "path": "some/answers",
                "split": "train",
                "columns": dict.fromkeys(("instruction_id", "instruction", "teacher", "response")),
            }
        ],
        "instructions": None,
        "teachers": [],
        "rewards": [
            {
                "name": "reward",
                "map": "none",
                "scale": 1.0,
                "shift": 0.0,
                "kind": "column",
                "column": "",
                "low": None,
                "high": None,
            }
        ],
        "reference": None,
        "criteria": ["car", "mean_reward", "perplexity", "length"],
        "beta": 3.0,
        "betas": [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0],
        "loss_reduction": "answers",
        "criterion_options": {},
        "step_separator": "\n",
        "local_window": 0.25,
        "gradient_dim": 512,
        "teacher_facts": {},
        "base_family": None,
        "max_instructions": None,
        "min_paired_share": 0.5,
        "race": None,
        "by": None,
        "pilot": None,
        "confidence": 0.95,
        "resamples": 2000,
        "seed": 0,
        "device": "auto",
        "dtype": "auto",
        "batch_tokens": None,
        "trust_remote_code": False,
        "store": None,
        "fleet": {"kind": "here", "address": None, "workers": 1, "cpus": 1.0, "gpus": 0.0},
    }


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            Select,
            "answers base base_family batch_tokens beta betas by confidence criteria "
            "criterion_options device dtype fleet gradient_dim instructions local_window "
            "loss_reduction max_instructions min_paired_share pilot race reference resamples "
            "rewards seed step_separator store teacher_facts teachers trust_remote_code",
        ),
        (
            Ask,
            "answers batch_tokens confidence decodings device dtype fleet instructions "
            "max_instructions resamples rewards route_by seed store teachers trust_remote_code",
        ),
        (
            Evaluate,
            "answers benchmarks confidence device dtype fail_if fleet models reference resamples "
            "seed store trust_remote_code",
        ),
        (
            AlpacaEval,
            "baseline difficulty judge kind labels max_new_tokens max_questions name prompt "
            "questions recorded swap",
        ),
        (
            ArenaHard,
            "baseline judge kind labels max_new_tokens max_questions name prompt questions "
            "style_control version",
        ),
        (
            MTBench,
            "baseline judge kind labels max_new_tokens max_questions name prompt protocol "
            "questions",
        ),
        (
            Verifiable,
            "answer equality kind max_new_tokens max_questions name questions unconstrained",
        ),
        (
            LmEval,
            "batch_size chat_template fewshot include kind max_new_tokens max_questions name task",
        ),
        (LabTest, "kind max_new_tokens max_questions name"),
        (OwnBenchmark, "kind max_new_tokens max_questions name options"),
        (Opponent, "column model table"),
        (
            Study,
            "answers arms bases batch_tokens benchmarks budget confidence criteria_on decodings "
            "device dtype fleet instructions keep_models max_instructions outcome picks resamples "
            "rewards runs seed seeds selection store student teachers training trust_remote_code",
        ),
        (Arm, "recipe settings"),
        (StudentSettings, "batch_size kind temperature top_p"),
        (TeacherFacts, "family price size"),
        (Pilot, "batch_size finalists held_out instructions max_new_tokens seeds training"),
        (Race, "budget confidence first growth tokens"),
        (Decodings, "samples temperature top_p"),
        (Export, "form run seed sets system"),
        (ExportSet, "min_reward pick reward samples teacher temperature top_p"),
        (Source, "columns path split"),
        (Columns, "instruction instruction_id response teacher"),
        (
            TransformersTeacher,
            "batch_size continuous fleet kind max_new_tokens model name temperature top_p",
        ),
        (
            VllmTeacher,
            "adapter chunk fleet gpu_memory kind max_length max_new_tokens model name "
            "temperature tensor_parallel top_p",
        ),
        (
            OpenAITeacher,
            "batch_api concurrency key_env kind max_new_tokens model name options price "
            "requests_per_minute retries revision system temperature timeout tokens_per_minute "
            "top_p url",
        ),
        (OwnTeacher, "kind max_new_tokens model name options temperature top_p"),
        (Fleet, "address cpus gpus kind workers"),
        (ColumnReward, "column high kind low map name scale shift"),
        (VerifierReward, "function high kind low map name options scale shift"),
        (ModelReward, "high kind low map model name output scale shift"),
        (JudgeReward, "high kind low map name prompt reference scale shift teacher"),
        (PairwiseReward, "baseline kind map name prompt reference scale shift teacher"),
        (PairwiseLogprobReward, "baseline kind map name prompt reference scale shift teacher"),
        (Baseline, "column table teacher"),
        (OwnReward, "kind map name options scale shift"),
    ],
)
def test_the_names_of_settings_are_frozen(kind: Any, names: str) -> None:
    """A new setting is a decision: it needs a reason, a page in docs/ and a line here."""
    assert " ".join(sorted(kind.model_fields)) == names


def test_scale_and_shift_need_their_map() -> None:
    for settings in ({"scale": 2.0}, {"shift": 1.0, "map": "sigmoid"}):
        with pytest.raises(SettingsError, match="belong to the map `affine`") as refused:
            ColumnReward.model_validate({"name": "helpful", **settings})
        assert refused.value.where == "rewards: helpful"
    mapped = ColumnReward.model_validate({"name": "helpful", "map": "affine", "scale": 2.0})
    assert mapped.scale == 2.0


def test_the_settings_of_a_run_can_be_read_again(file: Path) -> None:
    """What a run folder keeps (`settings.yaml`) holds every default, and is a settings file."""
    settings = load(file, LIVE | {"teachers": ["lab:elm-m"], "race": {}})
    kept = file.with_name("settings.yaml")
    kept.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    assert load_settings(type(settings), kept) == settings


def test_overrides_replace(file: Path) -> None:
    settings = load(
        file,
        LEAST,
        "beta=1.5",
        "criteria=[car, length]",
        "rewards=[{column: score, name: right}]",
        "reference=other/model",
    )
    assert settings.beta == 1.5
    assert settings.criteria == ("car", "length")
    assert [(r.name, getattr(r, "column", None)) for r in settings.rewards] == [("right", "score")]
    assert settings.reference == "other/model"
    inner = load(file, LIVE | {"teachers": ["lab:elm-m"]}, "instructions={path: lab:test}")
    assert inner.instructions == Source(path="lab:test")
    nested = {**LIVE, "teachers": ["lab:elm-m"], "instructions": {"path": "lab:test"}}
    deep = load(file, nested, "instructions.columns.instruction=text", "instructions.split=dev")
    assert deep.instructions is not None
    assert (deep.instructions.columns.instruction, deep.instructions.split) == ("text", "dev")


def test_paths_start_at_the_file_and_overrides_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("there/data", "there/model", "here/data", "here/model"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "there" / "select.yaml"
    tree = {"base": "model", "answers": {"path": "./data"}, "rewards": ["r"], "reference": "model"}
    settings = load(file, tree, "reference=model")
    assert settings.base == str(tmp_path / "there" / "model")
    assert settings.answers[0].path == str(tmp_path / "there" / "data")
    assert settings.reference == str(tmp_path / "here" / "model")
    assert load(file, tree, "answers=[data]").answers[0].path == str(tmp_path / "here" / "data")
    assert load(file, tree | {"base": "hub/id"}).base == "hub/id"


def test_settings_are_frozen(file: Path) -> None:
    settings = load(file, LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        settings.beta = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.answers[0].path = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "name", "hint"),
    [
        ({"betta": 1}, "betta", "beta"),
        ({"teachers": [{"model": "lab:elm-m", "temprature": 1}]}, "teachers.0.temprature",
         "temperature"),
        ({"rewards": [{"name": "r", "mapp": 1}]}, "rewards.0.mapp", "map"),
        ({"rewards": ["a", {"kind": "verifier", "name": "r", "functon": "lab"}]},
         "rewards.1.functon", "function"),
        ({"answers": [{"path": "a/b", "colums": {}}]}, "answers.0.colums", "columns"),
        ({"answers": {"path": "a/b", "columns": {"respons": "x"}}}, "answers.0.columns.respons",
         "response"),
        ({"instructions": {"path": "lab:test", "spilt": "x"}}, "instructions.spilt", "split"),
    ],
)  # fmt: skip
def test_a_typo_names_the_nearest(file: Path, change: dict[str, Any], name: str, hint: str) -> None:
    error = refused(file, LEAST | change)
    assert error.what.startswith(f"unknown setting {name!r}")
    assert error.found == f"did you mean {hint!r}?"
    assert error.where == str(file)


def test_a_typo_in_an_override(file: Path) -> None:
    error = refused(file, LEAST, "confidense=0.9")
    assert error.what == "unknown setting 'confidense'"
    assert error.found == "did you mean 'confidence'?"


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"beta": -1}, "beta", "greater than or equal to 0, got -1"),
        ({"beta": float("nan")}, "beta", "finite number, got nan"),
        ({"beta": float("inf")}, "beta", "finite number, got inf"),
        ({"betas": [1, -2]}, "betas.1", "greater than or equal to 0, got -2"),
        ({"beta": "three"}, "beta", "unable to parse string as a number, got 'three'"),
        ({"confidence": 1}, "confidence", "less than 1"),
        ({"rewards": []}, "rewards", "at least 1 item"),
        ({"rewards": "reward"}, "rewards", "should be a list, got 'reward'"),
        ({"criteria": []}, "criteria", "at least 1 item"),
        ({"rewards": ["two words"]}, "rewards.0.name", "'two words'"),
        ({"rewards": [{"name": "r", "map": "log"}]}, "rewards.0.map", "'sigmoid'"),
        ({"teachers": [{"model": "m", "top_p": 0}]}, "teachers.0.top_p", "greater than 0"),
        ({"max_instructions": 1}, "max_instructions", "greater than or equal to 2"),
        ({"local_window": 0}, "local_window", "greater than 0"),
        ({"step_separator": ""}, "step_separator", "at least 1 character"),
        ({"gradient_dim": 0}, "gradient_dim", "greater than or equal to 1"),
        ({"teacher_facts": {"ash": {"size": 0}}}, "teacher_facts.ash.size", "greater than 0"),
        ({"loss_reduction": "mean"}, "loss_reduction", "'answers' or 'tokens', got 'mean'"),
    ],
)
def test_a_value_that_does_not_fit(
    file: Path, change: dict[str, Any], name: str, found: str
) -> None:
    error = refused(file, LEAST | change)
    assert error.what == f"the setting {name!r} cannot be used"
    assert found in error.found
    assert error.where == str(file)


@pytest.mark.parametrize("name", ["base", "rewards"])
def test_a_missing_setting(file: Path, name: str) -> None:
    error = refused(file, {key: value for key, value in LEAST.items() if key != name})
    assert error.what == f"the setting {name!r} is missing"
    assert error.next_step == f"add `{name}: ...`"


@pytest.mark.parametrize(
    ("tree", "what", "found"),
    [
        ({"base": "a/b", "rewards": ["r"]}, "there are no answers", "neither recorded"),
        (
            {"base": "a/b", "rewards": ["r"], "teachers": ["a/c"]},
            "live teachers have nothing to answer",
            "not set",
        ),
        (LEAST | {"rewards": ["r", "r"]}, "a name stands twice", "r"),
        (LEAST | {"criteria": ["car", "car"]}, "a name stands twice", "car"),
        (LIVE | {"teachers": ["lab:elm-m", "lab:elm-m"]}, "a name stands twice", "elm-m"),
        (
            LIVE | {"teachers": ["a/b", {"model": "lab:elm-m", "name": "a/b"}]},
            "a name stands twice",
            "a/b",
        ),
        (LEAST | {"rewards": [{"kind": "verifier", "function": "lab"}]}, "a name is missing", ""),
        (
            LEAST | {"rewards": [{"kind": "verifer", "name": "r"}]},
            "unknown reward 'verifer'",
            "did you mean 'verifier'?",
        ),
        (LEAST | {"base": "lab:base-note"}, "no such lab model", "did you mean 'base-notes'?"),
        (LEAST | {"answers": "lab:tset"}, "no such lab instruction set", "did you mean 'test'?"),
    ],
)
def test_settings_that_clash(file: Path, tree: dict[str, Any], what: str, found: str) -> None:
    error = refused(file, tree)
    assert error.what == what
    assert error.found.startswith(found)
    assert error.where and error.next_step


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"base": "./model"}, "model"),
        ({"base": "models/of/mine"}, "model"),
        ({"reference": "~/no-such-model"}, "model"),
        ({"answers": "answers.parquet"}, "file"),
        ({"answers": ["some/data", {"path": "more.jsonl"}]}, "file"),
    ],
)
def test_a_path_to_nothing(file: Path, change: dict[str, Any], kind: str) -> None:
    error = refused(file, LEAST | change)
    assert error.what == f"no such {kind}"
    assert error.found.startswith("nothing at /")
    assert "relative to that file" in error.next_step


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"base: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"", "holds no settings"),
        (b"- base\n", "holds no settings"),
    ],
)
def test_files_that_hold_no_settings(file: Path, content: bytes, what: str) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=what) as caught:
        load_settings(Select, file)
    assert caught.value.where == str(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SettingsError, match="the settings file cannot be read") as caught:
            load_settings(Select, path)
        assert "preceptor init" in caught.value.next_step


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("beta", "an override must be key=value"),
        ("=3", "an override must be key=value"),
        ("beta=[", "the value of an override is not valid YAML"),
        ("beta.x=3", "'beta' holds no names to override"),
        ("rewards.0.name=x", "'rewards' holds no names to override"),
    ],
)
def test_overrides_that_cannot_be_read(file: Path, override: str, what: str) -> None:
    error = refused(file, LEAST | {"beta": 3.0}, override)
    assert error.what == what
    assert error.next_step


def test_names_of_models(tmp_path: Path) -> None:
    assert model_name("lab:elm-m") == "elm-m"
    assert model_name(str(tmp_path / "mine")) == "mine"
    assert model_name("some/model") == "some/model"
    assert model_location("some/model") == "some/model"
    assert model_location("lab:elm-m").endswith("preceptor/lab/models/elm-m")
