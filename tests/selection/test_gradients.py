"""Projected gradients: against a dense matrix of signs, and through kills."""

from __future__ import annotations

import json
import os
import signal
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from forked import start
from preceptor.core import stage as stages
from preceptor.core.errors import DataError, ModelError, RunFolderError, SettingsError
from preceptor.core.stage import Stage
from preceptor.data.rendering import Rendered
from preceptor.recipes.select import select
from preceptor.recipes.settings.select import Select
from preceptor.selection import gradients
from preceptor.selection.gradients import (
    GRADIENT_SCHEMA,
    GROUP,
    Gradients,
    measure_gradients,
    open_gradients,
    plan_gradients,
    signs,
)

CPU = torch.device("cpu")
DIM = 70  # not a multiple of a word's 64 bits
SHAPE = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}


def build(tied: bool = False, config: type = LlamaConfig, **shape: Any) -> Any:
    torch.manual_seed(0)
    made = config(**SHAPE, tie_word_embeddings=tied, attention_dropout=0.5, **shape)
    return AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()


def sequences(n: int) -> list[Rendered]:
    rng = np.random.default_rng(3)
    return [
        Rendered(array("i", rng.integers(1, 60, size).tolist()), int(rng.integers(1, size)))
        for size in rng.integers(4, 40, n)
    ]


