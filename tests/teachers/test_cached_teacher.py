"""Stored signals against the live teacher: values, gradients, bounds, refusals, kills.

N scored positions, J ids, V vocabulary, D width.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from forked import KILLS, start
from preceptor.core.errors import DataError, ModelError, SettingsError
from preceptor.data.rendering import Rendered, scored_positions
from preceptor.data.signal_store import StoreReader, data_fingerprint
from preceptor.kernels.linear_divergence import (
    LinearLosses,
    SampledRows,
    SparseRows,
    linear_divergence,
)
from preceptor.losses.forward_kl import forward_kl
from preceptor.models.head import read_head
from preceptor.models.signals import Batch, TeacherRows
from preceptor.teachers.cached import CachedTeacher, open_cached
from preceptor.teachers.ensemble import EnsembleTeacher
from preceptor.teachers.in_process import InProcessTeacher
from preceptor.training import storing
from preceptor.training.storing import Form, sample, top_k, write_store

CPU = torch.device("cpu")
LOGITS = frozenset({"logits"})
V = 97


def build(seed: int, width: int = 16, vocabulary: int = V) -> Any:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


def make_samples(n: int = 12, vocabulary: int = V) -> list[Rendered]:
    rng = np.random.default_rng(5)
    return [
        Rendered(array("i", rng.integers(0, vocabulary, size).tolist()), int(size) // 2)
        for size in rng.integers(4, 24, n)
    ]


def make_batch(samples: Sequence[Rendered], numbers: Sequence[int], left: bool = False) -> Batch:
    """The samples of these numbers, padded with token 0 on the right or on the left."""
    width = max(len(samples[number].ids) for number in numbers) + 2
    ids_BT = torch.zeros((len(numbers), width), dtype=torch.long)
    segments_BT = torch.full_like(ids_BT, -1)
    rows: list[int] = []
    for row, number in enumerate(numbers):
        size = len(samples[number].ids)
        start = width - size if left else 0
        ids_BT[row, start : start + size] = torch.tensor(samples[number].ids)
        segments_BT[row, start : start + size] = 0
        at = scored_positions(size, samples[number].n_response)
        rows.extend(row * width + start + place for place in at)
    inputs = {"input_ids": ids_BT, "attention_mask": (segments_BT >= 0).long()}
    return Batch(inputs, torch.tensor(rows), segments_BT, torch.tensor(list(numbers)))


@pytest.fixture(scope="module")
def teacher() -> InProcessTeacher:
    return InProcessTeacher(build(1), "teacher")


@pytest.fixture(scope="module")
def student() -> Any:
    return build(2, width=12)


@pytest.fixture(scope="module")
def samples() -> list[Rendered]:
    return make_samples()


def store(
    folder: Path, teacher: Any, samples: Sequence[Rendered], form: Form, **more: Any
) -> CachedTeacher:
    options: dict[str, Any] = {"batch_tokens": 64, "shard_positions": 30} | more
    write_store(folder, teacher, samples, form, tokenizer_fingerprint="t", device=CPU, **options)
    return open_cached(
        folder,
        tokenizer_fingerprint="t",
        data_fingerprint=data_fingerprint(samples),
        temperature=form.temperature,
        teacher_fingerprint=teacher.fingerprint,
    )


def compare(
    student: Any, batch: Batch, rows: Sequence[TeacherRows], temperature: float
) -> tuple[LinearLosses, torch.Tensor]:
    """Forward KL of each position (nats), and its gradient with respect to the hidden state."""
    out = student.base_model(**batch.inputs, use_cache=False).last_hidden_state
    hidden_ND = out.flatten(0, 1)[batch.rows_N].detach().requires_grad_()
    targets_N = batch.inputs["input_ids"].flatten()[batch.rows_N + 1]
    losses = linear_divergence(
        hidden_ND,
        read_head(student),
        targets_N,
        torch.ones(len(targets_N)),
        teacher=rows,
        divergence=forward_kl,
        temperature=temperature,
        next_token_weight=0.0,
        divergence_weight=1.0,
    )
    [gradient_ND] = torch.autograd.grad(losses.loss, [hidden_ND])
    return losses, gradient_ND / temperature**2


def all_log_p(model: Any, batch: Batch, temperature: float) -> torch.Tensor:
    """Softened log p at the scored positions, from the model's own logits."""
    with torch.no_grad():
        logits_BTV = model(**batch.inputs, use_cache=False).logits
    return torch.log_softmax(logits_BTV.flatten(0, 1)[batch.rows_N] / temperature, 1)


