"""What criteria make of each answer from its tokens or its gradient: columns of `signals.parquet`.

Shapes: M teachers, N instructions, A answers of a block, D numbers of a projected gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.core.artifacts import FEATURE
from preceptor.core.criterion import Criterion, TokenBlock
from preceptor.core.errors import SettingsError
from preceptor.data.sequences import Tokens
from preceptor.data.steps import Steps
from preceptor.data.token_store import gather, read_tokens

BLOCK = 4096  # answers looked at together: what of the tokens is in memory


def features_of_tokens(
    criteria: Sequence[Criterion],
    folder: Path,
    starts: np.ndarray,
    tokens: Tokens,
    separator: str,
) -> dict[str, np.ndarray]:
    """Every feature that criteria make of tokens, block by block.

    Args:
        folder: of the token store.
        starts: where each answer's tokens begin there.
        separator: between the steps of an answer.

    Returns:
        `feature.CRITERION.NAME` -> one number an answer.

    Raises:
        SettingsError: a criterion gave something else.
    """
    readers = [criterion for criterion in criteria if criterion.tokens]
    stored = {
        name: read_tokens(folder, name)
        for name in sorted(set().union(*(criterion.tokens for criterion in readers)) - {"step"})
    }
    steps = Steps(tokens.tokenizer, separator)
    parts: dict[str, list[np.ndarray]] = {}
    for low in range(0, len(starts), BLOCK):
        own = slice(low, low + BLOCK)
        lengths = tokens.n_response[own].astype(np.int64)
        fields: dict[str, Any] = {
            f"{name}_T": gather(values, starts[own], lengths) for name, values in stored.items()
        }
        if any("step" in criterion.tokens for criterion in readers):
            fields["step_T"] = _steps(steps, tokens, range(low, low + len(lengths)))
        block = TokenBlock(np.concatenate(([0], np.cumsum(lengths))), **fields)
        for criterion in readers:
            assert criterion.features is not None
            found = criterion.features(block)
            for name, values in _columns(criterion, found, len(lengths)).items():
                parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def features_of_gradients(
    criteria: Sequence[Criterion],
    gradients: np.ndarray,
    rows: np.ndarray,
    shape: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Every feature that criteria make of gradients, teacher by teacher.

    Args:
        gradients: of unique sequences, (unique, D); may be mapped from a file.
        rows: which of them belongs to each answer, teacher by teacher.
        shape: (M, N).

    Returns:
        As `features_of_tokens`.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for rows_N in rows.reshape(shape):
        gradient_ND = np.asarray(gradients[rows_N])
        for criterion in criteria:
            if criterion.gradients:
                assert criterion.features is not None
                found = criterion.features(gradient_ND)
                for name, values in _columns(criterion, found, shape[1]).items():
                    parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _steps(steps: Steps, tokens: Tokens, answers: Sequence[int]) -> np.ndarray:
    """Number of the step of each token, answer after answer."""
    numbers = []
    for answer in answers:
        ids = tokens.sequences[answer].response_ids
        number_T = np.zeros(len(ids), dtype=np.int32)
        number_T[steps.starts(ids)[1:]] = 1
        numbers.append(np.cumsum(number_T, dtype=np.int32))
    return np.concatenate(numbers)


def _columns(
    criterion: Criterion, found: Mapping[str, np.ndarray], n: int
) -> dict[str, np.ndarray]:
    columns = {}
    for name, values in found.items():
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (n,) or not np.isfinite(array).all():
            raise SettingsError(
                "a criterion's `features` must give one finite number an answer",
                where=f"criterion {criterion.name}, feature {name}",
                found=f"shape {array.shape}, {(~np.isfinite(array)).sum():,} not finite; "
                f"{n:,} answers",
                next_step="mend the function",
            )
        columns[f"{FEATURE}{criterion.name}.{name}"] = array
    return columns
