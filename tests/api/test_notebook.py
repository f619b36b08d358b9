"""The notebook of `examples/` runs, and shows what is stored with it, progress included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools.notebook import NOTEBOOK, executed, kinds

PROGRESS = """
from preceptor.core.progress import progress, quietly, say
with progress("asking <ash>", 10, "answers", done=4) as advance:
    for _ in range(6):
        advance(1, 15)
with quietly(), progress("unseen", 10, "answers") as advance:
    advance(10)
say("warning: x")
"""


@pytest.fixture(scope="module")
def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after it ran in an empty folder."""
    return executed(NOTEBOOK, tmp_path_factory.mktemp("notebook"))


def test_it_shows_what_is_stored(run: Any, stored: Any) -> None:
    """The same kinds of output in every cell, and the same words; `python -m tools.notebook`."""
    assert kinds(run) == kinds(stored)
    assert [cell.source for cell in run.cells] == [cell.source for cell in stored.cells]


def test_what_it_shows(run: Any) -> None:
    """Tables, figures and progress; nothing on standard error, which notebooks show as a fault."""
    outputs = [out for cell in run.cells if cell.cell_type == "code" for out in cell.outputs]
    streams = {out.name for out in outputs if out.output_type == "stream"}
    assert streams <= {"stdout"}
    data = [out.data for out in outputs if out.output_type in ("display_data", "execute_result")]
    assert sum("image/png" in own for own in data) == 5
    assert sum("<table>" in own.get("text/html", "") for own in data) == 3
    assert any("<progress " in own.get("text/html", "") for own in data)


def test_what_is_stored_is_small_and_tells_nothing_of_a_machine(stored: Any) -> None:
    text = NOTEBOOK.read_text("utf-8")
    assert len(text) < 400_000
    assert "/tmp" not in text and str(Path.home()) not in text and "Traceback" not in text
    nbformat.validate(stored)
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_progress_in_a_notebook(tmp_path: Path) -> None:
    """One output that changes in its place, and words as plain output; quiet is quiet."""
    cell = nbformat.v4.new_code_cell(PROGRESS)
    path = tmp_path / "progress.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    [ran] = executed(path, tmp_path).cells
    shown, said = ran.outputs
    assert shown.data["text/plain"].startswith("asking <ash>: 10/10 answers, ")
    assert shown.data["text/html"].startswith(
        '<div><progress value="10" max="10"></progress> asking &lt;ash&gt;: 10/10 answers, '
    )
    assert (said.name, said.text) == ("stdout", "warning: x\n")