def test_top_k_by_hand() -> None:
    # p = 1/2, 1/8, 1/4, 1/8: the two likeliest are tokens 0 and 2, and 1/4 is left
    log_p_1V = torch.tensor([[0.5, 0.125, 0.25, 0.125]]).log()
    ids, log_p, log_tail = top_k(log_p_1V, 2)
    assert ids.tolist() == [[0, 2]]
    torch.testing.assert_close(log_p.exp(), torch.tensor([[0.5, 0.25]]))
    torch.testing.assert_close(log_tail.exp(), torch.tensor([0.25]))
    assert top_k(log_p_1V, 4)[2].tolist() == [-torch.inf]


def test_a_tiny_tail_is_not_lost_to_rounding() -> None:
    # tail of two tokens, each e^-40 / (1 + ...): 1 - sum of the rest would be 0 in fp32
    log_p_1V = torch.log_softmax(torch.tensor([[0.0, -40.0, -40.0]]), 1)
    assert top_k(log_p_1V, 1)[2].item() == pytest.approx(-40.0 + np.log(2.0), abs=1e-5)


def test_samples_by_hand() -> None:
    # p = (1/2, 1/4, 1/4); draws at .1, .3, .6, .9 of the cumulative mass are tokens 0, 0, 1, 2
    log_p_1V = torch.tensor([[0.5, 0.25, 0.25]]).log()
    uniform_1J = torch.tensor([[0.9, 0.1, 0.6, 0.3]], dtype=torch.float64)
    ids, weights, entropy = sample(log_p_1V, uniform_1J)
    assert ids[0, :3].tolist() == [0, 1, 2]
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.25, 0.25, 0.0]]))
    assert entropy.item() == pytest.approx(1.5 * np.log(2.0))  # 1/2 ln 2 + 2 * 1/4 ln 4
    # proposal p^2 is (2/3, 1/6, 1/6): tokens 0, 0, 0, 2; weights 3/4 (1/2)/(2/3), 1/4 (1/4)/(1/6)
    ids, weights, _ = sample(log_p_1V, uniform_1J, proposal=2.0)
    assert ids[0, :2].tolist() == [0, 2]
    torch.testing.assert_close(weights, torch.tensor([[9 / 16, 3 / 8, 0.0, 0.0]]))


