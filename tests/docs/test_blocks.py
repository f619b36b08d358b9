"""The runner of the pages refuses what it could not check, and notices what is not so."""

from __future__ import annotations

from pathlib import Path

import pytest
from blocks import Block, PageError, blocks_of, outcome_of
from givens import Givens
from printed import check_output
from running import run_page

FENCE = "```"


def page(folder: Path, text: str) -> Path:
    """A page; `~` begins and ends a block."""
    path = folder / "page.md"
    path.write_text(text.replace("~", FENCE).strip() + "\n", encoding="utf-8")
    return path


def test_what_a_block_is(tmp_path: Path) -> None:
    found = blocks_of(
        page(
            tmp_path,
            """
1. A list, with a block in it:

   <!-- test: given models/a -->
   <!-- test: with beta=1 -->
   ~sh
   preceptor lab
     more
   ~

~yaml title="a/b.yaml"
beta: 1
~
""",
        )
    )
    assert [(b.line, b.language, b.title) for b in found] == [
        (5, "sh", ""),
        (10, "yaml", "a/b.yaml"),
    ]
    assert found[0].text == "preceptor lab\n  more\n"
    assert found[0].directives == (("given", "models/a"), ("with", "beta=1"))
    assert [outcome_of(block) for block in found] == ["run, made small", "checked as settings"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<!-- test: skip -->\n~sh\nls\n~", "unknown directive 'skip'"),
        ("<!-- test: parse -->\n~sh\nls\n~", "needs a reason"),
        ("<!-- test: parse no GPU -->\n<!-- test: output -->\n~text\nx\n~", "exclude each other"),
        ("<!-- test: plan -->\n\n~sh\nls\n~", "on the line before a block"),
        ("<!-- test: parse no\nGPU -->\n~sh\nls\n~", "one line by itself"),
        ("~text\nhello\n~", "a text block needs a title or a directive"),
        ("~\nhello\n~", "a plain block needs a title or a directive"),
        ("~sh hl_lines=1\nls\n~", "a language and a title"),
        ("~sh\nls", "has no end"),
        ("<!-- test: with beta=1 -->\n~python\n1\n~", "says nothing of a python block"),
        ("<!-- test: given -->\n~sh\nls\n~", "names nothing"),
        ("<!-- test: output -->\n~text\nhello\n~", "no block before this one was run"),
        ("~sh\necho 1\n~\n<!-- test: output -->\n~text\n…\n~", "nothing is shown"),
        ("~sh\necho 1\n~\n<!-- test: output -->\n~text\n2\n~", "printed was\n1"),
        ("<!-- test: given data/none.csv -->\n~sh\nls\n~", "nothing is known of 'data/none.csv'"),
        ("<!-- test: by tests/test_nothing.py -->\n~sh\nls\n~", "no test tests/test_nothing.py"),
        ("<!-- test: by tests/test_cli.py -->\n~sh\nls\n~", "does not read this page"),
        ("~sh\npip install 'preceptor[train]'\n~", "nothing here is run"),
        ("~sh\nls nowhere\n~", "ended with status"),
        ("<!-- test: fails -->\n~sh\ntrue\n~", "ended with status 0, not 2"),
        ("<!-- test: with beta=1 -->\n~sh\nls\n~", "no command here takes beta=1"),
        ("<!-- test: plan -->\n~sh\npreceptor lab\n~", "no command here takes --dry-run"),
        ("<!-- test: parse for once -->\n~sh\npip install '.[gpu]'\n~", "no extra 'gpu'"),
        ("<!-- test: parse for once -->\n~sh\nmake tea\n~", "no target 'tea'"),
        ("<!-- test: parse for once -->\n~sh\nif\n~", "bash cannot read this"),
        ("<!-- test: parse for once -->\n~sh\npreceptor elect\n~", "no command 'elect'"),
        ("<!-- test: parse for once -->\n~sh\npreceptor init --all\n~", "--all"),
        ("<!-- test: parse for once -->\n~sh\npreceptor select\n~", "select"),
        ("<!-- test: parse for once -->\n~sh\npreceptor sft a.yaml betta=1 --out b\n~", "'betta'"),
        ("<!-- test: parse for once -->\n~python\nimport (\n~", "page.md"),
        ("~yaml\nbetta: 1\n~", "no recipe has all of betta"),
        ("~yaml\nbeta: -1\n~", "these are no settings"),
        ("~yaml\n- lab\n~", "must say where a list belongs"),
        ("<!-- test: settings evaluate.benchmarks -->\n~yaml\n- lob\n~", "these are no settings"),
        ("~json\n{'a': 1}\n~", "Expecting"),
    ],
)
def test_what_is_refused(tmp_path: Path, givens: Givens, text: str, fault: str) -> None:
    with pytest.raises((PageError, ValueError), match=fault):
        run_page(page(tmp_path, text), tmp_path, givens)


def test_blocks_run_in_one_folder_and_share_names(tmp_path: Path, givens: Givens) -> None:
    text = """
~sh
export WORD=one
echo $WORD > words.txt
~

~python title="my_words.py"
def words():
    return open("words.txt").read().split()
~

~python
from my_words import words

found = words()
~

~python
print(found, 12)
~

<!-- test: output within=20% -->
~text
['one'] 10
~

<!-- test: fails 3 -->
~python
raise SystemExit(3)
~

<!-- test: settings evaluate.benchmarks -->
~yaml
- lab
~
"""
    run_page(page(tmp_path, text), tmp_path, givens)
    assert (tmp_path / "page" / "words.txt").read_text() == "one\n"


@pytest.mark.parametrize(
    ("options", "shown", "printed", "same"),
    [
        ("", "a 1\nb 2", "a 1\nb 2\n", True),
        ("", "a 1\nb 2", "a 1\nb 3\n", False),
        ("", "a 1", "a 1\nb 2\n", False),
        ("", "b 2", "a 1\nb 2\n", False),
        ("", "…\nb 2", "a 1\nb 2\n", True),
        ("", "a 1\n…", "a 1\nb 2\n", True),
        ("", "a 1\n…\nd", "a 1\nb\nc\nd\n", True),
        ("", "a 1\n…\nc", "a 1\nb\nc\nd\n", False),
        ("last-digit=1", "x 0.25", "x   0.26", True),
        ("last-digit=1", "x 0.25", "x 0.27", False),
        ("last-digit=1", "x 0.25", "y 0.25", False),
        ("last-digit=1", "birch 1,180 ───", "birch 1,181 ─────", True),
        ("within=5%", "100 steps", "104 steps", True),
        ("within=5%", "100 steps", "106 steps", False),
        ("numbers=any", "took 1.0 s", "took 77 s", True),
        ("numbers=any", "took 1.0 s", "took 77 ms", False),
    ],
)
def test_what_counts_as_the_same_output(
    tmp_path: Path, options: str, shown: str, printed: str, same: bool
) -> None:
    block = Block(tmp_path / "p.md", 1, "text", "", shown + "\n", (("output", options),))
    if same:
        check_output(block, printed)
    else:
        with pytest.raises(PageError, match="printed was"):
            check_output(block, printed)


def test_an_option_of_output_is_known(tmp_path: Path) -> None:
    block = Block(tmp_path / "p.md", 1, "text", "", "1\n", (("output", "about=1"),))
    with pytest.raises(PageError, match="no option about"):
        check_output(block, "1\n")
