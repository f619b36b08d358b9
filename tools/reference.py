"""The tables of the reference pages, made from the settings, the command line and the criteria.

A page in `docs/reference/` is prose, with tables between two comments:

    <!-- settings: Select base answers; Race -->   of a settings class, the rows that are named, or
                                                   all that it says itself
    <!-- commands -->                              every verb
    <!-- command: select -->                       arguments and options of a verb
    <!-- criteria: car grape -->                   criteria
    <!-- options -->                               options of criteria
    <!-- end -->

`python -m tools.reference` writes the tables anew. With `--check` nothing is written, and the exit
status is 1 where a table is not as it should be. A test does the same, so no table drifts.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from preceptor.cli import app
from preceptor.core.criterion import Criterion, as_criterion
from preceptor.core.plugs import plug
from preceptor.criteria import CRITERIA
from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.starter import RECIPES
from tools.setting_words import as_yaml, default, describe

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
PAGES = ("settings.md", "cli.md", "criteria.md")
_TABLE = re.compile(
    r"^(<!-- (settings|commands|command|criteria|options)(?:: ([^\n]*?))? -->)\n.*?^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)


def rewritten(text: str) -> str:
    """A page with all of its tables made anew."""
    return _TABLE.sub(
        lambda found: f"{found[1]}\n\n{_table(*found.groups())}\n\n<!-- end -->", text
    )


def _table(_: str, kind: str, names: str | None) -> str:
    if kind == "settings":
        rows = [row(owner, name) for owner, name in named_settings(names or "")]
        return "\n".join(["| Setting | Type | Default | Meaning |", "|---|---|---|---|", *rows])
    if kind == "commands":
        rows = [f"| [`{verb}`](#{verb.split()[0]}) | {summary(verb)} |" for verb in commands()]
        return "\n".join(["| Verb | Does |", "|---|---|", *rows])
    if kind == "command":
        head = ["| Argument or option | Default | Meaning |", "|---|---|---|"]
        return "\n".join([*head, *command_rows(names or "")])
    if kind == "criteria":
        head = ["| Name | Score | Better | Unit | Needs | Source |", "|---|---|---|---|---|---|"]
        return "\n".join([*head, *(criterion_row(name) for name in (names or "").split())])
    head = ["| Criterion | Option | Type | Default |", "|---|---|---|---|"]
    return "\n".join([*head, *option_rows()])


# settings


def settings_classes() -> dict[str, type[Settings]]:
    """Every class that a settings file may hold, and what they are derived from, by name."""
    found: dict[str, type[Settings]] = {}
    waiting: list[type[Settings]] = list(RECIPES.values())
    while waiting:
        kind = waiting.pop()
        assert found.setdefault(kind.__name__, kind) is kind, f"two classes {kind.__name__}"
        fields = [field.annotation for field in kind.model_fields.values()]
        near = {*kind.__bases__, *(own for each in fields for own in _classes_in(each))}
        waiting += [
            own for own in near if issubclass(own, Settings) and own.__name__ not in found
            if own is not Settings
        ]  # fmt: skip
    return found


def _classes_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for part in get_args(annotation):
        yield from _classes_in(part)


def named_settings(names: str) -> list[tuple[type[Settings], str]]:
    """(class, field) of each row of a table; `names` is what its comment says."""
    known, rows = settings_classes(), []
    for part in names.split(";"):
        owner, *fields = part.split()
        kind = known[owner]
        own = [name for name in inspect.get_annotations(kind) if not _only_tags(kind, name)]
        rows += [(kind, name) for name in fields or own if name in kind.model_fields]
        assert all(name in kind.model_fields for name in fields), f"{owner} lacks one of {fields}"
    return rows


def _only_tags(kind: type[Settings], name: str) -> bool:
    """Whether the field only says which class of a union this is."""
    field = kind.model_fields.get(name)
    literal = field is not None and get_origin(field.annotation) is Literal
    return name == "kind" and literal and len(get_args(field.annotation)) == 1  # type: ignore[union-attr]


def row(owner: type[Settings], name: str) -> str:
    """One setting: its name, what it may be, what it is if it is not set, and what it means."""
    field = owner.model_fields[name]
    kind = describe(field.annotation, tuple(field.metadata))
    meaning = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{name}` | {kind} | {default(field)} | {meaning} |"


def untold(text: str) -> list[str]:
    """Settings that no table of the page tells, or that have no words, as `Class.name`."""
    rows = {
        (owner.__name__, name): row(owner, name)
        for _, kind, names in (found.groups() for found in _TABLE.finditer(text))
        if kind == "settings"
        for owner, name in named_settings(names)
    }
    return [
        f"{kind.__name__}.{name}"
        for kind in settings_classes().values()
        for name, field in kind.model_fields.items()
        if not _only_tags(kind, name)
        if not field.description
        or not any(rows.get((own.__name__, name)) == row(kind, name) for own in kind.__mro__)
    ]


# the command line


def commands() -> dict[str, Any]:
    """Every verb of the program; those of a group as `store list`."""
    found = {}
    for name, command in getattr(typer.main.get_command(app), "commands", {}).items():
        inner = getattr(command, "commands", None)
        found |= (
            {f"{name} {own}": each for own, each in inner.items()} if inner else {name: command}
        )
    return found


def summary(verb: str) -> str:
    """The first paragraph of a verb's help, as a part of a sentence."""
    text = " ".join((commands()[verb].help or "").split("\n\n")[0].split()).rstrip(".")
    return text[0].lower() + text[1:]