def test_impossible_tokens_are_never_drawn() -> None:
    log_p_nV = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(3, 3)
    uniform_nJ = torch.tensor([[0.0], [0.5], [1 - 2**-53]], dtype=torch.float64)
    ids, weights, entropy = sample(log_p_nV, uniform_nJ)
    assert ids.tolist() == [[1], [1], [1]] and weights.tolist() == [[1.0]] * 3
    assert entropy.tolist() == [0.0] * 3


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_stored_top_k_is_the_teacher_s_within_the_stated_precision(
    temperature: float, teacher: Any, samples: list[Rendered], tmp_path: Path
) -> None:
    cached = store(tmp_path, teacher, samples, Form("top_k", 8, temperature))
    batch = make_batch(samples, [7, 0, 11, 0])
    [rows] = cached.signals(batch, LOGITS).logits
    assert isinstance(rows, SparseRows) and rows.index_K is None
    assert (rows.vocabulary, rows.temperature) == (V, temperature)
    log_p_NV = all_log_p(teacher.model, batch, temperature)
    wanted_NJ, ids_NJ = log_p_NV.topk(8, dim=1)
    assert torch.equal(rows.ids_KJ, ids_NJ)
    error_NJ = (rows.log_p_KJ - wanted_NJ).abs()
    assert (error_NJ <= wanted_NJ.abs() * 2**-11 + 2**-25 + 1e-5).all()  # 1e-5: fp32 passes
    assert (error_NJ > 1e-5).any()  # the bound is tested, not vacuous
    tail_N = log_p_NV.scatter(1, ids_NJ, -torch.inf).logsumexp(1)
    torch.testing.assert_close(rows.log_tail_K, tail_N, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_of_the_vocabulary_gives_the_live_loss(
    temperature: float, teacher: Any, student: Any, samples: list[Rendered], tmp_path: Path
) -> None:
    """The only difference left is the rounding to float16, within the bound of the store."""
    cached = store(tmp_path, teacher, samples, Form("top_k", 500, temperature))
    batch = make_batch(samples, [3, 9, 1])
    found, gradient = compare(student, batch, cached.signals(batch, LOGITS).logits, temperature)
    live = teacher.signals(batch, LOGITS).logits
    wanted, wanted_gradient = compare(student, batch, live, temperature)
    log_p_NV = all_log_p(teacher.model, batch, temperature)
    log_q_NV = all_log_p(student, batch, temperature)
    ratio_NV = log_p_NV - log_q_NV
    entropy_N = -(log_p_NV.exp() * log_p_NV).sum(1)
    bound_N = (ratio_NV.amax(1) - ratio_NV.amin(1)) * entropy_N * 2**-11
    assert ((found.divergence_N - wanted.divergence_N).abs() <= bound_N + 1e-5).all()
    # each part of the gradient: an expectation of head weights, divided by T
    weight_VD = read_head(student).weight_VD.detach()
    spread_D = weight_VD.amax(0) - weight_VD.amin(0)
    bound_ND = spread_D * entropy_N[:, None] * 2**-11 / temperature
    assert ((gradient - wanted_gradient).abs() <= bound_ND + 1e-5).all()


@pytest.mark.parametrize("k", [1, 4, 20])
def test_what_top_k_misses_is_the_tail_s_divergence_and_is_bounded(
    k: int, teacher: Any, student: Any, samples: list[Rendered]
) -> None:
    """KL = bucketed KL + P KL(p(.|tail) || q(.|tail)), and 0 <= gap <= P min(D, D^2 / 8)."""
    batch = make_batch(samples, [2, 5, 8])
    log_p_NV, log_q_NV = (all_log_p(model, batch, 1.0) for model in (teacher.model, student))
    ids_NJ, log_p_NJ, log_tail_N = top_k(log_p_NV, k)
    rows = SparseRows(ids_NJ, log_p_NJ, log_tail_N, V, 1.0)
    bucketed, bucketed_gradient = compare(student, batch, [rows], 1.0)
    live, live_gradient = compare(student, batch, teacher.signals(batch, LOGITS).logits, 1.0)
    gap_N = live.divergence_N - bucketed.divergence_N

    tail_p_NV = torch.log_softmax(log_p_NV.scatter(1, ids_NJ, -torch.inf), 1)
    tail_q_NV = torch.log_softmax(log_q_NV.scatter(1, ids_NJ, -torch.inf), 1)
    listed_NV = torch.zeros_like(log_p_NV, dtype=torch.bool).scatter(1, ids_NJ, True)
    g_NV = (tail_q_NV - tail_p_NV).masked_fill(listed_NV, torch.nan)
    missed_N = log_tail_N.exp() * (-tail_p_NV.exp() * g_NV).nansum(1)
    torch.testing.assert_close(gap_N, missed_N, rtol=1e-4, atol=1e-5)

    spread_N = g_NV.nan_to_num(-torch.inf).amax(1) - g_NV.nan_to_num(torch.inf).amin(1)
    bound_N = log_tail_N.exp() * torch.minimum(spread_N, spread_N**2 / 8)
    assert (gap_N > -1e-5).all() and (gap_N <= bound_N + 1e-5).all()
    assert gap_N.max() > 0.01  # something is missed here
    # by the logits the gradients differ by at most P min(2, D / 2); here seen through the head
    by_logits_N = log_tail_N.exp() * (spread_N / 2).clamp(max=2.0)
    largest = read_head(student).weight_VD.detach().abs().max()
    difference_N = (live_gradient - bucketed_gradient).abs().amax(1)
    assert (difference_N <= by_logits_N * largest + 1e-5).all()


def test_near_the_teacher_the_missed_part_shrinks_with_the_square() -> None:
    """A student whose logits are the teacher's plus noise of size d: gap <= P (spread)^2 / 8."""
    generator = torch.Generator().manual_seed(0)
    z_V, noise_V = torch.randn(2, 200, generator=generator, dtype=torch.float64)
    log_p = torch.log_softmax(z_V, 0)
    ids, _, log_tail = top_k(log_p[None], 10)
    tail = torch.ones(200, dtype=torch.bool).scatter(0, ids[0], False)
    gaps = []
    for size in (0.4, 0.2, 0.1):
        log_q = torch.log_softmax(z_V + size * noise_V, 0)
        p, q = (torch.log_softmax(x[tail], 0) for x in (log_p, log_q))
        gap = (log_tail.exp() * (p.exp() * (p - q)).sum()).item()
        spread = (size * noise_V[tail]).max() - (size * noise_V[tail]).min()
        assert 0 < gap <= (log_tail.exp() * spread**2 / 8).item()
        gaps.append(gap)
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.2)
    assert gaps[1] / gaps[2] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("proposal", [1.0, 0.5])
