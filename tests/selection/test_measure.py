"""Plans, resumption and refusal of the measuring pass."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from preceptor.core.errors import ModelError
from preceptor.core.stage import Stage
from preceptor.core.types import length_batches
from preceptor.data.rendering import Rendered
from preceptor.data.token_store import DTYPES, TokenStore, read_tokens
from preceptor.selection.measure import COSINES, SUMS, Scorer, Wanted, make_plan, measure


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


EVERYTHING = Wanted((*SUMS, *COSINES), tuple(DTYPES))


def naive(model: Any, row: Rendered) -> dict[str, Any]:
    """The twin: one answer, full logits, every pair of tokens."""
    ids_T = torch.tensor(row.ids)
    taken: list[torch.Tensor] = []
    up = model.model.layers[-1].mlp.up_proj
    handle = up.register_forward_hook(lambda module, inputs, output: taken.append(output[0]))
    with torch.no_grad():
        log_p_TV = model(input_ids=ids_T[None]).logits[0].double().log_softmax(1)
    handle.remove()
    own = range(len(ids_T) - row.n_response - 1, len(ids_T) - 1)
    found: dict[str, Any] = {name: [] for name in DTYPES}
    for t in own:
        log_p_V, y = log_p_TV[t], ids_T[t + 1]
        found["nll"].append(-log_p_V[y].item())
        found["rank"].append(1 + int((log_p_V > log_p_V[y]).sum()))
        found["entropy"].append(-(log_p_V.exp() * log_p_V).sum().item())
        one_hot_V = torch.eye(len(log_p_V), dtype=torch.float64)[y]
        found["brier"].append(((log_p_V.exp() - one_hot_V) ** 2).sum().item())
    cosine = torch.nn.functional.cosine_similarity
    pairs = [cosine(taken[0][s], taken[0][t], dim=0).item() for s in own for t in own]
    asked = [cosine(taken[0][s], taken[0][t], dim=0).item() for s in own for t in range(own.start)]
    found["similarity_answer"] = np.mean(pairs)
    found["similarity_question"] = np.mean(asked) if asked else 0.0
    return found


def test_every_signal_is_that_of_the_naive_twin():
    model, some = build(), sequences(8)
    some.append(Rendered(array("i", [1, 7, 9]), 2))  # a start token alone is no question
    found = Scorer(model, "", EVERYTHING).score(some)
    wanted = [naive(model, row) for row in some]
    for name in SUMS:
        np.testing.assert_allclose(found[name], [sum(w[name]) for w in wanted], rtol=1e-5)
    for name in COSINES:
        np.testing.assert_allclose(found[name], [w[name] for w in wanted], atol=1e-5)
    for name in DTYPES:
        np.testing.assert_allclose(
            found[f"token {name}"], np.concatenate([w[name] for w in wanted]), rtol=1e-4
        )


def test_what_is_wanted_beside_it_does_not_change_the_loss():
    model, some = build(), sequences(8)
    every = Scorer(model, "", EVERYTHING).score(some)["nll"]
    np.testing.assert_allclose(every, Scorer(model).score(some)["nll"], rtol=1e-6)


def test_activations_of_a_mixture_are_refused():
    config = MixtralConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ModelError, match="activations of the last MLP") as refused:
        Scorer(model, "some/mixture", EVERYTHING)
    assert "some/mixture" in str(refused.value) and "scas" in str(refused.value)


def test_a_resumed_pass_gives_the_same_bits_and_measures_nothing_twice(tmp_path):
    plan = make_plan(sequences(), batch_tokens=80)
    measured: list[int] = []

    class Counting(Scorer):
        def score(self, rows):
            measured.append(len(rows))
            return super().score(rows)

    def run(name: str, open_worker: Any) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
        with (
            Stage(tmp_path / name, EVERYTHING.schema) as stage,
            TokenStore(tmp_path / name / "tokens", plan.n_response, tuple(DTYPES)) as store,
        ):
            found = measure(name, open_worker, plan, stage, tokens=store)
        files = (tmp_path / name / "tokens").glob("*.npy")
        return found, {file.name: file.read_bytes() for file in files}

    scorer = Counting(build(), "", EVERYTHING)
    whole, whole_files = run("whole", lambda: scorer.score)
    assert sum(measured) == 40 and set(whole) == {*SUMS, *COSINES}
    measured.clear()

    def dies_after_three() -> Callable[[Sequence[Rendered]], Any]:
        def work(rows: Sequence[Rendered]) -> Any:
            if len(measured) == 3:
                raise KeyboardInterrupt
            return scorer.score(rows)

        return work

    with pytest.raises(KeyboardInterrupt):
        run("parts", dies_after_three)
    assert len(measured) == 3
    resumed, files = run("parts", lambda: scorer.score)
    assert sum(measured) == 40
    assert files == whole_files
    assert {name: v.tobytes() for name, v in resumed.items()} == {
        name: v.tobytes() for name, v in whole.items()
    }

    def never() -> Callable[[Sequence[Rendered]], Any]:
        raise AssertionError("a finished stage must not open the model")

    again, _ = run("parts", never)
    assert again["nll"].tobytes() == whole["nll"].tobytes()


def test_tokens_lie_where_their_sequence_begins(tmp_path):
    model, some = build(), sequences(6)
    plan = make_plan([*some, some[1]], batch_tokens=80)
    with (
        Stage(tmp_path, EVERYTHING.schema) as stage,
        TokenStore(tmp_path / "tokens", plan.n_response, tuple(DTYPES)) as store,
    ):
        measure("tokens", lambda: Scorer(model, "", EVERYTHING).score, plan, stage, tokens=store)
        starts = store.starts[:-1][plan.item_to_unique]
    rank_T = read_tokens(tmp_path / "tokens", "rank")
    assert rank_T.dtype == np.uint16
    for row, start in zip([*some, some[1]], starts, strict=True):
        assert rank_T[start : start + row.n_response].tolist() == naive(model, row)["rank"]


def test_neighbours_in_a_batch_do_not_change_an_answer():
    scorer = Scorer(build(), "", EVERYTHING)
    some = sequences(6)
    together = scorer.score(some)
    for name in (*SUMS, *COSINES):
        alone = np.concatenate([scorer.score([row])[name] for row in some])
        np.testing.assert_allclose(together[name], alone, rtol=1e-5)


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
