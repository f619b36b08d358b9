"""What can be known of commands and code that cannot be run where the tests run."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import tomllib

from blocks import ROOT, Block, PageError
from commands import is_pip, lines_of, verb_of

from preceptor.recipes.starter import RECIPES


def parse_shell(block: Block) -> None:
    """Bash can read the block, and what it says of preceptor is so (raises PageError)."""
    done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True)
    if done.returncode:
        raise PageError(f"{block.place}: bash cannot read this: {done.stderr}")
    for line in lines_of(block.text):
        parse_line(block, line)


def parse_line(block: Block, line: str) -> None:
    """Verbs, options, overrides, extras, targets of `make` and modules of one line exist."""
    words = shlex.split(line, comments=True)
    if is_pip(line):
        check_extras(block.place, words)
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        for word in words[1:]:
            if "=" not in word and word not in targets:
                raise PageError(f"{block.place}: no target {word!r} in the Makefile")
    elif words[:2] == ["python", "-m"]:
        if importlib.util.find_spec(words[2]) is None:
            raise PageError(f"{block.place}: no module {words[2]!r}")
    elif "preceptor" in words:
        ends = [place for place, word in enumerate(words) if set(word) <= set("|&;<>")]
        first = words.index("preceptor") + 1
        parse_call(block.place, words[first : ends[0] if ends else None])


def parse_call(place: str, words: list[str]) -> None:
    """The command line takes these words (raises PageError)."""
    if words[:1] == ["--help"]:
        return
    command, names = verb_of(place, words), words
    while names and names[0] != command.name:
        names = names[1:]
    try:
        command.make_context(command.name, list(names[1:]))
    except Exception as error:  # of click, which typer may carry itself
        raise PageError(f"{place}: `preceptor {shlex.join(words)}`: {error}") from error
    for word in names[1:]:
        key = re.match(r"([a-z_]+)[\w.]*=", word)
        if key and command.name in RECIPES and key[1] not in RECIPES[command.name].model_fields:
            raise PageError(f"{place}: no setting {key[1]!r} of {command.name}")


def check_extras(place: str, words: list[str]) -> None:
    """Extras of preceptor that are installed are those of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for word in words:
        named = re.match(r"(?:\.|preceptor)\[([\w,-]+)\]", word)
        for extra in named[1].split(",") if named else []:
            if extra not in project["optional-dependencies"]:
                raise PageError(f"{place}: no extra {extra!r} in pyproject.toml")


def imports_of(block: Block) -> str:
    """The imports from preceptor that a Python block makes, as code (raises PageError)."""
    try:
        tree = ast.parse(block.text)
    except SyntaxError as error:
        raise PageError(f"{block.place}: {error}") from error
    found = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preceptor"))
        or (isinstance(node, ast.Import) and node.names[0].name.startswith("preceptor"))
    ]
    return "\n".join(found)
