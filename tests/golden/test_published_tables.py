"""The published tables of arXiv 2411.07133 (tables 4 and 6) and what follows from them.

AP = mean(AlpacaEval 2 length-controlled win rate, Arena-Hard win rate). Outcomes: columns in the
order Phi-3 mini/small/medium; Gemma-2 2b/9b/27b; Llama-3 8B/70B; Llama-3.1 8B/70B/405B; Qwen2
1.5B/7B/72B; Qwen2.5 3B/7B/14B/32B/72B. Spearman's rho of nine metrics with AP, per base.
"""

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from preceptor.selection.agreement import consistent_n
from preceptor.selection.trial import CONTROL, Bench, Contender, try_all

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


METRICS = (
    "ArmoRM",
    "Skywork-8B",
    "Skywork-27B",
    "IFD-GPT2",
    "IFD",
    "PPL-GPT2",
    "PPL",
    "length",
    "CAR",
)
RHO = {  # base: Spearman's rho of each metric with AP, as published
    "Qwen2-1.5B": (0.5526, 0.7895, 0.8754, 0.7088, 0.7719, 0.1473, 0.5596, 0.5404, 0.8842),
    "Gemma-2-2B": (0.5526, 0.7982, 0.8842, 0.8281, 0.8930, 0.1614, 0.4351, 0.6298, 0.9000),
    "Qwen2.5-3B": (0.4526, 0.7351, 0.7456, 0.7386, 0.8088, 0.0456, -0.0614, 0.6088, 0.8105),
    "Llama-3.2-3B": (0.6088, 0.8105, 0.9088, 0.7632, 0.8579, 0.0456, 0.6018, 0.5877, 0.9053),
    "Llama-3.1-Minitron-4B": (
        0.6632, 0.8860, 0.9386, 0.7491, 0.8555, 0.1579, 0.6263, 0.5807, 0.9439,
    ),
}  # fmt: skip
OTHERS, ALL = f"{CONTROL}.other_bases", f"{CONTROL}.all_bases"


def test_the_published_rhos_rank_nineteen_generators():
    """So GPT-4, the twentieth, is outside: 19 gives 43 of the 45, no other number to 30 half.

    The two that it does not give: 0.1473 is 1 - 6 * 972 / 6840 = 0.14737 cut off, not rounded;
    0.8555 lies between 0.8544 and 0.8561, so two generators had the same IFD there, or more.
    """
    rhos = [rho for row in RHO.values() for rho in row]
    assert len(rhos) == 45
    left = consistent_n(rhos, range(4, 31), 4)
    assert left[19] == [0.1473, 0.8555]
    assert min(len(found) for n, found in left.items() if n != 19) == 30
    assert len(left[20]) == 36


def test_the_rounding_hides_more_than_fifty():
    """Beyond that the values of rho lie closer than the fourth decimal, and any number fits."""
    left = consistent_n([rho for row in RHO.values() for rho in row], range(49, 60), 4)
    assert not any(left.values())


def test_published_means_over_bases():
    mean = dict(zip(METRICS, np.mean(list(RHO.values()), axis=0).round(3), strict=True))
    assert mean["CAR"] == 0.889 and mean["Skywork-27B"] == 0.871
    # CAR's lead over the best reward model, and the one base where it has none
    lead = np.array([row[8] - row[2] for row in RHO.values()])
    assert lead.mean() == pytest.approx(0.018, abs=5e-4)
    assert [base for base, gap in zip(RHO, lead, strict=True) if gap < 0] == ["Llama-3.2-3B"]


@pytest.fixture(scope="module")
def controls() -> Any:
    """The controls of every base on its outcomes: trials per base, and their means."""
    ap = _average_performance()
    generators = tuple(f"g{number}" for number in range(ap.shape[1]))
    benches = [
        Bench(
            base,
            generators,
            ap[place],
            None,
            {
                OTHERS: Contender(CONTROL, np.delete(ap, place, axis=0).mean(axis=0), fixed=True),
                ALL: Contender(CONTROL, ap.mean(axis=0), fixed=True),
            },
        )
        for place, base in enumerate(TABLE)
    ]
    return try_all(benches, confidence=0.95, resamples=2000, seed=0)


def test_leave_one_base_out_control_with_intervals(controls):
    trials, _, mean, _ = controls
    rhos = [own[OTHERS]["spearman"] for own in trials]
    assert [round(rho["value"], 4) for rho in rhos] == [0.9246, 0.9088, 0.8684, 0.9351, 0.9246]
    assert mean[OTHERS]["spearman"]["value"] == pytest.approx(0.912, abs=5e-4)
    for rho in [*rhos, mean[OTHERS]["spearman"]]:
        # nineteen generators tell rho to -.2, +.05: far more than CAR's published lead of .018
        assert rho["low"] < rho["value"] - 0.03 < rho["value"] < rho["high"] <= 1
        assert 0.6 < rho["low"] < 0.9
        assert rho["instructions"] == [rho["value"], rho["value"]]  # no instruction enters
    assert all(own[OTHERS]["p_value"] <= 1e-3 for own in trials)


def test_having_seen_the_answer_helps(controls):
    _, _, mean, differences = controls
    (row,) = differences
    assert (row["first"], row["second"]) == (OTHERS, ALL)
    assert mean[ALL]["spearman"]["value"] > mean[OTHERS]["spearman"]["value"]
    assert row["value"] < 0 and row["low"] < row["high"]


def test_regret_of_the_control(controls):
    """On Qwen2-1.5B the other bases choose Qwen2.5-72B (5.315); Gemma-2-9b is best (5.4)."""
    trials, _, _, _ = controls
    assert trials[0][OTHERS]["first"] == ["g18"]
    assert trials[0][OTHERS]["regret"]["value"] == pytest.approx((5.6 + 5.2) / 2 - 5.315)
