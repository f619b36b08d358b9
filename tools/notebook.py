"""The notebook of `examples/` with its outputs: run, and compared in kind with what is stored.

`python -m tools.notebook` runs it in an empty folder and stores its outputs. A test runs it, too,
and holds what it shows against what is stored: the same kinds of output in every cell, and the same
words. Numbers and figures may differ from machine to machine.
"""

from __future__ import annotations

import copy
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "choose_a_teacher.ipynb"
SECONDS = 300  # for one cell


def executed(path: Path, folder: Path) -> Any:
    """The notebook after all its cells ran in `folder` (raises CellExecutionError)."""
    notebook = copy.deepcopy(nbformat.read(path, as_version=4))
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return notebook


def kinds(notebook: Any) -> list[list[str]]:
    """What each code cell shows, output by output: its kind, and its words without numbers."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[_kind(output) for output in cell.outputs] for cell in cells]


def _kind(output: Any) -> str:
    if output.output_type == "stream":
        return f"stream {output.name}: {_words(output.text)}"
    if output.output_type == "error":
        return f"error {output.ename}"
    text = _words(output.data.get("text/plain", ""))
    return f"{output.output_type} {sorted(output.data)}: {text}"


def _words(text: str) -> str:
    """The first line without what a machine or a last digit decides."""
    line = text.strip().split("\n")[0]
    line = re.sub(r", [\d,.]+/s.*", "", line)  # rates and times of the progress display
    return re.sub(r"[\d.]+", "#", line)


def store(path: Path) -> int:
    """Run the notebook and write it with its outputs; how many characters it has then."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(path, Path(folder))
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(f"{NOTEBOOK}: {store(NOTEBOOK):,} characters\n")
