"""The published outcome table of arXiv 2411.07133 (table 6) and what follows from it.

AP = mean(AlpacaEval 2 length-controlled win rate, Arena-Hard win rate). Numbers: the paper's
table, columns in the order Phi-3 mini/small/medium; Gemma-2 2b/9b/27b; Llama-3 8B/70B; Llama-3.1
8B/70B/405B; Qwen2 1.5B/7B/72B; Qwen2.5 3B/7B/14B/32B/72B.
"""

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

TABLE = {  # base: (length-controlled win rate, Arena-Hard win rate), per cent
    "Qwen2-1.5B": (
        [
            2.85,
            2.98,
            2.18,
            4.16,
            5.6,
            4.99,
            2.64,
            3.1,
            2.1,
            2.74,
            2.36,
            2.68,
            3.47,
            2.82,
            4.5,
            5.66,
            4.38,
            4.96,
            5.83,
        ],
        [
            1.8,
            1.8,
            1.2,
            4.4,
            5.2,
            4.5,
            1.9,
            2.6,
            2.2,
            2.8,
            2.4,
            1.0,
            3.3,
            1.8,
            2.6,
            4.3,
            4.4,
            3.7,
            4.8,
        ],
    ),
    "Gemma-2-2B": (
        [
            5.9,
            5.89,
            3.99,
            12.93,
            12.51,
            13.09,
            5.7,
            7.13,
            5.63,
            7.32,
            7.11,
            1.91,
            6.45,
            5.46,
            6.84,
            10.94,
            7.53,
            8.77,
            13.85,
        ],
        [
            3.3,
            4.1,
            2.6,
            12.9,
            9.3,
            9.9,
            5.2,
            5.6,
            4.9,
            5.8,
            5.8,
            0.9,
            5.7,
            3.4,
            6.5,
            7.1,
            8.4,
            6.9,
            9.6,
        ],
    ),
    "Qwen2.5-3B": (
        [
            7.22,
            7.29,
            5.49,
            9.58,
            13.78,
            10.18,
            7.85,
            9.37,
            7.22,
            8.94,
            8.59,
            2.54,
            7.98,
            6.59,
            14.79,
            11.89,
            10.28,
            11.65,
            16.41,
        ],
        [
            10.5,
            11.0,
            8.3,
            11.8,
            19.4,
            19.6,
            9.7,
            11.4,
            10.9,
            13.8,
            12.7,
            2.1,
            14.4,
            10.6,
            24.8,
            20.4,
            17.9,
            19.9,
            21.2,
        ],
    ),
    "Llama-3.2-3B": (
        [
            4.11,
            2.95,
            2.37,
            7.49,
            10.6,
            9.79,
            3.79,
            4.52,
            3.17,
            5.19,
            5.17,
            1.28,
            5.41,
            4.49,
            5.11,
            6.63,
            5.92,
            6.32,
            9.99,
        ],
        [
            3.3,
            4.1,
            2.6,
            9.0,
            10.9,
            8.5,
            5.1,
            6.5,
            3.6,
            5.7,
            5.3,
            0.6,
            5.6,
            4.0,
            7.2,
            9.8,
            9.5,
            8.9,
            10.8,
        ],
    ),
    "Llama-3.1-Minitron-4B": (
        [
            5.74,
            6.61,
            4.31,
            10.37,
            16.13,
            12.34,
            4.8,
            8.93,
            6.96,
            8.52,
            9.23,
            2.03,
            7.31,
            8.11,
            9.17,
            11.12,
            10.89,
            11.13,
            17.77,
        ],
        [
            3.9,
            4.5,
            3.6,
            10.7,
            11.0,
            11.9,
            4.7,
            6.0,
            6.0,
            5.6,
            6.2,
            0.9,
            6.4,
            5.1,
            8.3,
            9.2,
            11.1,
            10.2,
            12.2,
        ],
    ),
}


def _average_performance() -> np.ndarray:
    return np.array([(np.array(lc) + np.array(arena)) / 2 for lc, arena in TABLE.values()])


def test_average_performance_of_the_first_cells():
    ap = _average_performance()
    assert ap.shape == (5, 19)
    # Qwen2-1.5B: Phi-3-mini (2.85 + 1.8) / 2, Qwen2.5-72B (5.83 + 4.8) / 2
    assert ap[0, 0] == pytest.approx(2.325)
    assert ap[0, 18] == pytest.approx(5.315)


def test_student_agnostic_control():
    """Ranking teachers by their mean outcome on the other bases: a bound no metric should miss."""
    ap = _average_performance()
    found = []
    for base in range(len(ap)):
        others = np.delete(ap, base, axis=0).mean(axis=0)
        result: Any = spearmanr(others, ap[base])
        found.append(round(float(result.statistic), 4))
    assert found == [0.9246, 0.9088, 0.8684, 0.9351, 0.9246]
