"""What the pages start from, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from givens import Givens


@pytest.fixture(scope="session")
def givens(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Givens:
    def reward_model() -> Path:
        return tiny_model("docs-reward", labels=1, max_position_embeddings=512)

    return Givens(tmp_path_factory.mktemp("givens"), reward_model)
