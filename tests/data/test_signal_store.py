"""The store on disk: whole or not at all, checked when read, resumed without a trace."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.core.errors import DataError, RunFolderError
from preceptor.data import signal_store
from preceptor.data.rendering import Rendered
from preceptor.data.signal_store import (
    Arrays,
    StoreReader,
    data_fingerprint,
    ids_hash,
    open_writer,
    plan_shards,
)

N_POSITIONS = [3, 1, 4, 2, 5, 1, 2]  # of seven samples
SHARDS = [range(2), range(2, 3), range(3, 4), range(4, 5), range(5, 7)]
PLAN = {"kind": "top_k", "k": 2, "temperature": 1.0, "samples": 7}
COMMAND = "preceptor cache cache.yaml --out signals"


def top_k_arrays(numbers: range) -> Arrays:
    offset_S = np.cumsum([0, *(N_POSITIONS[number] for number in numbers)])
    n = int(offset_S[-1])
    rng = np.random.default_rng(numbers.start)
    return {
        "hash_S": np.array([ids_hash([number, 7]) for number in numbers], np.uint64),
        "offset_S": offset_S.astype(np.int64),
        "ids_PJ": rng.integers(0, 60000, (n, 2)).astype(np.uint16),
        "log_p_PJ": -rng.random((n, 2)).astype(np.float16),
        "log_tail_P": -rng.random(n).astype(np.float32),
    }


def sampled_arrays(numbers: range) -> Arrays:
    offset_S = np.cumsum([0, *(N_POSITIONS[number] for number in numbers)])
    rng = np.random.default_rng(numbers.start)
    count_P = rng.integers(1, 5, int(offset_S[-1]))
    return {
        "hash_S": np.array([ids_hash([number, 7]) for number in numbers], np.uint64),
        "offset_S": offset_S.astype(np.int64),
        "ids_E": rng.integers(0, 100_000, int(count_P.sum())).astype(np.uint32),
        "weights_E": rng.random(int(count_P.sum())).astype(np.float32),
        "count_P": count_P.astype(np.uint16),
        "entropy_P": rng.random(len(count_P)).astype(np.float32),
        "entry_S": np.concatenate(([0], np.cumsum(count_P)))[offset_S].astype(np.int64),
    }


def write(folder: Path, make: Any = top_k_arrays, plan: Mapping[str, Any] = PLAN) -> list[int]:
    """Write what is still to be written; the numbers of those shards."""
    with open_writer(folder, plan, SHARDS, COMMAND) as writer:
        todo = writer.todo()
        for number in todo:
            writer.add(number, make(SHARDS[number]))
        writer.finish()
    return todo


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_consecutive_samples_up_to_the_limit() -> None:
    assert plan_shards(N_POSITIONS, 4) == SHARDS  # 3+1 | 4 | 2 | 5 alone, above the limit | 1+2
    assert plan_shards(N_POSITIONS, 100) == [range(7)]
    assert plan_shards([], 4) == []


def test_hashes_are_of_the_ids_as_little_endian_int32() -> None:
    wanted = hashlib.blake2b(b"\x05\0\0\0\x00\x01\0\0", digest_size=8).digest()
    assert ids_hash([5, 256]) == int.from_bytes(wanted, "little")
    assert ids_hash(array("i", [5, 256])) == ids_hash(np.array([5, 256]))
    assert ids_hash([256, 5]) != ids_hash([5, 256])


def test_the_data_fingerprint_sees_ids_seams_and_order() -> None:
    one, two = Rendered(array("i", [1, 2, 3]), 1), Rendered(array("i", [4, 5]), 1)
    prints = {
        data_fingerprint(samples)
        for samples in (
            [one, two],
            [two, one],
            [one],
            [Rendered(one.ids, 2), two],
            [Rendered(array("i", [1, 2]), 1), Rendered(array("i", [3, 4, 5]), 1)],
        )
    }
    assert len(prints) == 5
    assert data_fingerprint([Rendered(array("i", [1, 2, 3]), 1), two]) in prints


@pytest.mark.parametrize("make", [top_k_arrays, sampled_arrays])
def test_what_was_written_is_read(make: Any, tmp_path: Path) -> None:
    write(tmp_path, make)
    reader = StoreReader(tmp_path)
    for number in (6, 0, 3, 5, 1, 4, 2):
        numbers = next(shard for shard in SHARDS if number in shard)
        wanted, place = make(numbers), number - numbers.start
        low, high = wanted["offset_S"][place : place + 2]
        found = reader.sample(number)
        assert found.ids_hash == ids_hash([number, 7])
        assert found.n_positions == N_POSITIONS[number]
        for name, array_ in found.arrays.items():
            a, b = (low, high) if name[-1] != "E" else wanted["entry_S"][place : place + 2]
            if name[-1] == "J":
                assert array_.shape == (N_POSITIONS[number], 2)
            np.testing.assert_array_equal(array_, wanted[name][a:b])
            assert array_.dtype != np.float16
        assert set(found.arrays) == set(wanted) - {"hash_S", "offset_S", "entry_S"}


def test_store_json_says_what_the_store_is(tmp_path: Path) -> None:
    write(tmp_path)
    facts = json.loads((tmp_path / "store.json").read_text())
    assert {name: facts[name] for name in PLAN} == PLAN
    assert facts["format"] == 1 and facts["positions"] == sum(N_POSITIONS)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [shard["file"] for shard in facts["shards"]] == [file.name for file in files]
    assert [shard["samples"] for shard in facts["shards"]] == [[s.start, s.stop] for s in SHARDS]
    for shard, file in zip(facts["shards"], files, strict=True):
        assert shard["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    total = sum(file.stat().st_size for file in files)
    assert facts["bytes_per_token"] == round(total / sum(N_POSITIONS), 2)
    assert set(content(tmp_path)) == {"store.json", *(file.name for file in files)}


@pytest.mark.parametrize("place", [3, 20, 200, -200, -2])  # length, header and arrays
def test_a_flipped_byte_is_detected_when_the_shard_is_opened(place: int, tmp_path: Path) -> None:
    write(tmp_path)
    before = content(tmp_path)
    damaged = tmp_path / "000003.safetensors"
    flipped = bytearray(before[damaged.name])
    flipped[place] ^= 4
    damaged.write_bytes(flipped)
    reader = StoreReader(tmp_path)
    assert reader.sample(0).n_positions == 3  # of a whole shard
    with pytest.raises(DataError, match="damaged") as caught:
        reader.sample(4)
    assert caught.value.where == str(damaged)
    assert "write the store again: only this shard" in caught.value.next_step
    damaged.unlink()  # as the message says
    with pytest.raises(DataError, match="cannot be read"):
        StoreReader(tmp_path).sample(4)
    assert write(tmp_path) == [3]
    assert content(tmp_path) == before


def test_an_unfinished_store_is_refused_with_the_command_that_finishes_it(tmp_path: Path) -> None:
    with open_writer(tmp_path, PLAN, SHARDS, COMMAND) as writer:
        writer.add(0, top_k_arrays(SHARDS[0]))
    with pytest.raises(DataError, match="not finished") as caught:
        StoreReader(tmp_path)
    assert caught.value.next_step == f"finish it: {COMMAND}"
    assert "1 shards" in caught.value.found
    assert write(tmp_path) == [1, 2, 3, 4]
    assert StoreReader(tmp_path).sample(6).n_positions == 2


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no signal store"):
        StoreReader(tmp_path)


def test_resuming_trusts_only_what_its_record_confirms(tmp_path: Path) -> None:
    write(tmp_path / "whole")
    folder = tmp_path / "torn"
    with open_writer(folder, PLAN, SHARDS, COMMAND) as writer:
        for number in range(4):
            writer.add(number, top_k_arrays(SHARDS[number]))
    (folder / "000001.json").unlink()  # killed between the shard and its record
    torn = folder / "000002.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])  # a disk that lied
    (folder / ".000004.safetensors.1.tmp").write_bytes(b"half")  # killed while writing
    assert write(folder) == [1, 2, 4]
    assert content(folder) == content(tmp_path / "whole")


def test_a_finished_store_is_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path)
    before = content(tmp_path)
    assert write(tmp_path) == []
    assert content(tmp_path) == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_plan_is_refused_naming_both_sides(finished: bool, tmp_path: Path) -> None:
    with open_writer(tmp_path, PLAN, SHARDS, COMMAND) as writer:
        for number in range(len(SHARDS)):
            writer.add(number, top_k_arrays(SHARDS[number]))
        if finished:
            writer.finish()
    before = content(tmp_path)
    with pytest.raises(RunFolderError, match="something else") as caught:
        write(tmp_path, plan={**PLAN, "temperature": 2.0})
    assert caught.value.found == "temperature: 1.0 then, 2.0 now"
    assert content(tmp_path) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunFolderError, match="no signal store") as caught:
        write(tmp_path)
    assert caught.value.found == "thesis.tex"
    assert set(content(tmp_path)) == {"thesis.tex"}


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with open_writer(tmp_path, PLAN, SHARDS, COMMAND), pytest.raises(RunFolderError, match="other"):
        write(tmp_path)


def test_a_sample_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    for number in (7, -1):
        with pytest.raises(DataError, match="does not hold this sample") as caught:
            StoreReader(tmp_path).sample(number)
        assert caught.value.found == f"sample {number}, the store holds 0 to 6"


def test_another_format_or_a_broken_record_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    known = tmp_path / "store.json"
    known.write_text(known.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(DataError, match="another format") as caught:
        StoreReader(tmp_path)
    assert caught.value.found == "format 99, this version reads 1"
    for text in ("{", "[]"):
        known.write_text(text)
        with pytest.raises(DataError, match="a file of the signal store"):
            StoreReader(tmp_path)


def test_only_a_few_shards_stay_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_store, "OPEN_SHARDS", 2)
    write(tmp_path)
    reader = StoreReader(tmp_path)

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path))

    assert mapped() == 0  # nothing is opened before it is asked for
    for number in (0, 2, 3, 4, 6, 0):
        assert reader.sample(number).n_positions == N_POSITIONS[number]
        assert 1 <= mapped() <= 2
