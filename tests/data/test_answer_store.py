"""The answer store: its columns and keys, faults in it, merging, and a plain look from DuckDB."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from preceptor.core.errors import DataError, RunFolderError
from preceptor.core.types import Decoding, Reply, Request, user_turn
from preceptor.data import answer_shards, answer_store
from preceptor.data.answer_shards import live_shards, worth_merging
from preceptor.data.answer_store import STORE_SCHEMA, AnswerStore, Part, part_name
from tests.data.store_child import IDENTITY, answer, questions


def price(n_prompt: int, n_generated: int) -> float:
    return 0.5 * n_prompt + n_generated


def put(part: Part, requests: list[Request]) -> list[str]:
    """Answer, store and commit; the keys."""
    keys = [request.key(part.identity) for request in requests]
    part.add(keys, requests, [answer(request) for request in requests], price)
    part.commit()
    return keys


def fill(folder: Path, shards: int, each: int = 2) -> list[str]:
    keys = []
    with AnswerStore(folder).part(IDENTITY) as part:
        for low in range(0, shards * each, each):
            keys += put(part, questions(low + each)[low:])
    return keys


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / part_name(IDENTITY)).glob("*.parquet"))


def test_columns_are_pinned() -> None:
    found = [f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in STORE_SCHEMA]
    assert [line.replace("element: ", "item: ") for line in found] == [
        "key: string not null",
        "teacher: string not null",
        "identity: string not null",
        "instruction_hash: string not null",
        "instruction: string not null",
        "messages: string not null",
        "temperature: double not null",
        "top_p: double not null",
        "max_new_tokens: int32 not null",
        "sample: int32 not null",
        "seed: int64 not null",
        "labels: list<item: string> not null",
        "response: string not null",
        "finish_reason: string not null",
        "n_prompt: int32",
        "n_generated: int32 not null",
        "logprob: double",
        "label_logprobs: list<item: double> not null",
        "cost: double not null",
    ]


def test_keys_are_pinned() -> None:
    """A key that changes orphans every answer that was ever paid for."""
    messages = (("system", "Be brief."), ("user", "Wie heißt du?"))
    sampled = Request(messages, Decoding(0.8, 0.95, 64), 3, 7, ("A", "B"))
    assert sampled.key(IDENTITY) == "c4aabee3f180bf2c54a2b6fe4ba259a6"
    assert (
        Request(messages, Decoding(0.0, 0.95, 64), 3, 7).key(IDENTITY)
        == "249fd0e8238eec09d298c4b92b73c7ac"
    )
    assert sampled.instruction_hash() == "c827f67247715732"
    assert sampled.seed == 1006709338
    assert part_name(IDENTITY) == "org-parrot-d31c2f223c0a"


def test_numbers_that_are_equal_make_one_key() -> None:
    def key(temperature: float, top_p: float, sample: int = 1, seed: int = 2) -> str:
        return Request(user_turn("x"), Decoding(temperature, top_p), sample, seed).key(IDENTITY)

    assert key(1, 1) == key(1.0, 1.0) == key(np.float64(1), np.float32(1))  # type: ignore[arg-type]
    assert key(1, 1, np.int64(1), np.int32(2)) == key(1, 1)  # type: ignore[arg-type]
    assert key(0, 1, 0, 0) == key(0.0, 0.5, 4, 5) == key(-0.0, 1)
    assert key(1, 0.5) != key(1, 1) != key(0.5, 1)


def test_whatever_an_answer_depends_on_is_in_its_key() -> None:
    greedy = Request(user_turn("x"))
    others = [
        Request(user_turn("y")),
        Request((("system", "x"),)),
        Request((("system", ""), ("user", "x"))),
        Request(user_turn("x"), Decoding(max_new_tokens=511)),
        Request(user_turn("x"), labels=("A", "B")),
        Request(user_turn("x"), labels=("B", "A")),
        Request(user_turn("x"), Decoding(0.1)),
        Request(user_turn("x"), Decoding(0.1), sample=1),
        Request(user_turn("x"), Decoding(0.1), run_seed=1),
        Request(user_turn("x"), Decoding(0.1), labels=("A",)),
    ]
    keys = [request.key(IDENTITY) for request in (greedy, *others)]
    keys += [greedy.key({**IDENTITY, "fingerprint": "commit:2"}), greedy.key({"model": "m"})]
    assert len(set(keys)) == len(others) + 3
    seeds = [request.seed for request in others if not request.decoding.greedy]
    assert len(set(seeds)) == len(seeds)


def test_a_row_is_what_was_asked_and_answered(tmp_path: Path) -> None:
    request = Request(
        (("system", "Be brief."), ("user", "é?")), Decoding(0.8, 0.9, 64), 3, 7, ("A", "B")
    )
    reply = Reply("A", "stop", 2, 11, -0.25, (-0.1, None))
    key = request.key(IDENTITY)
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        part.add([key], [request], [reply], price)
    assert AnswerStore(tmp_path).table().to_pylist() == [
        {
            "key": key,
            "teacher": "org/parrot",
            "identity": '{"fingerprint": "commit:1", "model": "org/parrot"}',
            "instruction_hash": request.instruction_hash(),
            "instruction": "é?",
            "messages": '[{"role": "system", "content": "Be brief."}, '
            '{"role": "user", "content": "é?"}]',
            "temperature": 0.8,
            "top_p": 0.9,
            "max_new_tokens": 64,
            "sample": 3,
            "seed": 7,
            "labels": ["A", "B"],
            "response": "A",
            "finish_reason": "stop",
            "n_prompt": 11,
            "n_generated": 2,
            "logprob": -0.25,
            "label_logprobs": [-0.1, None],
            "cost": 7.5,
        }
    ]
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        assert part.replies([key, "unknown"]) == {key: reply}


def test_replies_are_found_over_shards_and_row_groups(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(answer_shards, "ROW_GROUP", 16)
    keys = fill(tmp_path, 3, each=50)
    wanted = [keys[n] for n in (0, 15, 16, 49, 50, 149)]
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        assert pq.ParquetFile(live_shards(part.folder)[0].path).num_row_groups == 4
        found = part.replies(wanted)
    asked = questions(150)
    assert found == {keys[n]: answer(asked[n]) for n in (0, 15, 16, 49, 50, 149)}


def test_answers_do_not_wait_in_memory_for_the_next_ones(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(answer_store, "COMMIT_SECONDS", 0.01)
    request = questions(1)[0]
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        part.add([request.key(IDENTITY)], [request], [answer(request)], price)
        for _ in range(500):
            if live_shards(part.folder):
                break
            part._left.wait(0.01)
        assert AnswerStore(tmp_path).table(["instruction"]).num_rows == 1


def test_compaction_keeps_every_answer_and_drops_doubles(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(answer_shards, "SHARD_ROWS", 40)
    keys = fill(tmp_path, 30)
    before = AnswerStore(tmp_path).table()
    own = tmp_path / part_name(IDENTITY)
    shutil.copy(own / "00000004.parquet", own / "00000030.parquet")
    assert AnswerStore(tmp_path).table().num_rows == 60  # a key twice is read once
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        part.compact()
        assert set(part.replies(keys)) == set(keys)
    assert names(tmp_path) == ["00000000-00000019.parquet", "00000020-00000030.parquet"]
    assert sum(pq.read_metadata(path).num_rows for path in own.glob("*.parquet")) == 60
    assert AnswerStore(tmp_path).table().equals(before)
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        part.compact()
        put(part, questions(61)[60:])
    assert names(tmp_path)[2:] == ["00000031.parquet"]


def test_many_shards_are_merged_when_a_part_is_left(tmp_path: Path) -> None:
    fill(tmp_path, 64)
    assert len(names(tmp_path)) == 64
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        put(part, questions(129)[128:])
    assert names(tmp_path) == ["00000000-00000064.parquet"]
    assert AnswerStore(tmp_path).table(["instruction"])["instruction"].to_pylist() == [
        f"question {n}" for n in range(129)
    ]


def test_a_long_run_keeps_shards_few_by_levels(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(answer_shards, "MANY", 4)
    monkeypatch.setattr(answer_shards, "LEVELS", (4, 16, 64))
    counts, merges = [], 0
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        for n in range(60):
            put(part, questions(n + 1)[n:])
            due = worth_merging(live_shards(part.folder))
            merges += bool(due)
            answer_shards.merge(due)
            counts.append(len(live_shards(part.folder)))
    assert max(counts) < 3 * 4 and 15 <= merges < 24
    assert AnswerStore(tmp_path).table(["key"]).num_rows == 60


def test_what_a_merge_replaced_is_passed_over_and_then_removed(tmp_path: Path) -> None:
    keys = fill(tmp_path, 4)
    own = tmp_path / part_name(IDENTITY)
    kept = {path.name: path.read_bytes() for path in own.glob("*.parquet")}
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        part.compact()
    merged = own / "00000000-00000003.parquet"
    for name, content in kept.items():  # as if the merge was killed before it removed them
        (own / name).write_bytes(content)
    (own / ".00000009.parquet.1-x.tmp").touch()
    assert [shard.path for shard in live_shards(own)] == [merged]
    assert AnswerStore(tmp_path).table(["key"])["key"].to_pylist() == keys
    good, cut = merged.read_bytes(), merged.read_bytes()[:-20]
    merged.write_bytes(cut)
    with (
        pytest.raises(RunFolderError, match="cannot be read"),
        AnswerStore(tmp_path).part(IDENTITY),
    ):
        pass
    assert set(names(tmp_path)) == {*kept, merged.name}  # nothing goes while its heir is broken
    merged.write_bytes(good)
    with AnswerStore(tmp_path).part(IDENTITY) as part:
        assert set(part.replies(keys)) == set(keys)
    assert [path.name for path in own.iterdir() if path.suffix in (".parquet", ".tmp")] == [
        merged.name
    ]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "columns"])
def test_a_broken_shard_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    keys = fill(tmp_path, 3, each=20)
    shard = tmp_path / part_name(IDENTITY) / "00000001.parquet"
    content = bytearray(shard.read_bytes())
    if damage == "cut":
        content = content[:-30]
    elif damage == "flipped":
        response = pq.read_metadata(shard).row_group(0).column(12)
        assert response.path_in_schema == "response"
        content[response.dictionary_page_offset + response.total_compressed_size // 2] ^= 0xFF
    elif damage == "empty":
        content = bytearray()
    if damage == "columns":
        pq.write_table(pq.read_table(shard).drop_columns("logprob"), shard)
        content = bytearray(shard.read_bytes())
    shard.write_bytes(content)
    with (
        pytest.raises(RunFolderError, match="a shard of the answer store cannot be read") as caught,
        AnswerStore(tmp_path).part(IDENTITY) as part,
    ):
        part.replies(keys)
    assert caught.value.where == str(shard) and caught.value.found
    assert "restore it" in caught.value.next_step and "asked again" in caught.value.next_step
    with pytest.raises(RunFolderError, match="cannot be read"):
        AnswerStore(tmp_path).table()
    assert shard.read_bytes() == content and len(names(tmp_path)) == 3


def test_a_foreign_shard_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    stranger = tmp_path / part_name(IDENTITY) / "mine.parquet"
    stranger.write_bytes(b"")
    with pytest.raises(RunFolderError, match="no shard of its own") as caught:
        AnswerStore(tmp_path).table()
    assert caught.value.where == str(stranger)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    store = AnswerStore(tmp_path)
    with pytest.raises(RunFolderError, match="no answer store") as caught, store.part(IDENTITY):
        pass
    assert caught.value.found == "thesis.tex"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunFolderError, match="no answer store there"):
        store.table()
    with pytest.raises(RunFolderError, match="no answer store there"):
        AnswerStore(tmp_path / "nowhere").parts()


@pytest.mark.parametrize(
    "content", ['{"format": "preceptor answer store", "version": 2}', '{"version": 1}', "[]", "{"]
)
def test_a_store_of_another_version_is_refused(tmp_path: Path, content: str) -> None:
    fill(tmp_path, 1)
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(RunFolderError) as caught, AnswerStore(tmp_path).part(IDENTITY):
        pass
    assert caught.value.where == str(tmp_path / "store.json")
    with pytest.raises(RunFolderError):
        AnswerStore(tmp_path).parts()


def test_a_part_of_another_teacher_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    known = tmp_path / part_name(IDENTITY) / "teacher.json"
    known.write_text('{"identity": {"model": "org/macaw"}}')
    with (
        pytest.raises(RunFolderError, match="another teacher") as caught,
        AnswerStore(tmp_path).part(IDENTITY),
    ):
        pass
    assert caught.value.where == str(known) and "org/macaw" in caught.value.found


def test_a_table_of_chosen_columns_and_teachers(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    fill(tmp_path, 2)
    macaw = {"model": "org/macaw"}
    with store.part(macaw) as part:
        put(part, questions(1))
    assert sorted(store.parts().values(), key=len) == [macaw, IDENTITY]
    assert store.table().schema.equals(STORE_SCHEMA)
    assert sorted(store.table(["teacher"])["teacher"].to_pylist()) == ["org/macaw"] + 4 * [
        "org/parrot"
    ]
    only = store.table(["cost", "instruction"], part_name(macaw))
    assert only.to_pylist() == [{"cost": 4.0, "instruction": "question 0"}]
    with pytest.raises(DataError, match="no column 'respones'") as caught:
        store.table(["respones"])
    assert caught.value.found == "did you mean 'response'?"
    with pytest.raises(DataError, match="no teacher"):
        store.table(part="org-macaw")


def test_duckdb_reads_the_view_and_the_macro(tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "it's [a] store"
    fill(root, 3)
    own = root / part_name(IDENTITY)
    shutil.copy(own / "00000000.parquet", own / "00000003.parquet")
    connection = duckdb.connect()
    connection.execute((root / "view.sql").read_text())
    assert connection.sql("SELECT count(*), sum(cost) FROM answers").fetchall() == [(6, 24.0)]
    assert [column[0] for column in connection.sql("FROM answers").description] == list(
        STORE_SCHEMA.names
    )
    monkeypatch.chdir(tmp_path)
    root.rename(tmp_path / "moved")
    found = connection.sql("SELECT count(*) FROM answers_in('moved')").fetchall()
    assert found == [(6,)]
    raw = connection.sql("SELECT count(*) FROM read_parquet('moved/*/*.parquet')").fetchall()
    assert raw == [(8,)]
    fill(tmp_path / "moved", 1)  # opening it writes the view for the new place
    again = duckdb.connect()
    again.execute((tmp_path / "moved" / "view.sql").read_text())
    assert again.sql("SELECT count(*) FROM answers").fetchall() == [(6,)]
