"""The answer table: every teacher's answer to every instruction, read and checked.

Recorded answers come in three forms, told apart by their columns:
- tall: a row an answer (instruction, generator, response, rewards ...);
- list: a row an instruction, one column holding a list of {generator, response, rewards ...};
- wide: a row an instruction, one struct column {content, rewards ...} per generator, named after
  it (the public Generator-Zoo form).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute

from preceptor.core.artifacts import ANSWERS_SCHEMA
from preceptor.core.errors import DataError, nearest
from preceptor.core.types import Answer
from preceptor.data.answer_table import (
    Answers,
    Coded,
    canonical,
    constant,
    encode,
    is_blank,
    numbered,
)

_compute: Any = pyarrow.compute  # its functions are made at import and have no stubs
USUAL = {
    "instruction": ("instruction", "prompt", "question", "input"),
    "teacher": ("teacher", "generator", "model", "source_model"),
    "response": ("response", "output", "answer", "content", "completion"),
    "instruction_id": ("instruction_id", "uuid", "prompt_id", "id"),
}


def _plain_table(answers: Sequence[Answer]) -> pa.Table:
    columns = {name: [getattr(a, name) for a in answers] for name in ANSWERS_SCHEMA.names}
    return pa.table(columns, schema=ANSWERS_SCHEMA)


def answers_table(answers: Sequence[Answer]) -> pa.Table:
    """`answers.parquet` of a training: the columns of the instructions (a domain, say) kept too."""
    table = _plain_table(answers)
    others = pa.Table.from_pylist([dict(answer.row) for answer in answers])
    for name in others.column_names:
        if name not in table.column_names and not pa.types.is_null(others[name].type):
            table = table.append_column(name, others[name])
    return table


def instruction_hash(text: str) -> str:
    """Key of an instruction that has none of its own."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_instructions(
    table: pa.Table, columns: Mapping[str, str | None], where: str, limit: int | None
) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, text, whole row) of each instruction to ask, in order (raises DataError)."""
    text_column = _find(table, "instruction", columns, where)
    id_column = _find_optional(table, "instruction_id", columns, where)
    rows = table.slice(0, limit).to_pylist()
    found = []
    for number, row in enumerate(rows):
        text = _text(row[text_column], "instruction", number, where)
        key = instruction_hash(text) if id_column is None else _key(row[id_column], number, where)
        found.append((key, text, row))
    repeated = [key for key, count in Counter(key for key, _, _ in found).items() if count > 1]
    if repeated:
        refuse_repeated(len(repeated), repeated[0], "instruction", where)
    return found


def read_recorded(table: pa.Table, columns: Mapping[str, str | None], where: str) -> Answers:
    """Every answer of a recorded table, in any of the three forms (raises DataError)."""
    return _tall(*_flatten(table, columns), where)


def _flatten(
    table: pa.Table, columns: Mapping[str, str | None]
) -> tuple[pa.Table, Mapping[str, str | None]]:
    """List and wide forms as tall tables, with the columns that hold teacher and response.

    A table with plain columns for both is tall already, whatever else it holds.
    """
    plain = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    if _inner("teacher", columns, plain) and _inner("response", columns, plain):
        return table, columns
    lists, structs = {}, {}
    for field in table.schema:
        if pa.types.is_struct(field.type):
            response = _inner("response", columns, _names(field.type))
            if response:
                structs[field.name] = response
        elif pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            names = _names(field.type.value_type)
            teacher, response = (_inner(role, columns, names) for role in ("teacher", "response"))
            if teacher and response:
                lists[field.name] = (teacher, response)
    if not lists and not structs:
        return table, columns
    names = [n for n in table.column_names if n not in lists and n not in structs]
    table = _with_texts_once(table, names)
    parts = []
    if lists:
        name, (teacher, response) = next(iter(lists.items()))
        for batch in table.to_batches():
            rows = batch.select(names).take(_compute.list_parent_indices(batch[name]))
            parts.append(_beside(rows, _compute.list_flatten(batch[name]), response))
        return pa.concat_tables(parts), {**columns, "teacher": teacher, "response": response}
    for name, response in structs.items():
        for batch in table.to_batches():
            part = _beside(batch.select(names), batch[name], response)
            codes = pa.array(np.zeros(part.num_rows, dtype=np.int32))
            parts.append(_replace(part, {"teacher": pa.DictionaryArray.from_arrays(codes, [name])}))
    flat = pa.concat_tables(parts, promote_options="permissive")
    teacher = columns.get("teacher") or "teacher"
    return flat, {**columns, "teacher": teacher, "response": next(iter(structs.values()))}


def _with_texts_once(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with its texts by number: a row of several answers then repeats numbers only."""
    for place, field in enumerate(table.schema):
        if field.name in names and (
            pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ):
            column = table[field.name].cast(pa.large_string()).dictionary_encode()
            table = table.set_column(place, field.name, column)
    return table


def _names(kind: pa.DataType) -> list[str]:
    return [field.name for field in kind] if pa.types.is_struct(kind) else []


def _inner(role: str, columns: Mapping[str, str | None], names: Sequence[str]) -> str | None:
    """The one of `names` that plays the role: the one the user named, or the first usual one."""
    wanted = columns.get(role)
    return next((n for n in ([wanted] if wanted else USUAL[role]) if n in names), None)


