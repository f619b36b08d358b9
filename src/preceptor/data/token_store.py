"""Numbers of every response token, in flat files that are read where they are needed.

One `.npy` file a signal (plain numbers, no pickle), sequence after sequence; whoever reads knows
where each begins. Nothing of them is in memory but what is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from preceptor.core.errors import RunFolderError

DTYPES = {  # bytes a token: 4, 2, 2, 2
    "nll": np.dtype("<f4"),
    "rank": np.dtype("<u2"),  # 65,535 means that or more
    "entropy": np.dtype("<f2"),
    "brier": np.dtype("<f2"),
}


class TokenStore:
    """Signals of the tokens of some sequences, which lie one after the other.

    Args:
        folder: made if missing.
        lengths: response tokens of each sequence.
        names: of the signals.
        dtypes: of each signal's numbers.

    Attributes:
        starts: where each sequence begins; int64, one more than there are sequences.

    Raises:
        RunFolderError: the files cannot be made (a full disk, say).
    """

    def __init__(
        self,
        folder: Path,
        lengths: np.ndarray,
        names: Sequence[str],
        dtypes: Mapping[str, np.dtype] = DTYPES,
    ) -> None:
        self.folder, self.dtypes = folder, dtypes
        self.starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        self._files = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                self._files[name] = self._open(name)
        except OSError as error:
            raise self._failure(error) from error

    def _open(self, name: str) -> tuple[int, int]:
        """Descriptor and where the numbers begin; room for all of them is taken now."""
        path, n = self.folder / f"{name}.npy", int(self.starts[-1])
        header = {"descr": self.dtypes[name].str, "fortran_order": False, "shape": (n,)}
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            with open(temporary, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                begin = file.tell()
                size = n * self.dtypes[name].itemsize
                if hasattr(os, "posix_fallocate"):  # not on macOS: a full disk shows later there
                    os.posix_fallocate(file.fileno(), begin, max(1, size))
                file.truncate(begin + size)
                os.fsync(file.fileno())
            temporary.replace(path)
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if found.shape != (n,) or found.dtype != self.dtypes[name]:
            raise RunFolderError(
                "a file of token signals is of another run",
                where=str(path),
                found=f"{found.shape[0]:,} numbers, {n:,} are expected",
                next_step="remove the folder; the models measure again",
            )
        return os.open(path, os.O_RDWR), found.offset

    def write(self, sequences: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Keep the signals of some sequences, which lie in `values` one after the other."""
        ends = np.cumsum(np.diff(self.starts)[sequences])
        for name, (descriptor, begin) in self._files.items():
            kept = _compact(values[name], self.dtypes[name])
            for sequence, part in zip(sequences, np.split(kept, ends[:-1]), strict=True):
                offset = begin + int(self.starts[sequence]) * kept.itemsize
                try:
                    os.pwrite(descriptor, part.tobytes(), offset)
                except OSError as error:
                    raise self._failure(error) from error

    def flush(self) -> None:
        """Everything written so far outlives a power cut."""
        for descriptor, _ in self._files.values():
            os.fsync(descriptor)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1][0])

    def __enter__(self) -> TokenStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _failure(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            "token signals cannot be written",
            where=str(self.folder),
            found=error.strerror or str(error),
            next_step="make room or mend the permissions; what was written before is kept",
        )


def _compact(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "u":
        return np.minimum(values, np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype)


def read_tokens(folder: Path, name: str) -> np.ndarray:
    """The numbers of one signal, mapped into memory, not read (raises RunFolderError)."""
    path = folder / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RunFolderError(
            "token signals cannot be read",
            where=str(path),
            found=str(error),
            next_step="run the selection again",
        ) from error


def gather(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The runs values[start : start + length], one after the other."""
    ends = np.cumsum(lengths)
    shift = np.repeat(starts - np.concatenate(([0], ends[:-1])), lengths)
    return values[np.arange(int(lengths.sum())) + shift]
