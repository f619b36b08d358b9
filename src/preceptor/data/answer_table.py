"""Many answers as columns: texts stay in Arrow, and only the rows of a batch become objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute

from preceptor.core.artifacts import ANSWERS_SCHEMA
from preceptor.core.types import Answer

_compute: Any = pyarrow.compute  # its functions are made at import and have no stubs
BLOCK = 16_384  # answers taken out at a time: bounds what is copied
_OBJECTS = 1024  # answers that are objects at a time
SPACE = (  # what `str.strip` strips
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
CODED = ("instruction_id", "instruction", "teacher", "finish_reason")
Rows = pa.Table | Sequence[Mapping[str, Any]]
"""Other columns of answers, as they came: a table, or a mapping an answer."""


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of texts that repeat: each distinct text once, and a number a row.

    Attributes:
        values: distinct texts (large_string, no nulls).
        codes: int32, place in `values`; -1 for null.
    """

    values: pa.Array
    codes: np.ndarray

    def at(self, places: np.ndarray) -> pa.Array:
        """The texts of these rows."""
        return self.values.take(pa.array(self.codes[places]))

    def texts(self) -> pa.Array:
        """The text of every row."""
        return self.values.take(pa.array(self.codes))


def canonical(values: pa.Array, codes: np.ndarray) -> Coded:
    """The column of these values and numbers, with every text once."""
    encoded = values.cast(pa.large_string()).dictionary_encode()
    number = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Coded(encoded.dictionary, np.append(number, -1).astype(np.int32)[codes])