def _beside(rows: pa.RecordBatch, structs: pa.Array, response: str) -> pa.Table:
    """Rows with the fields of their structs; a struct without a response is no answer."""
    fields = dict(zip(_names(structs.type), structs.flatten(), strict=True))
    table = _replace(pa.Table.from_batches([rows]), fields)
    if fields[response].null_count:
        table = table.filter(_compute.is_valid(fields[response]))
    return table


def _replace(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """The table with these columns, in the place of any of the same name."""
    table = table.drop_columns([name for name in columns if name in table.column_names])
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table


def _tall(table: pa.Table, columns: Mapping[str, str | None], where: str) -> Answers:
    roles = {role: _find(table, role, columns, where) for role in ("instruction", "teacher")}
    response_column = _find(table, "response", columns, where)
    id_column = _find_optional(table, "instruction_id", columns, where)
    text, teacher = (_texts(table[name]) for name in roles.values())
    keys = _hashes(text) if id_column is None else _keys(table[id_column])
    response, n = table[response_column], table.num_rows
    there = _texts_of(response) is not None
    lacking = [_lacks(column) for column in (text, keys, teacher)]
    lacking.append(_compute.is_null(response).to_numpy() if there else np.ones(n, dtype=bool))
    bad = np.logical_or.reduce(lacking)
    if bad.any():
        known = {**roles, "response": response_column, "instruction_id": id_column}
        _refuse_row(table, known, int(np.argmax(bad)), where)
    known = {*roles.values(), response_column, id_column}
    others = [name for name in table.column_names if name not in known]
    return Answers(
        {
            "instruction_id": keys,
            "instruction": text,
            "teacher": teacher,
            "finish_reason": constant("recorded", n),
        },
        response.cast(pa.large_string()),
        pa.chunked_array([pa.nulls(n, pa.int32())]),
        [table.select(others) if others else [{}] * n],
    )


def _texts_of(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The column if it holds texts, plain or by number."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    holds = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return column if holds or pa.types.is_string_view(kind) else None


def _texts(column: pa.ChunkedArray) -> Coded:
    """A column of texts by its distinct values; a column of anything else lacks them all."""
    if _texts_of(column) is None:
        return Coded(pa.array([], pa.large_string()), np.full(len(column), -1, dtype=np.int32))
    return encode(column)


def _keys(column: pa.ChunkedArray) -> Coded:
    """A column of ids of any type, as texts."""
    if _texts_of(column) is not None:
        return encode(column)
    if pa.types.is_nested(column.type):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return encode(pa.chunked_array([texts], pa.large_string()))
    values, codes = numbered(column)
    return canonical(pa.array(map(str, values.to_pylist()), pa.large_string()), codes)


def _hashes(text: Coded) -> Coded:
    """Keys of instructions that have none of their own."""
    hashes = pa.array(map(instruction_hash, text.values.to_pylist()), pa.large_string())
    return canonical(hashes, text.codes)


def _lacks(column: Coded) -> np.ndarray:
    """Whether each row has no text, or a blank one."""
    return np.append(is_blank(column.values), True)[column.codes]


def _refuse_row(
    table: pa.Table, names: Mapping[str, str | None], number: int, where: str
) -> NoReturn:
    """Say what the row lacks."""
    row = table.slice(number, 1).to_pylist()[0]
    text = _text(row[names["instruction"]], str(names["instruction"]), number, where)
    column = names["instruction_id"]
    key = instruction_hash(text) if column is None else _key(row[column], number, where)
    teacher = _text(row[names["teacher"]], str(names["teacher"]), number, where)
    place = f"{where}, teacher {teacher}, instruction {key}"
    _text(row[names["response"]], str(names["response"]), number, place, may_be_empty=True)
    raise AssertionError("a row was found bad and is good")


def _find(table: pa.Table, role: str, columns: Mapping[str, str | None], where: str) -> str:
    name = _find_optional(table, role, columns, where)
    if name is None:
        raise DataError(
            f"the data has no column for the {role}",
            where=where,
            found=f"columns {', '.join(table.column_names)}",
            next_step=f"name it: `columns: {{{role}: ...}}` (usual: {', '.join(USUAL[role])})",
        )
    return name


def _find_optional(
    table: pa.Table, role: str, columns: Mapping[str, str | None], where: str
) -> str | None:
    named = columns.get(role)
    if named is not None:
        if named not in table.column_names:
            raise DataError(
                f"the data has no column {named!r}",
                where=where,
                found=nearest(named, table.column_names),
                next_step=f"correct `columns: {{{role}: ...}}`",
            )
        return named
    return next((name for name in USUAL[role] if name in table.column_names), None)


def _text(value: Any, role: str, number: int, where: str, may_be_empty: bool = False) -> str:
    if isinstance(value, str) and (value.strip() or may_be_empty):
        return value
    raise DataError(
        f"a row has no {role}",
        where=f"{where}, row {number}",
        found=repr(value),
        next_step="drop or mend the row",
    )


def _key(value: Any, number: int, where: str) -> str:
    return _text(value if value is None else str(value), "instruction id", number, where)


def refuse_repeated(n: int, first: Any, kind: str, where: str = "answers") -> NoReturn:
    raise DataError(
        f"the same {kind} stands more than once",
        where=where,
        found=f"{n} repeated, the first: {first}",
        next_step="keep one row of each (drop duplicates)",
    )