def test_samples_estimate_value_and_gradient_without_bias(
    proposal: float, teacher: Any, student: Any, samples: list[Rendered]
) -> None:
    """1,000 stores of 12 draws: each mean is within 4 standard errors of the exact figure."""
    n_draws, temperature = 1000, 1.5
    batch = make_batch(samples, [4])
    batch = replace(batch, rows_N=batch.rows_N[:2])
    live = teacher.signals(batch, LOGITS).logits
    wanted, wanted_gradient = compare(student, batch, live, temperature)
    log_p_NV = all_log_p(teacher.model, batch, temperature)
    for place in range(2):
        uniform = torch.from_numpy(np.random.default_rng(place).random((n_draws, 12)))
        found = sample(log_p_NV[place].expand(n_draws, V), uniform, proposal)
        rows = SampledRows(*found, vocabulary=V, temperature=temperature)
        many = replace(batch, rows_N=batch.rows_N[place].expand(n_draws))
        losses, gradient = compare(student, many, [rows], temperature)
        for values, exact in (
            (losses.divergence_N[:, None], wanted.divergence_N[place, None]),
            (gradient, wanted_gradient[place]),
        ):
            deviation = values.double().std(0)
            assert (deviation > 1e-3).all()  # one store alone is far from exact
            error = (values.double().mean(0) - exact).abs()
            assert (error <= 4 * deviation / n_draws**0.5).all()


def test_stored_samples_are_draws_from_the_teacher(
    teacher: Any, samples: list[Rendered], tmp_path: Path
) -> None:
    cached = store(tmp_path, teacher, samples, Form("sampled", 400, 1.0))
    batch = make_batch(samples, [6, 2, 10])
    [rows] = cached.signals(batch, LOGITS).logits
    assert isinstance(rows, SampledRows)
    log_p_NV = all_log_p(teacher.model, batch, 1.0)
    torch.testing.assert_close(
        rows.entropy_K, -(log_p_NV.exp() * log_p_NV).sum(1), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(rows.weights_KJ.sum(1), torch.ones(len(batch.rows_N)))
    assert torch.equal(rows.ids_KJ < 0, rows.weights_KJ == 0) and (rows.ids_KJ < 0).any()
    estimate_NV = torch.zeros_like(log_p_NV).scatter_add(
        1, rows.ids_KJ.clamp(min=0), rows.weights_KJ
    )
    error_NV = (estimate_NV - log_p_NV.exp()).abs()
    p_NV = log_p_NV.exp()
    assert (error_NV <= 5 * (p_NV * (1 - p_NV) / 400).sqrt() + 2 / 400).all()


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
def test_the_same_inputs_give_the_same_bytes(
    kind: Any, teacher: Any, samples: list[Rendered], tmp_path: Path
) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        store(tmp_path / name, teacher, samples, Form(kind, 6, 1.0, seed))
    one, again, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]
        for name in ("one", "again", "other")
    )
    assert len(one) > 3
    assert one == again
    assert (one[:-1] == other[:-1]) == (kind == "top_k")  # the last file is store.json


