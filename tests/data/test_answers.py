"""Recorded answers in three forms, their checks, and pairing."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from preceptor.core.artifacts import ANSWERS_SCHEMA
from preceptor.core.errors import DataError
from preceptor.core.types import Answer
from preceptor.data.answer_table import SPACE, Answers
from preceptor.data.answers import instruction_hash, read_instructions, read_recorded
from preceptor.data.paired import Paired
from preceptor.data.paired import pair as pair_columns

Rows = list[dict[str, Any]]


def read(rows: Rows, **columns: str) -> list[Answer]:
    return list(read_recorded(pa.Table.from_pylist(rows), columns, "table"))


def pair(answers: list[Answer], min_share: float, limit: int | None = None) -> Paired:
    return pair_columns(Answers.of(answers), min_share, limit)


def as_list(tall: Rows) -> Rows:
    """A row an instruction, with a list of its answers."""
    grouped: dict[str, Rows] = {}
    for row in tall:
        inner = {name: row[name] for name in ("generator", "response", "reward")}
        grouped.setdefault(row["instruction"], []).append(inner)
    return [{"instruction": text, "answers": inner} for text, inner in grouped.items()]


def as_wide(tall: Rows) -> Rows:
    """A row an instruction, with a struct per generator (the Generator-Zoo form)."""
    grouped: dict[str, dict[str, Any]] = {}
    for row in tall:
        wide = grouped.setdefault(
            row["instruction"], {"uuid": f"u{len(grouped)}", "instruction": row["instruction"]}
        )
        wide[row["generator"]] = {"content": row["response"], "reward": row["reward"]}
    return list(grouped.values())


def essence(answers: list[Answer]) -> set[tuple[str, str, str, float]]:
    return {(a.instruction, a.teacher, a.response, a.row["reward"]) for a in answers}


@pytest.mark.parametrize("form", [list, as_list, as_wide])
def test_three_forms_hold_the_same_answers(tall: Rows, form: Callable[[Rows], Rows]) -> None:
    answers = read(form(tall))
    assert len(answers) == len(tall) == 18
    assert essence(answers) == {
        (row["instruction"], row["generator"], row["response"], row["reward"]) for row in tall
    }
    assert {answer.finish_reason for answer in answers} == {"recorded"}
    assert {answer.n_generated for answer in answers} == {None}


def test_the_generator_zoo_by_hand() -> None:
    table = pa.table(
        {
            "uuid": ["u1", "u2"],
            "instruction": ["One?", "Two?"],
            "google/gemma-2-2b-it": [
                {"content": "1", "ArmoRM": 0.5, "Skywork": -1.0},
                {"content": "2", "ArmoRM": 0.25, "Skywork": 2.0},
            ],
            "gpt4": [{"content": "one", "ArmoRM": 0.75, "Skywork": 3.0}, None],
        }
    )
    assert list(read_recorded(table, {}, "zoo")) == [
        Answer("u1", "One?", "google/gemma-2-2b-it", "1", row={"ArmoRM": 0.5, "Skywork": -1.0}),
        Answer("u2", "Two?", "google/gemma-2-2b-it", "2", row={"ArmoRM": 0.25, "Skywork": 2.0}),
        Answer("u1", "One?", "gpt4", "one", row={"ArmoRM": 0.75, "Skywork": 3.0}),
    ]


def test_ids_are_given_or_the_hash_of_the_text(tall: Rows) -> None:
    assert read(tall)[0].instruction_id == instruction_hash(tall[0]["instruction"])
    assert instruction_hash("One?") == "b8d232fe2f4df3e0"
    assert read(as_wide(tall))[0].instruction_id == "u0"
    assert read([row | {"id": 7} for row in tall])[0].instruction_id == "7"
    assert read(tall, instruction_id="reward")[0].instruction_id == "0.0"


@pytest.mark.parametrize("name", ["teacher", "generator", "model", "source_model"])
@pytest.mark.parametrize("text", ["instruction", "prompt", "question", "input"])
def test_usual_names(name: str, text: str) -> None:
    [answer] = read([{name: "ash", text: "One?", "output": "1"}])
    assert answer == Answer(instruction_hash("One?"), "One?", "ash", "1")


def test_columns_may_be_named(tall: Rows) -> None:
    renamed = [
        {"q": r["instruction"], "who": r["generator"], "said": r["response"], "reward": r["reward"]}
        for r in tall
    ]
    named = {"instruction": "q", "teacher": "who", "response": "said"}
    assert read(renamed, **named) == read(tall)
    nested = [
        {"q": row["instruction"], "who": [{"who": a["generator"], "said": a["response"],
         "reward": a["reward"]} for a in row["answers"]]}
        for row in as_list(tall)
    ]  # fmt: skip
    assert read(nested, **named) == read(tall)


def test_other_columns_stay_with_the_answer() -> None:
    rows = [{"instruction": "One?", "model": "ash", "response": "1", "answer": "one", "n": 3}]
    assert read(rows)[0].row == {"answer": "one", "n": 3}


def test_conversations_beside_a_tall_table_are_no_answers(tall: Rows) -> None:
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert essence(read([row | {"messages": talk} for row in tall])) == essence(read(tall))


@pytest.mark.parametrize("form", [as_list, as_wide])
def test_a_reference_beside_nested_answers_is_not_their_response(
    tall: Rows, form: Callable[[Rows], Rows]
) -> None:
    for column in ("answer", "output", "response"):
        answers = read([row | {column: "the reference"} for row in form(tall)])
        assert essence(answers) == essence(read(tall))
    assert read([row | {"answer": "six"} for row in form(tall)])[0].row["answer"] == "six"


@pytest.mark.parametrize("form", [as_list, as_wide])
def test_a_nested_answer_without_a_response_is_no_answer(
    tall: Rows, form: Callable[[Rows], Rows]
) -> None:
    nested = form(tall)
    first = nested[0].get("ash") or nested[0]["answers"][0]
    first[next(name for name in ("content", "response") if name in first)] = None
    assert essence(read(nested)) == essence(read(tall[1:]))


def test_a_missing_column_is_named(tall: Rows) -> None:
    bare = [{"instruction": row["instruction"], "generator": row["generator"]} for row in tall]
    with pytest.raises(DataError, match="no column for the response") as caught:
        read(bare)
    assert caught.value.found == "columns instruction, generator"
    assert "columns: {response: ...}" in caught.value.next_step
    with pytest.raises(DataError, match="no column 'respnse'") as caught:
        read(tall, response="respnse")
    assert caught.value.found == "did you mean 'response'?"


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("response", None, "a row has no response"),
        ("generator", None, "a row has no generator"),
        ("generator", " ", "a row has no generator"),
        ("instruction", "", "a row has no instruction"),
        ("id", None, "a row has no instruction id"),
    ],
)
def test_a_row_without_a_needed_text(tall: Rows, column: str, value: str, what: str) -> None:
    rows = [row | {"id": row["instruction"]} for row in tall]
    rows[4][column] = value
    with pytest.raises(DataError, match=what) as caught:
        read(rows)
    assert "row 4" in caught.value.where


def test_pairs_stand_teacher_by_teacher_in_order_of_instructions(tall: Rows) -> None:
    paired = pair(read(list(reversed(tall))), 0.5)
    assert paired.teachers == ("ash", "beech", "cherry")
    assert paired.shape == (3, 6)
    texts = list(dict.fromkeys(row["instruction"] for row in reversed(tall)))
    assert [(a.teacher, a.instruction) for a in paired.answers] == [
        (teacher, text) for teacher in paired.teachers for text in texts
    ]
    assert (paired.n_dropped, paired.warnings) == (0, ())


def test_a_limit_keeps_the_first_instructions(tall: Rows) -> None:
    paired = pair(read(tall), 0.5, limit=2)
    assert paired.instruction_ids == tuple(
        instruction_hash(row["instruction"]) for row in tall[:6:3]
    )
    assert len(paired.answers) == 6


def test_unanswered_instructions_are_dropped_and_counted(tall: Rows) -> None:
    paired = pair(read([*tall[:1], *tall[3:]]), 0.5)
    assert (paired.shape, paired.n_dropped) == ((3, 5), 1)
    assert paired.warnings == (
        "1 of 6 instructions were dropped: not all teachers answered them "
        "(beech has the fewest, 5)",
    )


def test_too_few_pairs_are_refused(tall: Rows) -> None:
    answers = [a for n, a in enumerate(read(tall)) if a.teacher != "ash" or n < 9]
    assert pair(answers, 0.5).shape == (3, 3)
    with pytest.raises(DataError, match="too few instructions") as caught:
        pair(answers, 0.6)
    assert caught.value.found == "3 answered by all; ash has the fewest, 3"
    assert "min_paired_share" in caught.value.next_step


def test_ids_of_answers_instead_of_instructions_are_explained(tall: Rows) -> None:
    rows = [row | {"id": number} for number, row in enumerate(tall)]
    with pytest.raises(DataError, match="too few instructions") as caught:
        pair(read(rows), 0.5)
    assert "one text has several ids" in caught.value.next_step
    assert pair(read(rows, instruction_id="instruction"), 0.5).shape == (3, 6)


def test_empty_responses_are_kept_with_a_warning(tall: Rows) -> None:
    tall[0]["response"], tall[3]["response"], tall[4]["response"] = "", " \n", ""
    paired = pair(read(tall), 0.5)
    assert paired.shape == (3, 6)
    assert paired.warnings == (
        "3 empty responses are scored as their end token alone (most: ash 2, beech 1)",
    )


def test_a_repeated_answer_is_refused(tall: Rows) -> None:
    with pytest.raises(DataError, match="the same teacher and instruction") as caught:
        pair(read([*tall, tall[7]]), 0.5)
    assert "1 repeated" in caught.value.found and "'beech'" in caught.value.found


def test_one_id_with_two_texts_is_refused(tall: Rows) -> None:
    rows = [row | {"id": "same"} for row in (tall[0], tall[4])]
    with pytest.raises(DataError, match="one instruction id has two texts") as caught:
        pair(read(rows), 0.5)
    assert caught.value.where == "instruction_id same, teacher beech"


def test_answers_survive_their_table(tall: Rows) -> None:
    answers = [replace(a, finish_reason="stop", n_generated=4) for a in read(tall)[1:]]
    paired = pair(answers, 0.5)
    table = pa.concat_tables(paired.answers.tables())
    assert table.schema.equals(ANSWERS_SCHEMA)
    bare = [replace(answer, row={}) for answer in paired.answers]
    assert [Answer(**row) for row in table.to_pylist()] == bare
    assert paired.n_dropped == 1


def test_instructions_to_ask() -> None:
    table = pa.table({"prompt": ["One?", "Two?"], "id": [1, 2], "answer": ["1", "2"]})
    assert read_instructions(table, {}, "table", None) == [
        ("1", "One?", {"prompt": "One?", "id": 1, "answer": "1"}),
        ("2", "Two?", {"prompt": "Two?", "id": 2, "answer": "2"}),
    ]
    assert [key for key, _, _ in read_instructions(table, {}, "table", 1)] == ["1"]
    with pytest.raises(DataError, match="the same instruction stands more than once"):
        read_instructions(pa.table({"prompt": ["One?", "One?"]}), {}, "table", None)


def test_space_is_what_strip_strips() -> None:
    assert sorted(SPACE) == [chr(n) for n in range(sys.maxunicode + 1) if chr(n).isspace()]


@pytest.mark.parametrize("blank", list(SPACE))
def test_every_kind_of_space_is_blank(tall: Rows, blank: str) -> None:
    with pytest.raises(DataError, match="a row has no instruction"):
        read([*tall, tall[0] | {"instruction": blank * 2}])
    paired = pair(read([*tall[:-1], tall[-1] | {"response": blank}]), 0.5)
    assert paired.warnings[0].startswith("1 empty responses")


def chunked(rows: Rows, size: int) -> pa.Table:
    """The same rows in chunks of `size`, as a file with several row groups is read."""
    return pa.concat_tables(
        [pa.Table.from_pylist(rows[low : low + size]) for low in range(0, len(rows), size)]
    )


@pytest.mark.parametrize("form", [list, as_list, as_wide])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_chunks_change_nothing(tall: Rows, form: Callable[[Rows], Rows], size: int) -> None:
    rows = form(tall)
    whole = read_recorded(pa.Table.from_pylist(rows), {}, "table")
    assert list(read_recorded(chunked(rows, size), {}, "table")) == list(whole)
    sliced = chunked([*rows[:1], *rows, *rows[:1]], size).slice(1, len(rows))
    assert list(read_recorded(sliced, {}, "table")) == list(whole)


def as_numbers(table: pa.Table, names: tuple[str, ...]) -> pa.Table:
    for place, name in enumerate(table.column_names):
        if name in names:
            table = table.set_column(place, name, table[name].dictionary_encode())
    return table


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view()])
def test_types_of_text(tall: Rows, kind: pa.DataType) -> None:
    plain = chunked(tall, 5)
    names = ("instruction", "generator", "response")
    fields = [field.with_type(kind) if field.name in names else field for field in plain.schema]
    for table in (plain.cast(pa.schema(fields)), as_numbers(plain, names)):
        assert list(read_recorded(table, {}, "table")) == read(tall)


def test_a_view_is_a_sequence(tall: Rows) -> None:
    """Objects, slices, picks and joins of views agree with a list of the same answers."""
    first = read_recorded(chunked(tall, 4), {}, "table")
    more = [row | {"generator": "dogwood", "other": [n]} for n, row in enumerate(tall[::3])]
    second = read_recorded(chunked(more, 2), {}, "table")
    third = Answers.of([Answer("x", "New?", "elm", "yes", "stop", 3, {"n": {"a": 1}})])
    joined = Answers.join([first, second[::-1], third])
    wanted = [*first, *reversed(list(second)), *third]
    assert list(joined) == wanted and len(joined) == len(wanted) == 25
    assert [joined[n] for n in range(-25, 25)] == wanted * 2
    assert list(joined[3:20:4]) == wanted[3:20:4]
    places = random.Random(0).sample(range(25), 12)
    assert list(joined.pick(places)) == [wanted[n] for n in places]
    assert list(joined.pick(places)[2:5]) == [wanted[n] for n in places[2:5]]
    assert joined.teachers() == ["ash", "beech", "cherry", "dogwood", "elm"]
    assert joined.pick([0, 24]).teachers() == ["ash", "elm"]
    with pytest.raises(IndexError):
        joined[25]
    bare = [replace(answer, row={}) for answer in wanted]
    rows = pa.concat_tables(joined.tables()).to_pylist()
    assert [Answer(**row) for row in rows] == bare


def test_numbers_of_a_column(tall: Rows) -> None:
    rows = [row | {"n": number, "flag": True} for number, row in enumerate(tall)]
    answers = read_recorded(chunked(rows, 4), {}, "table").pick([7, 2, 2])
    numbers = answers.numbers("n")
    assert numbers is not None and numbers.tolist() == [7.0, 2.0, 2.0]
    assert answers.numbers("flag") is None and answers.numbers("nothing") is None
    rows[2]["reward"] = None
    assert read_recorded(chunked(rows, 4), {}, "table").numbers("reward") is None


def test_pairing_is_that_of_a_plain_loop() -> None:
    """Shuffled rows of several sources, some missing: the order and content of a dictionary's."""
    draw = random.Random(1)
    rows = [
        {"id": n, "prompt": f"Q{n}", "model": name, "output": f"{name} {n}", "r": draw.random()}
        for n in range(60)
        for name in ("d", "b", "a", "c")
        if draw.random() < 0.95
    ]
    draw.shuffle(rows)
    parts = [rows[:70], rows[70:90], rows[90:]]
    columns = Answers.join([read_recorded(chunked(part, 16), {}, "t") for part in parts])
    paired = pair_columns(columns, 0.5, limit=40)
    by_key = {(row["model"], row["id"]): row for row in rows}
    order = list(dict.fromkeys(row["id"] for row in rows))
    kept = [n for n in order if all((name, n) in by_key for name in "abcd")]
    assert paired.n_dropped == 60 - len(kept) > 0 and len(kept) > 40
    assert paired.instruction_ids == tuple(map(str, kept[:40]))
    wanted = [by_key[name, n] for name in "abcd" for n in kept[:40]]
    assert [(a.response, a.row["r"]) for a in paired.answers] == [
        (row["output"], row["r"]) for row in wanted
    ]
    some = paired.keep(np.arange(40) % 3 == 0, ["why"])
    assert some.shape == (4, 14) and some.warnings[-1] == "why"
    assert [a.instruction_id for a in some.answers[:14]] == list(some.instruction_ids)
    assert [a.response for a in some.answers] == [
        row["output"] for place, row in enumerate(wanted) if place % 40 % 3 == 0
    ]
