"""Plans, resumption and refusal of the measuring pass."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from preceptor.core.errors import ModelError
from preceptor.core.stage import Stage
from preceptor.core.types import length_batches
from preceptor.data.rendering import Rendered
from preceptor.selection.measure import NLL_SCHEMA, Scorer, make_plan, measure


def build() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def sequences(n: int = 40) -> list[Rendered]:
    rng = np.random.default_rng(3)
    return [
        Rendered(array("i", rng.integers(1, 60, size).tolist()), int(size) // 2)
        for size in rng.integers(4, 40, n)
    ]


def test_plan_keeps_to_its_budget_and_covers_every_row_once():
    plan = make_plan(sequences(), batch_tokens=80)
    rows = [row for batch in plan.batches for row in batch.rows]
    assert sorted(rows) == list(range(40))
    for batch in plan.batches:
        widest = max(len(plan.unique[row].ids) for row in batch.rows)
        assert widest * len(batch.rows) <= 80 or len(batch.rows) == 1
        assert batch.n_tokens == sum(len(plan.unique[row].ids) for row in batch.rows)
    first = plan.batches[0]
    assert max(len(s.ids) for s in plan.unique) == len(plan.unique[first.rows[0]].ids)


def test_repeats_are_scored_once_and_counted_everywhere():
    some = sequences(5)
    same_ids_other_seam = Rendered(some[0].ids, some[0].n_response - 1)
    plan = make_plan([*some, some[2], some[2], same_ids_other_seam], batch_tokens=80)
    assert len(plan.unique) == 6
    assert plan.item_to_unique.tolist() == [0, 1, 2, 3, 4, 2, 2, 5]


def test_plan_is_that_of_a_plain_loop():
    """Unique sequences in order of appearance, batches as `length_batches` fills them."""
    some = sequences(30)
    rng = np.random.default_rng(1)
    drawn = [some[place] for place in rng.integers(0, 30, 90)]
    plan = make_plan(drawn, batch_tokens=100)
    wanted = list({(s.ids.tobytes(), s.n_response): s for s in drawn}.values())
    assert list(plan.unique) == wanted
    assert [plan.unique[place] for place in plan.item_to_unique] == drawn
    batches = length_batches([len(s.ids) for s in wanted], 100)
    rest = np.random.default_rng(0).permutation(np.arange(1, len(batches)))
    assert [b.rows.tolist() for b in plan.batches] == [batches[n] for n in (0, *rest)]


def test_no_batch_is_empty_without_sequences():
    assert make_plan([], batch_tokens=80).batches == []


def test_resumed_pass_gives_the_same_bits_and_scores_nothing_twice(tmp_path):
    plan = make_plan(sequences(), batch_tokens=80)
    scored: list[int] = []

    class Counting(Scorer):
        def score(self, rows):
            scored.append(len(rows))
            return super().score(rows)

    scorer = Counting(build())
    with Stage(tmp_path / "whole", NLL_SCHEMA) as stage:
        whole = measure("whole", lambda: scorer.score, plan, stage)
    assert sum(scored) == 40
    scored.clear()
    with Stage(tmp_path / "parts", NLL_SCHEMA) as stage:
        for number in (2, 0):  # an earlier run got this far, in any order
            rows = list(plan.batches[number].rows)
            values = scorer.score([plan.unique[row] for row in rows]).tolist()
            stage.add(batch=[number] * len(rows), row=rows, nll=values)
            stage.commit()
        scored.clear()
        resumed = measure("parts", lambda: scorer.score, plan, stage)
    done_before = len(plan.batches[0].rows) + len(plan.batches[2].rows)
    assert sum(scored) == 40 - done_before
    assert resumed.tobytes() == whole.tobytes()

    def never() -> Callable[[Sequence[Rendered]], np.ndarray]:
        raise AssertionError("a finished stage must not open the model")

    with Stage(tmp_path / "parts", NLL_SCHEMA) as stage:
        assert measure("again", never, plan, stage).tobytes() == whole.tobytes()


def test_neighbours_in_a_batch_do_not_change_an_answer():
    scorer = Scorer(build())
    some = sequences(6)
    together = scorer.score(some)
    alone = np.concatenate([scorer.score([row]) for row in some])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_an_unknown_head_is_refused():
    model = build()
    inner = model.forward

    def doubled(*args, **kwargs):
        output = inner(*args, **kwargs)
        output.logits = output.logits * 2 + torch.arange(60)
        return output

    model.forward = doubled
    with pytest.raises(ModelError, match="output layer is of a kind"):
        Scorer(model)
