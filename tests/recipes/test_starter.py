"""`preceptor init` and `preceptor schema`: a file that runs as it stands, and its schema."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from preceptor.core.errors import PreceptorError, SettingsError
from preceptor.lab.cast import TEACHERS
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select
from preceptor.recipes.starter import RECIPES, settings_schema, write_starter


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every object schema inside a schema."""
    found = []
    if isinstance(schema, dict):
        found = [schema] if schema.get("type") == "object" else []
        found += [inner for value in schema.values() for inner in objects(value)]
    if isinstance(schema, list):
        found = [inner for value in schema for inner in objects(value)]
    return found


def test_the_starter_is_the_packaged_file_and_validates(tmp_path: Path) -> None:
    written = write_starter(tmp_path / "new" / "mine.yaml")
    assert [path.name for path in written] == ["mine.yaml", "mine.schema.json"]
    packaged = resources.files("preceptor.recipes").joinpath("select.yaml").read_text("utf-8")
    head, _, rest = written[0].read_text("utf-8").partition("\n")
    assert head == "# yaml-language-server: $schema=mine.schema.json"
    assert rest == packaged
    settings = load_settings(Select, written[0])
    assert settings == Select.model_validate(yaml.safe_load(packaged))
    assert settings.base == "lab:base-notes"
    assert [t.model for t in settings.teachers] == [f"lab:{member.name}" for member in TEACHERS]
    assert json.loads(written[1].read_text("utf-8")) == settings_schema("select")


def test_the_schema_is_closed_and_knows_the_starter() -> None:
    schema = settings_schema("select")
    closed = [inner for inner in objects(schema) if "properties" in inner]
    assert all(inner["additionalProperties"] is False for inner in closed)
    assert len(closed) == 22
    packaged = resources.files("preceptor.recipes").joinpath("select.yaml").read_text("utf-8")
    assert set(yaml.safe_load(packaged)) <= set(schema["properties"])
    assert sorted(schema["required"]) == ["base", "rewards"]
    assert schema["properties"]["beta"]["default"] == 3.0
    assert "not stated by the paper" in schema["properties"]["beta"]["description"]


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "select.yaml").write_text("mine")
    with pytest.raises(SettingsError, match="the file exists"):
        write_starter(tmp_path / "select.yaml")
    assert (tmp_path / "select.yaml").read_text() == "mine"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PreceptorError, match="cannot be written") as caught:
        write_starter(tmp_path / "file" / "select.yaml")
    assert caught.value.found and caught.value.next_step


def test_an_unknown_recipe() -> None:
    with pytest.raises(SettingsError, match="no recipe 'selekt'") as caught:
        settings_schema("selekt")
    assert caught.value.found == "did you mean 'select'?"


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_has_a_starter_that_its_settings_take(recipe: str, tmp_path: Path) -> None:
    path, schema = write_starter(tmp_path / f"{recipe}.yaml", recipe)
    settings = load_settings(RECIPES[recipe], path)
    assert type(settings) is RECIPES[recipe]
    closed = objects(json.loads(schema.read_text("utf-8")))
    free = [inner for inner in closed if inner.get("additionalProperties") is not False]
    assert all("properties" not in inner for inner in free), "only tables of the user are open"


def test_a_starter_of_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no recipe 'distil'"):
        write_starter(tmp_path / "x.yaml", "distil")