def numbered(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """The distinct values of a column, and the number of each row's (-1 for null)."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    if not column.num_chunks:
        return pa.array([], column.type.value_type), np.empty(0, np.int32)
    codes = [
        chunk.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        for chunk in column.chunks
    ]
    return column.chunk(0).dictionary, np.concatenate(codes)


def encode(column: pa.ChunkedArray) -> Coded:
    """A column of texts (plain or by number) by its distinct values."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.large_string())
    return canonical(*numbered(column))


def constant(text: str, n: int) -> Coded:
    """A column of n rows that all hold the same text."""
    return Coded(pa.array([text], pa.large_string()), np.zeros(n, np.int32))


def join_coded(parts: Sequence[Coded]) -> Coded:
    """The columns one after the other, with every text once."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.values) for part in parts)])
    codes = [
        np.where(part.codes < 0, -1, part.codes + np.int64(start))
        for part, start in zip(parts, starts, strict=False)
    ]
    return canonical(pa.concat_arrays([part.values for part in parts]), np.concatenate(codes))


def gather(column: pa.ChunkedArray, places: np.ndarray) -> pa.Array:
    """The rows of a chunked column at `places`, in that order; only they are copied.

    (`ChunkedArray.take` lays all chunks together first.)
    """
    chunks = column.chunks
    if len(chunks) == 1:
        return chunks[0].take(pa.array(places))
    if not len(places):
        return pa.array([], column.type)
    starts = np.cumsum([0, *map(len, chunks)])[:-1]
    part = np.searchsorted(starts, places, side="right") - 1
    order = np.argsort(part, kind="stable")
    pieces = [
        chunks[number].take(pa.array(places[own] - starts[number]))
        for own in np.split(order, np.flatnonzero(np.diff(part[order])) + 1)
        for number in part[own[:1]]
    ]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(pieces).take(pa.array(back))


def is_blank(texts: pa.Array) -> np.ndarray:
    """Whether `str.strip` leaves nothing of each text (which must not be null)."""
    length = _compute.binary_length(_compute.utf8_trim(texts, characters=SPACE))
    return length.to_numpy(zero_copy_only=False) == 0


class Answers(Sequence[Answer]):
    """A sequence of answers that is held as columns.

    `answers[3]` and iteration give `Answer` objects, `answers[2:5]` and `answers.pick(places)`
    another view of the same columns; nothing is copied. Single answers are best asked for in
    order: with each come its neighbours, which are held until others are asked for.

    Args:
        coded: `teacher`, `instruction_id`, `instruction`, `finish_reason`.
        response: large_string.
        n_generated: int32, with nulls.
        rows: the answers' other columns, in parts that lie one after the other.
        index: which of the rows belong to the view, in its order; all of them when None.
    """

    def __init__(
        self,
        coded: Mapping[str, Coded],
        response: pa.ChunkedArray,
        n_generated: pa.ChunkedArray,
        rows: Sequence[Rows],
        index: np.ndarray | None = None,
    ) -> None:
        self._coded, self._response, self._n_generated = dict(coded), response, n_generated
        self._rows = tuple(rows)
        self._starts = np.cumsum([0, *map(len, self._rows)])[:-1]
        self._index = np.arange(len(response)) if index is None else index
        self._held: tuple[int, list[Answer]] = (-1, [])

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Answers:
        """The same answers as columns."""
        columns = {
            name: pa.chunked_array([[getattr(answer, name) for answer in answers]], pa.string())
            for name in (*CODED, "response")
        }
        generated = [answer.n_generated for answer in answers]
        return cls(
            {name: encode(columns[name]) for name in CODED},
            columns["response"].cast(pa.large_string()),
            pa.chunked_array([generated], pa.int32()),
            [[answer.row for answer in answers]],
        )

    @classmethod
    def join(cls, parts: Sequence[Answers]) -> Answers:
        """The answers of all parts, one part after the other; texts are not copied."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.of([])
        starts = np.cumsum([0, *(len(part._response) for part in parts)])
        return cls(
            {name: join_coded([part._coded[name] for part in parts]) for name in CODED},
            pa.chunked_array([c for p in parts for c in p._response.chunks], pa.large_string()),
            pa.chunked_array([c for p in parts for c in p._n_generated.chunks], pa.int32()),
            [rows for part in parts for rows in part._rows],
            np.concatenate([p._index + s for p, s in zip(parts, starts, strict=False)]),
        )

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, place: int) -> Answer: ...
    @overload
    def __getitem__(self, place: slice) -> Answers: ...
    def __getitem__(self, place: int | slice) -> Answer | Answers:
        if isinstance(place, slice):
            return self.pick(np.arange(len(self))[place])
        block, inside = divmod(range(len(self))[place], _OBJECTS)
        if self._held[0] != block:
            low = block * _OBJECTS
            self._held = (block, self._objects(self._index[low : low + _OBJECTS]))
        return self._held[1][inside]

    def __iter__(self) -> Iterator[Answer]:
        for low in range(0, len(self), _OBJECTS):
            yield from self._objects(self._index[low : low + _OBJECTS])

    def pick(self, places: np.ndarray | Sequence[int]) -> Answers:
        """A view of the answers at these places, in this order."""
        index = self._index[np.asarray(places, dtype=np.int64)]
        return Answers(self._coded, self._response, self._n_generated, self._rows, index)

    def coded(self, name: str) -> Coded:
        """One of the columns `CODED`; `values` may hold texts that no answer of the view has."""
        whole = self._coded[name]
        return Coded(whole.values, whole.codes[self._index])

    def teachers(self) -> list[str]:
        """Names of the teachers that gave an answer, sorted."""
        codes = np.unique(self.coded("teacher").codes)
        return sorted(self._coded["teacher"].values.take(pa.array(codes)).to_pylist())

    def blank(self) -> np.ndarray:
        """Whether each response is empty or white space."""
        masks = [is_blank(chunk) for chunk in self._response.chunks]
        return np.concatenate([np.empty(0, dtype=bool), *masks])[self._index]

    def numbers(self, column: str) -> np.ndarray | None:
        """Another column as float64; None unless each of the answers has a number there."""
        found = np.empty(len(self))
        for rows, own, places in self._by_part(self._index):
            if not isinstance(rows, pa.Table) or column not in rows.column_names:
                return None
            kind = rows[column].type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                return None
            values = gather(rows[column], places)
            if values.null_count:
                return None
            found[own] = values.to_numpy(zero_copy_only=False)
        return found

    def others(self) -> list[str]:
        """Names of the other columns that answers came with."""
        names = [name for rows in self._rows for name in _names(rows)]
        return list(dict.fromkeys(names))

    def other(self, column: str) -> Coded:
        """One of these columns, its values as Python writes them; -1 where an answer has none."""
        texts: dict[str, int] = {}
        codes = np.full(len(self), -1, dtype=np.int32)
        for rows, own, places in self._by_part(self._index):
            if not isinstance(rows, pa.Table):
                values, numbers = _numbered([rows[place].get(column) for place in places.tolist()])
            else:
                table: Any = rows
                if column not in table.column_names:
                    continue
                taken = gather(table[column], places)
                if pa.types.is_nested(taken.type):
                    values, numbers = _numbered(taken.to_pylist())
                else:
                    found, numbers = numbered(pa.chunked_array([taken]))
                    values = found.to_pylist()
            known = [-1 if v is None else texts.setdefault(str(v), len(texts)) for v in values]
            codes[own] = np.array([*known, -1], dtype=np.int32)[numbers]  # none is the last one
        return Coded(pa.array(list(texts), pa.large_string()), codes)

    def tables(self) -> Iterator[pa.Table]:
        """The columns of `answers.parquet`, block by block."""
        for low in range(0, len(self), BLOCK):
            places = self._index[low : low + BLOCK]
            columns = {name: self._coded[name].at(places) for name in CODED}
            columns["response"] = gather(self._response, places)
            columns["n_generated"] = gather(self._n_generated, places)
            yield pa.Table.from_arrays(
                [columns[field.name].cast(field.type) for field in ANSWERS_SCHEMA],
                schema=ANSWERS_SCHEMA,
            )

    def _by_part(self, places: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """(other columns, which of the places lie there, where in it) of each part."""
        part = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(part):
            own = np.flatnonzero(part == number)
            yield self._rows[number], own, places[own] - self._starts[number]

    def _objects(self, places: np.ndarray) -> list[Answer]:
        ids, texts, teachers, reasons = (self._coded[name].at(places).to_pylist() for name in CODED)
        responses = gather(self._response, places).to_pylist()
        generated = gather(self._n_generated, places).to_pylist()
        others: list[Any] = [None] * len(places)
        for rows, own, inside in self._by_part(places):
            if isinstance(rows, pa.Table):
                taken = [gather(column, inside) for column in rows.columns]
                found = pa.Table.from_arrays(taken, names=rows.column_names).to_pylist()
            else:
                found = [rows[place] for place in inside.tolist()]
            for place, row in zip(own.tolist(), found, strict=True):
                others[place] = row
        columns = (ids, texts, teachers, responses, reasons, generated, others)
        return [Answer(*values) for values in zip(*columns, strict=True)]


def _names(rows: Any) -> list[str]:
    if isinstance(rows, pa.Table):
        return rows.column_names
    return list(dict.fromkeys(name for row in rows for name in row))


def _numbered(values: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """The distinct texts of values of any type, and the number of each (-1 for None)."""
    texts: dict[str, int] = {}
    codes = [-1 if v is None else texts.setdefault(str(v), len(texts)) for v in values]
    return list(texts), np.array(codes, dtype=np.int32)