def command_rows(verb: str) -> list[str]:
    """A row an argument or option of a verb."""
    command = commands()[verb]
    hints = get_type_hints(command.callback)
    own_first = sorted(command.params, key=lambda own: own.param_type_name != "argument")
    return [_parameter(own, str(hints[own.name])) for own in own_first]


def _parameter(own: Any, kind: str) -> str:
    words = {"Path": "PATH", "int": "N", "float": "NUMBER", "str": "NAME"}
    word = next((words[name] for name in words if name in kind), "")
    if own.param_type_name == "argument":
        name = f"`{own.metavar or own.name.upper()}`"
    else:
        flag = getattr(own, "is_flag", False)
        value = "" if flag else f" {own.metavar or word}"
        name = " / ".join(f"`{option}{value}`" for option in (*own.opts, *own.secondary_opts))
    several = getattr(own, "multiple", False)
    meaning = own.help.rstrip(".") + ("; may stand several times" if several else "")
    return f"| {name} | {_default_of(own)} | {meaning} |"


def _default_of(own: Any) -> str:
    if own.required:
        return "required"
    if getattr(own, "is_flag", False):
        return "on" if own.default is True else "off"
    value = own.default
    return f"`{value}`" if isinstance(value, str | int | float) and value != "" else "none"


# criteria


def criterion(name: str) -> Criterion:
    return as_criterion(name, plug("criterion", CRITERIA, name))


def criterion_row(name: str) -> str:
    """One criterion: its first line, marks and sources."""
    own = criterion(name)
    text = " ".join((inspect.getdoc(own.score) or "").split())
    ids = dict.fromkeys(re.findall(r"\b\d{4}\.\d{5}\b", text.partition("Source")[2]))
    sources = ", ".join(f"[{each}](https://arxiv.org/abs/{each})" for each in ids)
    needs = [f"`{each}`" for each in sorted(own.needs)]
    if own.tokens:
        needs.append(", ".join(f"`{each}`" for each in sorted(own.tokens)) + " of tokens")
    needs += ["gradients"] if own.gradients else []
    score = own.description.rstrip(".").replace("|", "\\|")
    shown = ", ".join(needs) or "nothing"
    cells = (f"`{name}`", score, own.direction, own.unit, shown, sources or "a control")
    return f"| {' | '.join(cells)} |"


def option_rows() -> list[str]:
    """Every option of every criterion on the shelf, with what it may be."""
    rows = []
    for name in CRITERIA:
        own = criterion(name)
        for part in (own.score, own.features):
            for option in (
                inspect.signature(part, eval_str=True).parameters.values() if part else ()
            ):
                if option.default is inspect.Parameter.empty or option.name in own.parameters:
                    continue
                kind = describe(option.annotation)
                rows.append(
                    f"| `{name}` | `{option.name}` | {kind} | `{as_yaml(option.default)}` |"
                )
    return rows


def main() -> int:
    """Write the pages anew, or only look; what is not as it should be is printed."""
    parser = argparse.ArgumentParser(description="Make the tables of docs/reference/ anew.")
    parser.add_argument("--check", action="store_true", help="only look, and write nothing")
    check = parser.parse_args().check
    stale = []
    for name in PAGES:
        page = FOLDER / name
        text = page.read_text("utf-8")
        fresh = rewritten(text)
        if fresh != text:
            stale.append(name)
            if not check:
                page.write_text(fresh, "utf-8")
    for name in stale:
        print(f"{name}: {'its tables are not those of the code' if check else 'written'}")
    missing = untold((FOLDER / "settings.md").read_text("utf-8"))
    for setting in missing:
        print(f"settings.md does not tell {setting}")
    return int(bool(missing) or (check and bool(stale)))


if __name__ == "__main__":
    raise SystemExit(main())
