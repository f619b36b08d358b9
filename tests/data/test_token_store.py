"""Signals of tokens on disk: where they lie, what rounding costs, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from preceptor.core.errors import RunFolderError
from preceptor.data.token_store import DTYPES, TokenStore, gather, read_tokens

LENGTHS = np.array([2, 1, 3])


def test_sequences_lie_in_order_whatever_the_order_of_writing(tmp_path):
    with TokenStore(tmp_path, LENGTHS, ("nll", "rank")) as store:
        assert store.starts.tolist() == [0, 2, 3, 6]
        store.write(
            np.array([2, 0]),
            {"nll": np.array([1.0, 2, 3, 4, 5]), "rank": np.array([1, 2, 3, 4, 70_000])},
        )
        store.write(np.array([1]), {"nll": np.array([9.0]), "rank": np.array([8])})
    assert read_tokens(tmp_path, "nll").tolist() == [4, 5, 9, 1, 2, 3]
    assert read_tokens(tmp_path, "rank").tolist() == [4, 65_535, 8, 1, 2, 3]


def test_bytes_a_token(tmp_path):
    TokenStore(tmp_path, np.array([1000]), tuple(DTYPES)).close()
    sizes = {file.stem: file.stat().st_size - 128 for file in tmp_path.iterdir()}
    assert sizes == {"nll": 4000, "rank": 2000, "entropy": 2000, "brier": 2000}


def test_what_was_written_is_there_when_opened_again(tmp_path):
    with TokenStore(tmp_path, LENGTHS, ("nll",)) as store:
        store.write(np.array([1]), {"nll": np.array([0.1])})
    with TokenStore(tmp_path, LENGTHS, ("nll",)) as store:
        store.write(np.array([0]), {"nll": np.array([0.2, 0.3])})
    np.testing.assert_allclose(read_tokens(tmp_path, "nll")[:3], [0.2, 0.3, 0.1], rtol=1e-6)


def test_files_of_another_run_are_refused(tmp_path):
    TokenStore(tmp_path, LENGTHS, ("nll",)).close()
    with pytest.raises(RunFolderError, match="of another run") as refused:
        TokenStore(tmp_path, LENGTHS + 1, ("nll",))
    assert "6 numbers, 9 are expected" in str(refused.value)


def test_a_place_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "tokens").write_text("a file")
    with pytest.raises(RunFolderError, match="cannot be written"):
        TokenStore(tmp_path / "tokens", LENGTHS, ("nll",))


def test_a_full_disk_is_one_error_before_anything_is_measured():
    place = Path("/dev/full/tokens")
    with pytest.raises(RunFolderError, match="cannot be written"):
        TokenStore(place, LENGTHS, ("nll",))


def test_pickles_are_not_read(tmp_path):
    np.save(tmp_path / "nll.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_tokens(tmp_path, "nll")


def test_gather_takes_runs_one_after_the_other():
    values = np.arange(10)
    found = gather(values, np.array([7, 0, 3]), np.array([2, 1, 3]))
    assert found.tolist() == [7, 8, 0, 3, 4, 5]