def splitmix64(place: np.ndarray) -> np.ndarray:
    """As it is published, in unsigned arithmetic."""
    z = (place.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def dense_signs(parameters: int, dim: int) -> np.ndarray:
    """The twin: every sign at once, (parameters, dim)."""
    k = np.arange(dim)
    words = splitmix64(np.arange(parameters)[:, None] + (k // 64 << 44))
    return np.where(words >> (k % 64).astype(np.uint64) & np.uint64(1), 1.0, -1.0)


def naive(model: Any, row: Rendered, dim: int = DIM) -> np.ndarray:
    """The twin: one answer, the model's own loss of labels, autograd, all signs, in fp64."""
    ids_T = torch.tensor(row.ids)
    labels_T = ids_T.clone()
    labels_T[: len(ids_T) - row.n_response] = -100
    loss = model(input_ids=ids_T[None], labels=labels_T[None], use_cache=False).loss
    found = torch.autograd.grad(loss, list(model.parameters()))
    gradient_P = torch.cat([part.flatten() for part in found]).double().numpy()
    return gradient_P @ dense_signs(len(gradient_P), dim) / np.sqrt(len(gradient_P))


def assert_close(found: np.ndarray, wanted: np.ndarray, relative: float = 1e-5) -> None:
    error = np.linalg.norm(found - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    assert error.max() < relative


def test_the_hash_is_splitmix64():
    """The first numbers of seed 0, as the reference implementation prints them."""
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(np.arange(3)).tolist() == known
    words = dense_signs(1, 64)[0] > 0
    assert sum(1 << place for place in range(64) if words[place]) == known[0]


def test_signs_are_those_of_the_twin_wherever_a_block_begins():
    whole = dense_signs(300, 200)
    assert signs(0, 300, 200, CPU).numpy().tolist() == whole.tolist()
    assert signs(77, 300, 130, CPU).numpy().tolist() == whole[77:, :130].tolist()
    assert abs(signs(0, 20_000, 64, CPU).mean().item()) < 0.004  # 4.5 standard errors
    many = signs(0, 4096, 96, CPU)
    off = (many.T @ many / 4096).fill_diagonal_(0).abs()
    assert off.max().item() < 0.1  # 6.4 standard errors


@pytest.mark.parametrize(
    "model",
    [
        partial(build),
        partial(build, tied=True),
        partial(build, tied=True, config=Gemma2Config, head_dim=8, final_logit_softcapping=3.0),
    ],
    ids=["llama", "tied", "capped"],
)
def test_gradients_are_those_of_the_naive_twin(model: Callable[[], Any]):
    some = sequences(5)
    wanted = np.stack([naive(model(), row) for row in some])
    found = Gradients(model(), "", DIM).project(some)
    assert found.dtype == np.float32 and found.shape == (5, DIM)
    assert_close(found, wanted)


def test_parts_of_positions_and_of_parameters_change_nothing(monkeypatch: pytest.MonkeyPatch):
    some = sequences(4)
    wanted = Gradients(build(tied=True), "", DIM).project(some)
    monkeypatch.setattr(gradients, "POSITIONS", 3)
    monkeypatch.setitem(gradients.SIGNS, "cpu", 100 * DIM)
    assert_close(Gradients(build(tied=True), "", DIM).project(some), wanted)


def test_grouping_changes_no_bit_and_dropping_gradients_at_once_no_number():
    some = sequences(GROUP + 3)
    whole = Gradients(build(), "", DIM).project(some)
    for rows in (1, 3):
        apart = Gradients(build(), "", DIM, rows=rows).project(some)
        assert apart.tobytes() == whole.tobytes()
    scorer = Gradients(build(), "", DIM)
    alone = np.concatenate([scorer.project([row]) for row in reversed(some)])[::-1]
    assert np.ascontiguousarray(alone).tobytes() == whole.tobytes()
    assert_close(Gradients(build(), "", DIM, rows=0).project(some), whole, 1e-6)


def test_only_one_gradient_of_a_parameter_is_ever_left():
    scorer = Gradients(build(), "", DIM, rows=0)
    scorer.project(sequences(2))
    assert scorer._held_RP is None
    assert all(weight.grad is None for weight in scorer.model.parameters())


def test_half_precision_is_near(tmp_path: Path, tiny_model: Callable[..., Path]):
    """bfloat16 weights; float16 has too little range, so float32 is loaded."""
    place, some = str(tiny_model("base")), sequences(4)
    full = open_gradients(place, "float32", "cpu", False, DIM)(some)
    assert open_gradients(place, "float16", "cpu", False, DIM)(some).tobytes() == full.tobytes()
    half = open_gradients(place, "bfloat16", "cpu", False, DIM)(some)
    assert half.tobytes() != full.tobytes()
    assert_close(half, full, 0.1)


def test_what_cannot_be_trained_is_refused():
    model = build()
    model.model.embed_tokens.weight.requires_grad_(False)
    with pytest.raises(ModelError, match="can all be trained") as refused:
        Gradients(model, "base", DIM)
    assert "1 frozen or quantised, model.embed_tokens.weight (float32, frozen)" in str(
        refused.value
    )
    model = build()
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="int8, frozen"):
        Gradients(model, "base", DIM)


def test_gradients_that_are_not_finite_are_one_error():
    scorer = Gradients(build(), "base", DIM)
    scorer.head.weight_VD.data[7] = float("inf")
    with pytest.raises(ModelError, match="not finite"):
        scorer.project(sequences(2))


def test_a_plan_has_every_answer_once_the_longest_first():
    some = sequences(3 * GROUP + 1)
    plan = plan_gradients([*some, *some[:5]])
    assert sorted(row for batch in plan.batches for row in batch.rows) == list(range(len(some)))
    assert [len(batch.rows) for batch in plan.batches] == [GROUP, GROUP, GROUP, 1]
    lengths = [len(row.ids) for row in plan.unique]
    assert lengths[plan.batches[0].rows[0]] == max(lengths)
    assert [batch.n_tokens for batch in plan.batches] == [
        sum(lengths[row] for row in batch.rows) for batch in plan.batches
    ]


def work_of(count: Path, last: int) -> Callable[[Sequence[Rendered]], np.ndarray]:
    """Notes each batch in a file, and kills its own process at one of them."""
    scorer = Gradients(build(), "", DIM)

    def work(rows: Sequence[Rendered]) -> np.ndarray:
        with open(count, "a") as file:
            file.write(f"{len(rows)}\n")
        if len(count.read_text().splitlines()) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return scorer.project(rows)

    return work


def take(folder: Path, last: int = 0) -> np.ndarray:
    plan = plan_gradients(sequences(5 * GROUP))
    folder.mkdir(exist_ok=True)
    opener = partial(work_of, folder / "count", last)
    with Stage(folder / "stage", GRADIENT_SCHEMA) as stage:
        found = measure_gradients("g", opener, DIM, plan, stage, folder / "gradients.npy")
    return np.array(found)


def take_and_die(folder: str) -> None:
    torch.set_num_threads(1)
    stages.COMMIT_SECONDS = 0.0
    take(Path(folder), last=4)


def test_a_killed_pass_goes_on_to_the_same_bits(tmp_path: Path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = take(tmp_path / "whole")
        process = start(take_and_die, str(tmp_path / "parts"))
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        assert take(tmp_path / "parts").tobytes() == whole.tobytes()
        assert len((tmp_path / "parts" / "count").read_text().splitlines()) == 4 + 2
        assert take(tmp_path / "parts").tobytes() == whole.tobytes()  # nothing is opened again
        assert len((tmp_path / "parts" / "count").read_text().splitlines()) == 4 + 2
    finally:
        torch.set_num_threads(threads)
    assert whole.shape == (5 * GROUP, DIM) and (np.abs(whole).sum(axis=1) > 0).all()
    stored = np.load(tmp_path / "parts" / "gradients.npy", allow_pickle=False)
    assert stored.dtype == np.float32 and stored.size == whole.size


def test_what_was_taken_before_an_error_is_kept(tmp_path: Path):
    plan = plan_gradients(sequences(2 * GROUP))
    scorer = Gradients(build(), "", DIM)
    calls: list[int] = []

    def work(rows: Sequence[Rendered]) -> np.ndarray:
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return scorer.project(rows)

    path = tmp_path / "gradients.npy"
    with (
        pytest.raises(KeyboardInterrupt),
        Stage(tmp_path / "stage", GRADIENT_SCHEMA) as stage,
    ):
        measure_gradients("g", lambda: work, DIM, plan, stage, path)
    with Stage(tmp_path / "stage", GRADIENT_SCHEMA) as stage:
        assert sorted(stage.table()["row"].to_pylist()) == sorted(plan.batches[0].rows)
        found = measure_gradients("g", lambda: work, DIM, plan, stage, path)
    assert len(calls) == 3
    assert_close(found, scorer.project(plan.unique[:]), 1e-6)


def test_a_file_of_other_settings_is_refused(tmp_path: Path):
    plan, scorer = plan_gradients(sequences(3)), Gradients(build(), "", 8)
    path = tmp_path / "gradients.npy"
    with Stage(tmp_path / "stage", GRADIENT_SCHEMA) as stage:
        measure_gradients("g", lambda: scorer.project, 8, plan, stage, path)
        with pytest.raises(RunFolderError, match="of another run"):
            measure_gradients("g", lambda: scorer.project, 9, plan, stage, path)


def settings(folder: Path, base: Path, n: int, **more: Any) -> Select:
    """Recorded answers of two teachers, who agree on one instruction."""
    rows = [
        {
            "instruction": f"Name the number {k} and a house.",
            "generator": teacher,
            "response": "the same" if k == 3 else form.format(k=k),
            "reward": 1.0,
        }
        for k in range(n)
        for teacher, form in (("ash", "The number is {k}."), ("beech", "{k}{k}{k} the cat"))
    ]
    answers = folder / "answers.jsonl"
    answers.write_text("\n".join(map(json.dumps, rows)))
    return Select.model_validate(
        {
            "base": str(base),
            "answers": str(answers),
            "rewards": [{"kind": "column", "name": "reward"}],
            "criteria": ["grace"],
            "gradient_dim": 16,
        }
        | more
    )


def test_a_selection_by_grace_is_the_direct_formula(tmp_path: Path, base: Path):
    """The whole verb, and the same number from the twin's gradients by traces."""
    from preceptor.data.rendering import Renderer
    from preceptor.models.load import open_card

    own = settings(tmp_path, base, 12)
    table = select(own, tmp_path / "run")["criteria"]["grace"]["teachers"]
    found = {row["teacher"]: row["score"] for row in table}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    card = open_card(str(base))
    for teacher, form in (("ash", "The number is {k}."), ("beech", "{k}{k}{k} the cat")):
        rendered = Renderer(card.tokenizer, card.limit).render(
            [f"Name the number {k} and a house." for k in range(12)],
            ["the same" if k == 3 else form.format(k=k) for k in range(12)],
        )
        gradient_ND = np.stack([naive(model, row, 16) for row in rendered])
        unit_ND = gradient_ND / np.linalg.norm(gradient_ND, axis=1, keepdims=True)
        scores = []
        for number in range(10):
            *train, test = np.random.default_rng(number).permutation(12)
            w, v = np.linalg.eigh(unit_ND[train].T @ unit_ND[train] / 11)
            inverse = v / (0.999 * w + 0.001 * w.mean()) @ v.T
            scores.append(np.trace(inverse @ np.outer(gradient_ND[test], gradient_ND[test])))
        assert found[teacher] == pytest.approx(np.mean(scores), rel=1e-4)
    assert not (tmp_path / "run" / "work").exists()


def test_too_few_instructions_are_refused_before_a_weight_is_loaded(tmp_path: Path, base: Path):
    with pytest.raises(DataError, match="too few"):
        select(settings(tmp_path, base, 9), tmp_path / "run")
    options = {"grace": {"nu": 0}}
    with pytest.raises(SettingsError, match="out of its range"):
        select(settings(tmp_path, base, 12, criterion_options=options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_race_cannot_be_decided_by_gradients(tmp_path: Path, base: Path):
    """Its rounds are measured one by one, and GRACE looks at all answers of a teacher."""
    live = {"instructions": "lab:selection", "teachers": ["lab:birch-m", "lab:aster-s"]}
    reward = {"kind": "verifier", "name": "correct", "function": "lab"}
    own = settings(tmp_path, base, 12, answers=(), rewards=[reward], race={}, **live)
    with pytest.raises(SettingsError, match="round by round"):
        select(own, tmp_path / "run")
    assert not (tmp_path / "run").exists()
