"""The run folder's schemas, pinned literally, and writes that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError


def described(schema: pa.Schema) -> list[str]:
    return [f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema]


def test_file_names() -> None:
    assert (
        artifacts.SETTINGS,
        artifacts.ANSWERS,
        artifacts.SIGNALS,
        artifacts.RANKING,
        artifacts.REPORT,
        artifacts.PROVENANCE,
        artifacts.TOKENS,
        artifacts.WORK,
        artifacts.EVALUATION,
        artifacts.EXCHANGES,
        artifacts.MARKS,
        artifacts.JUDGEMENTS,
    ) == (
        "settings.yaml",
        "answers.parquet",
        "signals.parquet",
        "ranking.json",
        "report.html",
        "provenance.json",
        "tokens",
        "work",
        "evaluation.json",
        "exchanges.parquet",
        "marks.parquet",
        "judgements.parquet",
    )
    assert artifacts.RANKING_VERSION == 1


def test_schema_of_answers() -> None:
    assert described(artifacts.ANSWERS_SCHEMA) == [
        "instruction_id: string not null",
        "instruction: string not null",
        "teacher: string not null",
        "response: string not null",
        "finish_reason: string not null",
        "n_generated: int32",
    ]


def test_schema_of_quoted_tokens() -> None:
    assert artifacts.SAMPLE_TOKENS == "sample_tokens.parquet"
    assert described(artifacts.SAMPLE_TOKENS_SCHEMA) == [
        "instruction_id: string not null",
        "teacher: string not null",
        "piece: int32 not null",
        "text: string not null",
        "n_tokens: int32 not null",
        "nll: float not null",
        "rank: int32",
    ]


def test_schemas_of_an_evaluation() -> None:
    item = ["benchmark: string not null", "model: string not null", "item: string not null"]
    assert described(artifacts.EXCHANGES_SCHEMA) == [
        *item,
        "category: string not null",
        "turn: int32 not null",
        "prompt: string not null",
        "response: string not null",
        "finish_reason: string not null",
        "n_generated: int32",
    ]
    assert described(artifacts.MARKS_SCHEMA) == [
        *item,
        "category: string not null",
        "name: string not null",
        "value: double",
    ]
    assert described(artifacts.JUDGEMENTS_SCHEMA) == [
        *item,
        "turn: int32 not null",
        "first: bool not null",
        "preference: double",
        "length_gap: int64 not null",
        "reply: string not null",
    ]


def test_schema_of_signals() -> None:
    assert described(artifacts.signals_schema(["right", "kind"])) == [
        "teacher: string not null",
        "instruction_id: string not null",
        "n_tokens: int32 not null",
        "nll: double not null",
        "nll_unconditional: double",
        "n_tokens_reference: int32",
        "nll_reference: double",
        "nll_reference_unconditional: double",
        "truncated: bool not null",
        "reward.right: double not null",
        "reward.kind: double not null",
    ]


def test_schema_of_signals_with_all_that_criteria_may_need() -> None:
    others = [*artifacts.OPTIONAL_SIGNALS, "token_start"]
    features = ["feature.grace.leverage", "feature.own.n"]
    assert described(artifacts.signals_schema(["right"], False, others, features)) == [
        "teacher: string not null",
        "instruction_id: string not null",
        "n_tokens: int32 not null",
        "nll: double",
        "nll_unconditional: double",
        "n_tokens_reference: int32",
        "nll_reference: double",
        "nll_reference_unconditional: double",
        "n_question: int32",
        "nll_question: double",
        "entropy: double",
        "brier: double",
        "similarity_answer: double",
        "similarity_question: double",
        "local: double",
        "truncated: bool not null",
        "reward.right: double not null",
        "token_start: int64",
        "feature.grace.leverage: double not null",
        "feature.own.n: double not null",
    ]


def test_json_keeps_order_and_text(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", {"b": [1.5, None], "a": "β"})
    assert (tmp_path / "a.json").read_text("utf-8") == (
        '{\n  "b": [\n    1.5,\n    null\n  ],\n  "a": "β"\n}\n'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(tmp_path / "a.json", {"b": float("nan")})
    assert "β" in (tmp_path / "a.json").read_text("utf-8")


def test_a_table_comes_back(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2], "y": ["a", None]})
    artifacts.write_table(tmp_path / "a.parquet", table)
    assert pq.read_table(tmp_path / "a.parquet").equals(table)


def test_a_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    artifacts.write_bytes(tmp_path / "a", b"old")
    artifacts.write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_keeps_the_old_file_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()  # a file cannot take the place of a folder
    (tmp_path / "a" / "kept").touch()
    with pytest.raises(RunFolderError, match="a file cannot be written") as caught:
        artifacts.write_bytes(tmp_path / "a", b"new")
    assert caught.value.where == str(tmp_path / "a")
    assert caught.value.found and caught.value.next_step
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/kept"]
