"""Commands of a page, run as they are typed.

A line that calls `preceptor` runs in a process forked from one that has imported its libraries. Any
other line goes to bash, and so does the whole of a block that needs a shell's memory: a job in the
background, a variable.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from blocks import Block, PageError

from forked import start
from preceptor.cli import app
from preceptor.recipes.starter import RECIPES

SECONDS = 240  # the longest that a block may take
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
WHOLE = re.compile(r"&\s*$|\$|<<|^(cd|export|source|for|while|if|wait)\b", re.MULTILINE)
CALL = re.compile(r"""(?<![\w\[-])preceptor +([a-z][\w-]*)(?:'[^']*'|"[^"]*"|[^|&;<>#'"])*""")


@dataclass(frozen=True)
class Printed:
    """How commands ended, and what they printed."""

    status: int
    out: str
    err: str


def lines_of(text: str) -> list[str]:
    """The commands of a block, without comments and empty lines; continued ones in one."""
    joined = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in joined if line and not line.startswith("#")]


def is_pip(line: str) -> bool:
    return bool(re.match(r"(python3? -m )?pip install ", line))


def run_shell(block: Block, folder: Path) -> Printed:
    """Run a block's commands up to the first that fails; none that installs."""
    lines = [_added(block, line) for line in lines_of(block.text) if not is_pip(line)]
    if not lines:
        raise PageError(f"{block.place}: nothing here is run; say `parse`, and why")
    _refuse_idle(block, lines)
    if WHOLE.search("\n".join(lines)):
        return run_bash("\n".join(lines), folder)
    done: list[Printed] = []
    for line in lines:
        variables, words = _words(line)
        alone = words[:1] == ["preceptor"] and not _operators(line)
        done.append(
            run_preceptor(words[1:], folder, variables) if alone else run_bash(line, folder)
        )
        if done[-1].status:
            break
    status = done[-1].status if done else 0
    return Printed(status, "".join(each.out for each in done), "".join(each.err for each in done))


def _words(line: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a line sets for its command, and the command."""
    words = shlex.split(line, comments=True)
    variables: dict[str, str] = {}
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    return variables, words


def _operators(line: str) -> bool:
    tokens = shlex.shlex(line, posix=True, punctuation_chars=True)
    return any(set(token) <= set("();<>|&") for token in tokens if token)


def run_bash(text: str, folder: Path) -> Printed:
    """Run text in bash, with the package's own script on the path; what it started ends with it."""
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, **ENVIRONMENT, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            process.wait(SECONDS)
        finally:
            _end(process.pid)
            process.wait()
        out.seek(0)
        err.seek(0)
        return Printed(process.returncode, out.read(), err.read())


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # all of them have ended


def run_preceptor(words: list[str], folder: Path, variables: dict[str, str]) -> Printed:
    """Run one command as the package's script would."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        process = start(_preceptor, words, str(folder), variables, str(out), str(err))
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        assert process.exitcode is not None
        return Printed(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))


def _preceptor(
    words: list[str], folder: str, variables: dict[str, str], out: str, err: str
) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    settle(folder, variables)
    sys.argv = ["preceptor", *words]
    from preceptor.cli import main

    main()


def settle(folder: str, variables: dict[str, str]) -> None:
    """Make this forked process look like one that was started in a folder."""
    import torch

    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ.update(ENVIRONMENT | variables)
    added = [str(Path(p).resolve()) for p in variables.get("PYTHONPATH", "").split(":") if p]
    sys.path[:] = [*added, *(path for path in sys.path if path)]


# ---------------------------------------------------------------- what directives add


def verb_of(place: str, words: list[str]) -> Any:
    """The verb that is called, as the command line knows it (raises PageError)."""
    found: Any = typer.main.get_command(app)
    for word in words:
        inner = getattr(found, "commands", {})
        if not inner:
            break
        if word not in inner:
            raise PageError(f"{place}: no command {word!r} of {', '.join(inner)}")
        found = inner[word]
    return found


def parameters_of(place: str, verb: str) -> set[str]:
    return {
        option
        for parameter in verb_of(place, [verb]).params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


def additions(block: Block, verb: str) -> list[str]:
    """What the directives add to a command of this verb."""
    known = parameters_of(block.place, verb)
    added = ["--dry-run"] if block.said("plan") and "--dry-run" in known else []
    for text in block.said("with"):
        words = shlex.split(text)
        only = words.pop(0) if re.fullmatch(r"[a-z-]*[a-z]", words[0]) else verb
        for word in words if only == verb else []:
            name = word.partition("=")[0]
            if name in known or ("overrides" in known and _is_setting(verb, name)):
                added.append(word)
    return added


def _is_setting(verb: str, name: str) -> bool:
    recipes = [verb] if verb in RECIPES else RECIPES
    return any(name.split(".")[0] in RECIPES[recipe].model_fields for recipe in recipes)


def _added(block: Block, line: str) -> str:
    def longer(call: re.Match[str]) -> str:
        added = additions(block, call[1])
        return f"{call[0].rstrip()} {shlex.join(added)} " if added else call[0]

    return CALL.sub(longer, line)


def _refuse_idle(block: Block, lines: list[str]) -> None:
    """Each word of a directive reached a command (raises PageError)."""
    wanted = [word for text in block.said("with") for word in shlex.split(text)]
    wanted = [shlex.quote(word) for word in wanted if "=" in word or word.startswith("-")]
    if block.said("plan"):
        wanted.append("--dry-run")
    for word in wanted:
        if not any(word in line for line in lines):
            raise PageError(f"{block.place}: no command here takes {word}")
