"""The harness measures what it says: memory of the timed block, ratios, errors."""

import numpy as np
import pytest

from bench import attention_kl
from bench.harness import Contender, Meter, Result, race, row


def allocate(meter: Meter, megabytes: int, answer: float) -> np.ndarray:
    """A contender that touches so much memory inside the timed block."""
    with meter:
        held = np.ones(megabytes * 125_000)
    return np.array([answer, held[0]])


def test_growth_is_the_memory_of_the_block():
    contenders = [
        Contender("small", "tests.bench.test_harness:allocate", {"megabytes": 50, "answer": 1.0}),
        Contender("large", "tests.bench.test_harness:allocate", {"megabytes": 400, "answer": 2.0}),
    ]
    results = race(contenders, {}, repeats=1)
    assert 45e6 < results["small"].growth < 80e6
    assert 380e6 < results["large"].growth < 440e6
    assert results["large"].seconds > 0
    found = row("case", "large", results["small"], results["large"])
    assert found["memory_ratio"] < 0.6
    assert found["growth_ratio"] < 0.25
    assert found["max_rel_error"] == 0.5  # answers 1 against 2


def test_row_has_the_common_columns():
    ours = Result(1.0, 100.0, 10.0, np.array([1.0, 2.0]))
    theirs = Result(4.0, 200.0, 40.0, np.array([1.0, 2.5]))
    found = row("a case", "a peer", ours, theirs, extra=7.0)
    assert (found["case"], found["peer"]) == ("a case", "a peer")
    assert (found["time_ratio"], found["memory_ratio"]) == (0.25, 0.5)
    assert found["max_rel_error"] == pytest.approx(0.2)
    assert found["extra"] == 7.0


def test_values_that_do_not_line_up_give_no_error_figure():
    ours = Result(1.0, 1.0, 1.0, np.empty(0))
    assert row("c", "p", ours, ours)["max_rel_error"] is None


def test_a_contender_that_dies_is_an_error():
    broken = Contender("broken", "tests.bench.test_harness:no_such_function")
    with pytest.raises(RuntimeError, match="broken failed"):
        race([broken], {}, repeats=1)


class Counting(Meter):
    """A meter that counts its blocks."""

    blocks = 0

    def __enter__(self) -> Meter:
        self.blocks += 1
        return super().__enter__()


@pytest.mark.parametrize("contender", [attention_kl.ours, attention_kl.eager])
def test_a_warm_up_does_not_count(contender):
    """The least of several blocks would be that of the short sequence that warms up."""
    meter = Counting()
    assert contender(meter, 96).size == 1 + 2 * (1 + attention_kl.SAMPLED)
    assert meter.blocks == 1
