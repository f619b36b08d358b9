"""A name that is nearly a path is told from a hub id without asking the hub."""

from pathlib import Path

import pytest

from preceptor.core.errors import SettingsError
from preceptor.recipes.settings.loading import load_settings
from preceptor.recipes.settings.select import Select


def _settings(tmp_path: Path, base: str) -> Select:
    (tmp_path / "models" / "en-terse").mkdir(parents=True)
    (tmp_path / "answers.jsonl").write_text("{}\n")
    file = tmp_path / "select.yaml"
    file.write_text(f"base: {base}\nanswers: answers.jsonl\nrewards: [reward]\n")
    return load_settings(Select, file)


def test_a_misspelt_folder_is_named_with_its_neighbour(tmp_path):
    with pytest.raises(SettingsError, match="no such model") as caught:
        _settings(tmp_path, "models/en-ters")
    assert "did you mean 'en-terse'?" in caught.value.found


def test_a_hub_id_stays_a_hub_id(tmp_path):
    assert _settings(tmp_path, "meta-llama/Llama-3.2-1B").base == "meta-llama/Llama-3.2-1B"
