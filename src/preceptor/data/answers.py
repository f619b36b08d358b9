"""The answer table: every teacher's answer to every instruction, checked and paired.

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
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from preceptor.core.artifacts import ANSWERS_SCHEMA
from preceptor.core.errors import DataError, nearest
from preceptor.core.types import Answer

_compute: Any = pyarrow.compute  # its functions are made at import and have no stubs
USUAL = {
    "instruction": ("instruction", "prompt", "question", "input"),
    "teacher": ("teacher", "generator", "model", "source_model"),
    "response": ("response", "output", "answer", "content", "completion"),
    "instruction_id": ("instruction_id", "uuid", "prompt_id", "id"),
}


@dataclass(frozen=True)
class Paired:
    """Answers of M teachers to the same N instructions, teacher by teacher (item = m * N + n)."""

    teachers: tuple[str, ...]
    instruction_ids: tuple[str, ...]
    answers: list[Answer]
    n_dropped: int = 0  # instructions that some teacher did not answer
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.teachers), len(self.instruction_ids)

    def table(self) -> pa.Table:
        """`answers.parquet` of a selection."""
        return _plain_table(self.answers)


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
    _refuse_duplicates(Counter(key for key, _, _ in found), "instruction", where)
    return found


def read_recorded(table: pa.Table, columns: Mapping[str, str | None], where: str) -> list[Answer]:
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
    rest = table.select([n for n in table.column_names if n not in lists and n not in structs])
    if lists:
        name, (teacher, response) = next(iter(lists.items()))
        column = table[name].combine_chunks()
        rows = rest.take(_compute.list_parent_indices(column))
        flat = _beside(rows, _compute.list_flatten(column), response)
        return flat, {**columns, "teacher": teacher, "response": response}
    if not structs:
        return table, columns
    parts = []
    for name, response in structs.items():
        part = _beside(rest, table[name].combine_chunks(), response)
        named = pa.table({"teacher": pa.array([name] * part.num_rows, pa.string())})
        parts.append(_replace(part, {"teacher": named["teacher"]}))
    flat = pa.concat_tables(parts, promote_options="permissive")
    teacher = columns.get("teacher") or "teacher"
    return flat, {**columns, "teacher": teacher, "response": next(iter(structs.values()))}


def _names(kind: pa.DataType) -> list[str]:
    return [field.name for field in kind] if pa.types.is_struct(kind) else []


def _inner(role: str, columns: Mapping[str, str | None], names: Sequence[str]) -> str | None:
    """The one of `names` that plays the role: the one the user named, or the first usual one."""
    wanted = columns.get(role)
    return next((n for n in ([wanted] if wanted else USUAL[role]) if n in names), None)


def _beside(rows: pa.Table, structs: pa.Array, response: str) -> pa.Table:
    """Rows with the fields of their structs; a struct without a response is no answer."""
    fields = dict(zip(_names(structs.type), structs.flatten(), strict=True))
    there = _compute.is_valid(fields[response])
    return _replace(rows, fields).filter(there)


def _replace(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """The table with these columns, in the place of any of the same name."""
    table = table.drop_columns([name for name in columns if name in table.column_names])
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table


def _tall(table: pa.Table, columns: Mapping[str, str | None], where: str) -> list[Answer]:
    text_column = _find(table, "instruction", columns, where)
    teacher_column = _find(table, "teacher", columns, where)
    response_column = _find(table, "response", columns, where)
    id_column = _find_optional(table, "instruction_id", columns, where)
    known = {text_column, teacher_column, response_column, id_column}
    others = [name for name in table.column_names if name not in known]
    texts, teachers = table[text_column].to_pylist(), table[teacher_column].to_pylist()
    responses = table[response_column].to_pylist()
    ids = None if id_column is None else table[id_column].to_pylist()
    rows = table.select(others).to_pylist() if others else [{}] * table.num_rows
    answers = []
    for number, (text, teacher, response) in enumerate(
        zip(texts, teachers, responses, strict=True)
    ):
        text = _text(text, text_column, number, where)
        key = instruction_hash(text) if ids is None else _key(ids[number], number, where)
        teacher = _text(teacher, teacher_column, number, where)
        place = f"{where}, teacher {teacher}, instruction {key}"
        response = _text(response, response_column, number, place, may_be_empty=True)
        answers.append(Answer(key, text, teacher, response, row=rows[number]))
    return answers


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


def _refuse_duplicates(counts: Mapping[Any, int], kind: str, where: str) -> None:
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        raise DataError(
            f"the same {kind} stands more than once",
            where=where,
            found=f"{len(repeated)} repeated, the first: {repeated[0]}",
            next_step="keep one row of each (drop duplicates)",
        )


def pair(answers: Sequence[Answer], min_share: float, limit: int | None = None) -> Paired:
    """Keep the instructions that every teacher answered, in order of appearance.

    Args:
        answers: of all teachers, in any order.
        min_share: refuse when a smaller share of the instructions remains.
        limit: keep at most so many instructions.

    Raises:
        DataError: an answer stands twice, one id has two texts, or too few instructions pair.
    """
    by_key: dict[tuple[str, str], Answer] = {}
    texts: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for answer in answers:
        key = (answer.teacher, answer.instruction_id)
        counts[key] += 1
        by_key[key] = answer
        if texts.setdefault(answer.instruction_id, answer.instruction) != answer.instruction:
            raise DataError(
                "one instruction id has two texts",
                where=f"instruction_id {answer.instruction_id}, teacher {answer.teacher}",
                next_step="give every instruction an id of its own",
            )
    _refuse_duplicates(counts, "teacher and instruction", "answers")
    teachers = sorted({teacher for teacher, _ in by_key})
    complete = [key for key in texts if all((t, key) in by_key for t in teachers)]
    dropped = len(texts) - len(complete)
    if len(complete) < 2 or len(complete) < min_share * len(texts):
        raise DataError(
            "too few instructions were answered by all teachers",
            where=f"{len(teachers)} teachers, {len(texts)} instructions",
            found=f"{len(complete)} answered by all; {_scarcest(teachers, by_key)}",
            next_step="leave that teacher out, ask again, or lower min_paired_share"
            if len(set(texts.values())) == len(texts)
            else "one text has several ids; to use the text as its id, name the text's column as "
            "`columns: {instruction_id: ...}`",
        )
    warnings = []
    if dropped:
        warnings.append(
            f"{dropped} of {len(texts)} instructions were dropped: not all teachers answered them "
            f"({_scarcest(teachers, by_key)})"
        )
    kept = tuple(complete[:limit])
    paired = [by_key[teacher, key] for teacher in teachers for key in kept]
    warnings += _empty_warning(paired)
    return Paired(tuple(teachers), kept, paired, dropped, tuple(warnings))


def _scarcest(teachers: Sequence[str], by_key: Mapping[tuple[str, str], Answer]) -> str:
    counts = Counter(teacher for teacher, _ in by_key)
    least = min(teachers, key=lambda teacher: counts[teacher])
    return f"{least} has the fewest, {counts[least]}"


def _empty_warning(answers: Sequence[Answer]) -> list[str]:
    empty = Counter(answer.teacher for answer in answers if not answer.response.strip())
    if not empty:
        return []
    worst = ", ".join(f"{teacher} {count}" for teacher, count in empty.most_common(3))
    return [f"{empty.total()} empty responses are scored as their end token alone (most: {worst})"]
