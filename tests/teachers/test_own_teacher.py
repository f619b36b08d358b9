"""The example of `docs/how-to/own-teacher.md` runs as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from preceptor.core.errors import SettingsError
from preceptor.core.types import Runtime
from preceptor.recipes.inputs.respondents import decoding_of, open_asker, open_teacher, requests_of
from preceptor.recipes.settings.shared import Teacher, teacher_name

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-teacher.md"


def block(language: str) -> str:
    """The page's first block of a language."""
    found = re.search(rf"```{language}[^\n]*\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found
    return found.group(1)


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Teacher:
    (tmp_path / "my_teachers.py").write_text(block("python"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_teachers", raising=False)
    [_, own] = yaml.safe_load(block("yaml"))["teachers"]
    return TypeAdapter(Teacher).validate_python(own)


def test_the_program_answers_and_its_answers_are_kept(
    teacher: Teacher, tmp_path: Path, instruction_texts: tuple[str, ...]
) -> None:
    texts = [*instruction_texts, *(f"Name {n}." for n in range(9))]
    source = open_teacher(teacher, Runtime())
    requests = requests_of(texts, decoding_of(teacher), seed=0)
    name = teacher_name(teacher)
    first = open_asker(None, tmp_path / "run")
    found = first(name, source, requests)
    assert name == "shouting"
    assert [reply.response for reply in found] == [text.upper() for text in texts]
    assert first.facts[name]["reused"] == 0
    again = open_asker(None, tmp_path / "run")
    assert again(name, open_teacher(teacher, Runtime()), requests) == found
    assert again.facts[name]["reused"] == len(texts)


def test_a_teacher_that_cannot_be_imported_is_refused(teacher: Teacher) -> None:
    wrong = teacher.model_copy(update={"kind": "my_teachers:nobody"})
    with pytest.raises(SettingsError, match="cannot be imported"):
        open_teacher(wrong, Runtime())
