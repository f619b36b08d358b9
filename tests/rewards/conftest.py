"""Judges by rule: teacher plugs of a module written on the spot, asked over a real answer store."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preceptor.core.types import Answer, Reply, Runtime
from preceptor.data.answer_store import AnswerStore
from preceptor.data.asking import Asker

PLUGS = '''
import re

from preceptor.core.types import Reply, TeacherSource

asked = []


def teacher(rule):
    """open_teacher of a judge that answers each prompt by `rule(prompt) -> (text, logprobs)`."""

    def open_teacher(setting, runtime):
        def ask(groups):
            for number, group in enumerate(groups):
                asked.extend(group)
                replies = []
                for request in group:
                    text, labels = rule(request.messages[-1][1])
                    labels = labels if request.labels else ()
                    replies.append(Reply(text, "stop", len(text), 10, label_logprobs=labels))
                yield number, replies

        return TeacherSource(
            identity={"model": rule.__name__},
            groups=lambda requests: [[n] for n in range(len(requests))],
            ask=ask,
            price=lambda n_prompt, n_generated: 0.001 * n_prompt,
        )

    return open_teacher


def section(prompt, title):
    """What stands in a section of a packaged prompt, found by its fence."""
    fence = re.search("lines that begin with (=+) ", prompt)[1]
    found = re.findall(
        f"^{fence} {title}\\n(.*?)\\n{fence} end of", prompt, re.DOTALL | re.MULTILINE
    )
    assert len(found) == 1, found
    return found[0]


def by_length(prompt):
    n = len(section(prompt, "answer to grade"))
    return f"It could be [[1]], but: [[{n}]]", ()


def words(prompt):
    """Writes what the answer says: a judge that is as good as its answers."""
    return section(prompt, "answer to grade"), ()


def echo(prompt):
    return prompt, ()


def always_first(prompt):
    return "[[A]]", (-0.1, -2.5)


def always_tie(prompt):
    return "[[C]]", (-0.7, -0.7)


def longer(prompt):
    """Prefers the longer answer; a tie where both are as long."""
    a, b = section(prompt, "answer A"), section(prompt, "answer B")
    verdict = "A" if len(a) > len(b) else "B" if len(b) > len(a) else "C"
    return f"[[{verdict}]]", (-0.5 if len(a) > len(b) else -1.5, -0.5 if len(b) > len(a) else -1.5)


def mute_if_first_is_short(prompt):
    """Says nothing where answer A is one letter; else prefers A."""
    if len(section(prompt, "answer A")) == 1:
        return "I cannot say.", (None, -0.2)
    return "[[A]]", (-0.2, -1.2)


def mute(prompt):
    return "I would rather not.", (None, None)


for rule in (
    by_length, words, echo, always_first, always_tie, longer, mute_if_first_is_short, mute
):
    globals()["open_" + rule.__name__] = teacher(rule)
'''


@pytest.fixture
def plugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of judges, importable as `own_judges`; `asked` lists what they were asked."""
    (tmp_path / "own_judges.py").write_text(PLUGS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("own_judges")
    yield module
    del sys.modules["own_judges"]


@pytest.fixture
def asker(tmp_path: Path) -> Asker:
    return Asker(AnswerStore(tmp_path / "store"))


@pytest.fixture
def runtime(asker: Asker) -> Runtime:
    return Runtime("cpu", "float32", ask=asker)


@pytest.fixture
def answer() -> Callable[..., Answer]:
    """`answer(response, teacher="ash", key="i", instruction="Say it.", **row)`."""

    def make(
        response: str,
        teacher: str = "ash",
        key: str = "i",
        instruction: str = "Say it.",
        **row: Any,
    ) -> Answer:
        return Answer(key, instruction, teacher, response, row=row)

    return make


@pytest.fixture
def reply() -> Callable[..., Reply]:
    """`reply(text, logprobs=())`."""
    return lambda text, logprobs=(): Reply(text, "stop", 1, label_logprobs=tuple(logprobs))