def test_draws_depend_on_seed_and_sample_not_on_shards_or_tiles(
    teacher: Any, samples: list[Rendered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = [*samples, *samples]
    form = Form("sampled", 16, 1.0)
    small = store(tmp_path / "small", teacher, twice, form, batch_tokens=1000)
    whole = store(tmp_path / "whole", teacher, twice, form, shard_positions=10_000)
    monkeypatch.setattr(storing, "TILE_VALUES", {"cpu": 3 * V})  # three positions a tile
    tiled = store(tmp_path / "tiled", teacher, twice, form)
    batch = make_batch(twice, range(len(twice)))
    [one], [two], [three] = (c.signals(batch, LOGITS).logits for c in (small, whole, tiled))
    assert isinstance(one, SampledRows)
    for other in (two, three):
        assert isinstance(other, SampledRows)
        assert torch.equal(one.ids_KJ, other.ids_KJ)
        torch.testing.assert_close(one.weights_KJ, other.weights_KJ)
        torch.testing.assert_close(one.entropy_K, other.entropy_K, rtol=1e-5, atol=1e-5)
    first, again = one.ids_KJ.chunk(2)  # the same sample, drawn anew
    torch.testing.assert_close(*one.entropy_K.chunk(2), rtol=1e-5, atol=1e-5)
    assert (first != again).any(1).float().mean() > 0.9


def test_ids_take_two_bytes_where_the_vocabulary_allows(tmp_path: Path) -> None:
    sizes = {}
    for vocabulary in (1000, 70_000):
        model = InProcessTeacher(build(1, vocabulary=vocabulary), "wide")
        some = make_samples(3, vocabulary)
        cached = store(tmp_path / str(vocabulary), model, some, Form("top_k", 8, 1.0))
        batch = make_batch(some, [2, 0, 1])
        [rows] = cached.signals(batch, LOGITS).logits
        assert isinstance(rows, SparseRows)
        assert torch.equal(rows.ids_KJ, all_log_p(model.model, batch, 1.0).topk(8).indices)
        sizes[vocabulary] = cached.store.sample(0).arrays["ids_PJ"].dtype.itemsize
    assert sizes == {1000: 2, 70_000: 4}


def test_an_ensemble_can_be_stored(samples: list[Rendered], tmp_path: Path) -> None:
    members = {"a": InProcessTeacher(build(1), "a"), "b": InProcessTeacher(build(2, 12), "b")}
    mixed = EnsembleTeacher(members, [0.25, 0.75], "probability")
    cached = store(tmp_path, mixed, samples, Form("top_k", V, 2.0))
    batch = make_batch(samples, [1, 3])
    [rows] = cached.signals(batch, LOGITS).logits
    assert isinstance(rows, SparseRows)
    p, q = (all_log_p(member.model, batch, 2.0).exp() for member in members.values())
    wanted_NV = 0.25 * p + 0.75 * q
    torch.testing.assert_close(
        rows.log_p_KJ.exp(), wanted_NV.gather(1, rows.ids_KJ), rtol=2e-2, atol=1e-6
    )


def test_left_padding_and_rows_without_scored_positions(
    teacher: Any, samples: list[Rendered], tmp_path: Path
) -> None:
    cached = store(tmp_path, teacher, samples, Form("sampled", 6, 1.0))
    right, left = (make_batch(samples, [7, 0, 9], left) for left in (False, True))
    [wanted], [found] = (cached.signals(batch, LOGITS).logits for batch in (right, left))
    assert isinstance(wanted, SampledRows) and isinstance(found, SampledRows)
    assert torch.equal(found.ids_KJ, wanted.ids_KJ)
    assert torch.equal(found.weights_KJ, wanted.weights_KJ)
    width = right.segments_BT.shape[1]
    middle_N = right.rows_N // width == 1
    [rest] = cached.signals(replace(right, rows_N=right.rows_N[~middle_N]), LOGITS).logits
    assert isinstance(rest, SampledRows)
    assert torch.equal(rest.entropy_K, wanted.entropy_K[~middle_N])
    assert cached.signals(replace(right, rows_N=right.rows_N[:0]), LOGITS).logits == ()


def test_another_tokenizer_teacher_data_or_temperature_is_refused(
    teacher: Any, samples: list[Rendered], tmp_path: Path
) -> None:
    store(tmp_path, teacher, samples, Form("top_k", 4, 1.0))
    right: dict[str, Any] = {
        "tokenizer_fingerprint": "t",
        "data_fingerprint": data_fingerprint(samples),
        "temperature": 1.0,
    }
    assert open_cached(tmp_path, **right).fingerprint.startswith("store-sha256:")
    for name, value, stored in (
        ("tokenizer_fingerprint", "u", "t"),
        ("data_fingerprint", data_fingerprint(samples[1:]), data_fingerprint(samples)),
        ("temperature", 2.0, "1.0"),
        ("teacher_fingerprint", "sha256:0", teacher.fingerprint),
    ):
        with pytest.raises(DataError, match="written for another") as caught:
            open_cached(tmp_path, **{**right, name: value})
        assert name.removesuffix("_fingerprint") in caught.value.what
        assert str(value) in caught.value.found and str(stored) in caught.value.found


def test_a_batch_that_is_not_what_was_stored_is_refused(
    teacher: Any, samples: list[Rendered], tmp_path: Path
) -> None:
    cached = store(tmp_path, teacher, samples, Form("top_k", 4, 1.0))
    batch = make_batch(samples, [4, 8])
    ids_BT = batch.inputs["input_ids"]
    other_BT = ids_BT.clone()
    other_BT[1, 0] += 1
    cut = [Rendered(sample.ids[:-1], max(sample.n_response - 1, 1)) for sample in samples]
    packed_BT = batch.segments_BT.clone()
    packed_BT[1, 2:6] = 1
    for wrong, match, where in (
        (replace(batch, samples_B=None), "does not say the numbers", str(tmp_path)),
        (replace(batch, samples_B=torch.tensor([4, 12])), "does not hold this sample", ""),
        (replace(batch, inputs={"input_ids": other_BT}), "other token ids", "sample 8"),
        (make_batch(cut, [4, 8]), "another number of scored positions", "sample 4"),
        (replace(batch, segments_BT=packed_BT), "several documents", "sample 8"),
        (replace(batch, rows_N=batch.rows_N - 1), "other positions", "sample 4"),
    ):
        with pytest.raises(DataError, match=match) as caught:
            cached.signals(wrong, LOGITS)
        assert caught.value.where == (where or str(tmp_path))
    with pytest.raises(ModelError, match="gives logits only"):
        cached.signals(batch, frozenset({"attention"}))


def test_what_cannot_be_stored_is_refused(
    teacher: Any, samples: list[Rendered], tmp_path: Path
) -> None:
    form = Form("top_k", 4, 1.0)
    for wrong, found in (
        ([], "no samples"),
        ([Rendered(array("i", [1, 2]), 2)], "sample 0: 2 tokens, 2 scored"),
        ([*samples, Rendered(array("i", [1, 2]), 0)], "sample 12: 2 tokens, 0 scored"),
        ([Rendered(array("i", [1, V]), 1)], f"sample 0: a token id outside 0 to {V - 1}"),
    ):
        with pytest.raises(DataError, match="cannot be scored") as caught:
            store(tmp_path, teacher, wrong, form)
        assert caught.value.found == found
    wrong_forms: list[dict[str, Any]] = [
        {"kind": "all"},
        {"k": 0},
        {"k": 70_000},
        {"temperature": 0.0},
        {"proposal": -1.0},
    ]
    for change in wrong_forms:
        with pytest.raises(SettingsError) as refused:
            replace(form, **change)
        assert refused.value.where == next(iter(change))


def test_progress_and_size_are_said(
    teacher: Any, samples: list[Rendered], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = store(tmp_path, teacher, samples, Form("top_k", 4, 1.0))
    said = capsys.readouterr().err
    size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    n_positions = sum(sample.n_response for sample in samples)
    assert f"{round(size / n_positions, 2):,} bytes a token" in said
    assert "storing teacher: 12/12 samples" in said
    assert cached.store.facts["bytes_per_token"] == round(size / n_positions, 2)


def _write(folder: str, checkpoint: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    teacher = InProcessTeacher(AutoModelForCausalLM.from_pretrained(checkpoint), "teacher")
    write_store(
        Path(folder),
        teacher,
        make_samples(150),
        Form("sampled", 16, 1.0, seed=2),
        tokenizer_fingerprint="t",
        device=CPU,
        batch_tokens=128,
        shard_positions=40,
    )


def _start(folder: Path, checkpoint: Path) -> Any:
    return start(_write, str(folder), str(checkpoint))


def _finish(folder: Path, checkpoint: Path) -> float:
    started = time.monotonic()
    process = _start(folder, checkpoint)
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - started


def test_random_kills_change_nothing(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """Killed at random moments and resumed, the folder has the bytes of an uninterrupted one."""
    checkpoint = tiny_model("stored-teacher", seed=9)
    start(time.time).join()  # the server has imported all
    seconds = _finish(tmp_path / "whole", checkpoint)
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    n_shards = len(wanted) - 1
    rng, kills, partial, attempt = random.Random(3), 0, 0, 0
    while kills < KILLS or partial < max(2, KILLS // 4):  # some fall into the middle of the work
        attempt += 1
        assert attempt < 10 * KILLS, "stores are finished before they can be killed"
        folder = tmp_path / f"killed-{attempt}"
        process = _start(folder, checkpoint)
        process.join(rng.uniform(0.3, 1.0) * seconds)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += process.exitcode == -signal.SIGKILL  # it may have finished just before
            shards = len(list(folder.glob("*.safetensors")))
            records = len(list(folder.glob("0*.json")))
            finished = (folder / "store.json").exists()
            assert finished or shards - records in (0, 1)  # at most the shard in hand is lost
            partial += 0 < shards < n_shards
        _finish(folder, checkpoint)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == wanted
    assert json.loads(wanted["store.json"])["samples"] == 150
    assert StoreReader(tmp_path / "whole").sample(149).n_positions > 0


def test_64_tokens_and_the_tail_on_the_lab(tmp_path: Path) -> None:
    """Real text, a real teacher and base: the stored loss is the live one within the stated bound.

    The bound is computed from both models' own logits: what the tail hides, and half a unit in the
    last place of 16-bit log-probabilities (relative 2^-11) on what is kept.
    """
    from preceptor.data.rendering import Renderer
    from preceptor.lab import tasks, voices
    from preceptor.lab.place import model_folder
    from preceptor.models.load import load_causal_lm, open_card

    cards = [open_card(str(model_folder(name))) for name in ("birch-m", "base-notes")]
    models = [load_causal_lm(card, torch.float32, CPU) for card in cards]
    pairs = list(itertools.islice(tasks.stream("train", 0), 24))
    replies = [voices.reply("sentence", problem, row, True) for problem, row in pairs]
    renderer = Renderer(cards[1].tokenizer, 256)
    samples = renderer.render([row.instruction for _, row in pairs], replies)
    teacher = InProcessTeacher(models[0])
    cached = store(tmp_path, teacher, samples, Form(kind="top_k", k=64, temperature=1.0))
    batch = make_batch(samples, range(24))
    stored, _ = compare(models[1], batch, cached.signals(batch, LOGITS).logits, 1.0)
    live, _ = compare(models[1], batch, teacher.signals(batch, LOGITS).logits, 1.0)

    log_p_NV, log_q_NV = (all_log_p(model, batch, 1.0) for model in models)
    ids_NJ, _, log_tail_N = top_k(log_p_NV, 64)
    g_NV = (log_q_NV - log_p_NV).scatter(1, ids_NJ, torch.nan)
    spread_N = g_NV.nan_to_num(-torch.inf).amax(1) - g_NV.nan_to_num(torch.inf).amin(1)
    hidden_N = log_tail_N.exp() * torch.minimum(spread_N, spread_N**2 / 8)
    rounding_N = 2**-11 * (log_p_NV.exp() * log_p_NV.abs() * (1 + (log_p_NV - log_q_NV).abs())).sum(
        1
    )
    gap_N = live.divergence_N - stored.divergence_N
    assert (gap_N >= -2 * rounding_N - 1e-5).all()
    assert (gap_N <= hidden_N + 2 * rounding_N + 1e-5).all()
    assert live.loss.item() == pytest.approx(stored.loss.item(), rel=2e-3)
