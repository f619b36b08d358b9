"""The reference pages tell every setting, flag and criterion as the code has it, and no other."""

from __future__ import annotations

import re

import pytest

from preceptor.criteria import CRITERIA
from preceptor.recipes.starter import RECIPES
from tools.reference import FOLDER, PAGES, commands, criterion_row, rewritten, untold

SETTINGS = (FOLDER / "settings.md").read_text("utf-8")
LINES = (FOLDER / "cli.md").read_text("utf-8")
TABLES = (FOLDER / "criteria.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_those_of_the_code(page: str) -> None:
    text = (FOLDER / page).read_text("utf-8")
    assert "<!-- end -->" in text
    assert rewritten(text) == text, "run `python -m tools.reference`"


def test_a_table_that_has_drifted_is_noticed() -> None:
    row = next(line for line in SETTINGS.splitlines() if line.startswith("| `beta` |"))
    assert "number ≥ 0" in row and "`3.0`" in row
    assert rewritten(SETTINGS.replace(row, row.replace("3.0", "1.0"))) == SETTINGS
    assert rewritten(SETTINGS.replace(row + "\n", "")) == SETTINGS
    assert untold(SETTINGS.replace("<!-- settings: Race -->", "<!-- race -->")) == [
        "Race.confidence",
        "Race.first",
        "Race.growth",
        "Race.budget",
        "Race.tokens",
    ]


def test_every_setting_is_told_once_or_more_and_has_words() -> None:
    assert untold(SETTINGS) == []
    for recipe in RECIPES:
        assert re.search(rf"^\| `{recipe}` \| .*\]\(#", SETTINGS, re.MULTILINE), recipe


def test_types_defaults_and_links_read_well() -> None:
    """One row of each kind of type, as a reader meets it."""
    for row in (
        "| `base` | [model](#...) | ",
        "| `answers` | [source](#a-source), or list of them | none |",
        "| `teachers` | list of [teachers](#a-teacher) | none |",
        "| `rewards` | list of [rewards](#a-reward), at least 1 | required |",
        "| `confidence` | number in (0.5, 1) | `0.95` |",
        "| `max_instructions` | integer ≥ 2 | none |",
        "| `betas` | list of numbers ≥ 0 | `[0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0]` |",
        "| `loss_reduction` | `answers` or `tokens` | `answers` |",
        "| `teacher_facts` | mapping of names to [facts](#facts) | none |",
        "| `step_separator` | text, not empty | a line break |",
        "| `fleet` | [fleet](#a-fleet) | all defaults |",
        "| `trust_remote_code` | true or false | `false` |",
        "| `learning_rate` | number > 0 | `2e-5` |",
        "| `workers` | integer ≥ 1 or pair of integers ≥ 1 | `1` |",
        "| `training` | [training](#training) | `car_paper` |",
        "| `kind` | `module:function` | required |",
    ):
        assert row.replace("[model](#...)", "model") in SETTINGS, row


def test_every_link_of_the_settings_leads_to_a_section() -> None:
    heads = re.findall(r"^#+ (.*)$", SETTINGS, re.MULTILINE)
    places = {
        own[1]
        if (own := re.search(r"\{ #([\w-]+) \}", head))
        else re.sub(r"\W+", "-", head.lower())
        for head in heads
    }
    assert {*re.findall(r"\]\(#([\w-]+)\)", SETTINGS)} <= places


def test_every_verb_has_a_section_that_shows_what_it_requires() -> None:
    for verb, command in commands().items():
        heads = [line for line in LINES.splitlines() if line.startswith("## `preceptor")]
        head = next(line for line in heads if re.search(rf"`preceptor {verb}[ `]", line))
        for own in command.params:
            if own.required and own.param_type_name == "option":
                assert own.opts[0] in head, (verb, own.opts)
        if command.params and verb != "store compact":
            assert f"<!-- command: {verb} -->" in LINES, verb
        [link] = re.findall(rf"^\| \[`{verb}`\]\(#([\w-]+)\)", LINES, re.MULTILINE)
        assert f"{{ #{link} }}" in LINES


def test_every_criterion_stands_in_one_table_with_its_source() -> None:
    for name in CRITERIA:
        assert TABLES.count(criterion_row(name)) == 1, name
    assert "[2411.07133](https://arxiv.org/abs/2411.07133)" in criterion_row("car")
    assert criterion_row("cost").endswith("| a control |")
    for name in CRITERIA:  # what the sources leave open, or where it was shown
        assert TABLES.count(f"`{name}`") >= 1 + (name not in ("length", "mean_reward")), name
