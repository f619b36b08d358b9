"""A page, block by block, in one folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import yaml
from blocks import ROOT, SHELL, Block, PageError, blocks_of, outcome_of
from commands import Printed, is_pip, lines_of, run_shell
from givens import Givens
from parsing import imports_of, parse_line, parse_shell
from printed import check_output, with_output
from session import Session
from settings_parts import check_settings

WRITE = os.environ.get("PRECEPTOR_WRITE_OUTPUT") == "1"  # put what is printed into the pages


def run_page(page: Path, folder: Path, givens: Givens) -> None:
    """Do with every block what its directives say (raises PageError).

    Args:
        folder: an empty one; the blocks run in `page` in it.
    """
    place = folder / "page"
    place.mkdir()
    session = Session(place)
    text = page.read_text("utf-8")
    try:
        last: Printed | None = None
        for number, block in enumerate(blocks_of(page)):
            outcome_of(block)
            for names in block.said("given"):
                for name in names.split():
                    givens.put(name, place)
            if block.title:
                _write(block, place)
            if block.said("output"):
                if last is None:
                    raise PageError(f"{block.place}: no block before this one was run")
                found = last.err if last.status else last.out
                if WRITE:
                    text = with_output(page, text, number, found)
                else:
                    check_output(block, found)
            elif block.said("by"):
                _check_by(block)
            elif block.said("parse"):
                _parse(block, session, folder / f"settings-{block.line}")
            else:
                last = _run(block, place, session, folder / f"settings-{block.line}") or last
    finally:
        session.close()
        if WRITE:
            page.write_text(text, encoding="utf-8")


def _write(block: Block, place: Path) -> None:
    path = place / block.title
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


def _run(block: Block, place: Path, session: Session, scratch: Path) -> Printed | None:
    """Run a block, or check its text; what it printed, if it ran."""
    if block.language in SHELL:
        for line in filter(is_pip, lines_of(block.text)):
            parse_line(block, line)
        return _ended(block, run_shell(block, place))
    if block.language in ("python", "sql"):
        code = "\n" * block.line + block.text  # so that tracebacks tell the page's lines
        if block.language == "python" and block.title:
            code = f"import {Path(block.title).stem}"
        return _ended(block, session(block.language, code, block.place))
    if block.language == "yaml":
        scratch.mkdir()
        check_settings(block, scratch)
        for name in block.said("into"):
            _merge(block, place / name)
    elif block.language == "json":
        json.loads(block.text)
    return None


def _ended(block: Block, done: Printed) -> Printed:
    wanted = int((block.said("fails") or ["0"])[0] or 2)
    if done.status != wanted:
        raise PageError(
            f"{block.place} ended with status {done.status}, not {wanted}\n{block.text}"
            f"---- standard output\n{done.out}\n---- standard error\n{done.err}"
        )
    return done


def _merge(block: Block, path: Path) -> None:
    """Settings of a block take their place in a file."""
    tree = yaml.safe_load(path.read_text("utf-8")) | yaml.safe_load(block.text)
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def _parse(block: Block, session: Session, scratch: Path) -> None:
    if block.language in SHELL:
        parse_shell(block)
    elif block.language == "python":
        code = imports_of(block)
        if code:
            _ended(block, session("python", code, block.place))
    elif block.language == "yaml":
        scratch.mkdir()
        check_settings(block, scratch)


def _check_by(block: Block) -> None:
    """The test that is named is there, and reads this page (raises PageError)."""
    [name] = block.said("by")
    path = ROOT / name
    if not path.is_file() or not path.name.startswith("test_"):
        raise PageError(f"{block.place}: no test {name}")
    if f'"{block.page.name}"' not in path.read_text("utf-8"):
        raise PageError(f"{block.place}: {name} does not read this page")
