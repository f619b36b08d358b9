"""`routing`: each sample through its own teacher, against running both and throwing half away.

The peer is the way of the public code of Domain Alignment from Expert: the expert and the reference
both read the whole batch, and rows are chosen afterwards. Both contenders use the same weights and
give the last hidden states at the scored positions; neither forms logits. Values compared: -log p
of the next token under each row's own teacher; `max_abs_error` compares the hidden states.
"""

from __future__ import annotations

import tempfile
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from bench.harness import Contender, Meter, race, row
from preceptor.data.rendering import scored_positions
from preceptor.kernels.linear_nll import linear_nll
from preceptor.kernels.teacher_rows import DenseRows
from preceptor.models.head import read_head
from preceptor.models.signals import Batch
from preceptor.teachers.in_process import InProcessTeacher
from preceptor.teachers.routed import RoutedTeacher

VOCABULARY, SAMPLES = 8192, 16
PASSES = 6  # over the same batch, the fastest of which counts: one takes about a second
LOGITS = frozenset({"logits"})


def build_teacher(seed: int) -> Any:
    """A random model of Qwen-like proportions: hidden 512, 8 layers."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    return Qwen2ForCausalLM._from_config(config, dtype=torch.float32).eval()


def build_batch(shortest: int, longest: int) -> Batch:
    """Samples of random tokens, padded on the right; every other one is from the domain."""
    rng = np.random.default_rng(2)
    samples = [
        array("i", rng.integers(3, VOCABULARY, size).tolist())
        for size in rng.integers(shortest, longest + 1, SAMPLES)
    ]
    width = max(map(len, samples))
    ids_BT = torch.zeros((SAMPLES, width), dtype=torch.long)
    segments_BT = torch.full_like(ids_BT, -1)
    rows: list[int] = []
    for place, ids in enumerate(samples):
        ids_BT[place, : len(ids)] = torch.tensor(ids)
        segments_BT[place, : len(ids)] = 0
        rows.extend(place * width + at for at in scored_positions(len(ids), len(ids) // 2))
    inputs = {"input_ids": ids_BT, "attention_mask": (segments_BT >= 0).long()}
    route_B = torch.arange(SAMPLES) % 2
    return Batch(inputs, torch.tensor(rows), segments_BT, route_B=route_B)


def _warm(models: list[Any]) -> None:
    """One small pass each, so that no contender pays for the first products of its process."""
    for model in models:
        model.base_model(input_ids=torch.arange(16)[None], use_cache=False)


def _nll(batch: Batch, hidden_ND: torch.Tensor, models: list[Any]) -> np.ndarray:
    """-log p of the next token under the teacher of each row."""
    length = batch.segments_BT.shape[1]
    assert batch.route_B is not None
    route_N = batch.route_B[batch.rows_N // length]
    targets_N = batch.inputs["input_ids"].flatten()[batch.rows_N + 1]
    nll_PN = [linear_nll(hidden_ND, read_head(model), targets_N) for model in models]
    return torch.where(route_N == 0, *nll_PN).double().numpy()


@torch.no_grad()
def ours(meter: Meter, shortest: int, longest: int, file: str) -> np.ndarray:
    """`RoutedTeacher.signals`."""
    models = [build_teacher(seed) for seed in (0, 1)]
    names = ("reference", "expert")
    teachers = {
        n: InProcessTeacher(m, n, fingerprint=n) for n, m in zip(names, models, strict=True)
    }
    teacher, batch = RoutedTeacher(teachers), build_batch(shortest, longest)
    _warm(models)
    parts = []
    for _ in range(PASSES):
        with meter:
            parts = teacher.signals(batch, LOGITS).logits
    hidden_ND = torch.empty(len(batch.rows_N), 512)
    for part in parts:
        assert isinstance(part, DenseRows) and part.index_K is not None
        hidden_ND[part.index_K] = part.hidden_KD
    np.save(file + "-ours.npy", hidden_ND.numpy())
    return _nll(batch, hidden_ND, models)


@torch.no_grad()
def both(meter: Meter, shortest: int, longest: int, file: str) -> np.ndarray:
    """Both teachers read every sample; rows are chosen afterwards."""
    models = [build_teacher(seed) for seed in (0, 1)]
    batch = build_batch(shortest, longest)
    assert batch.route_B is not None
    _warm(models)
    hidden_ND = torch.empty(0)
    for _ in range(PASSES):
        with meter:
            states = [
                m.base_model(**batch.inputs, use_cache=False).last_hidden_state for m in models
            ]
            chosen_BTD = torch.where(batch.route_B[:, None, None] == 0, *states)
            hidden_ND = chosen_BTD.flatten(0, 1)[batch.rows_N]
    np.save(file + "-both.npy", hidden_ND.numpy())
    return _nll(batch, hidden_ND, models)


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `routing` benchmark."""
    rows = []
    for shortest, longest in ((192, 192), (128, 256)):
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "hidden")
            case = {"shortest": shortest, "longest": longest, "file": file}
            contenders = [
                Contender("preceptor", "bench.routing:ours"),
                Contender("both teachers", "bench.routing:both"),
            ]
            results = race(contenders, case, repeats)
            mine, other = (np.load(f"{file}-{name}.npy") for name in ("ours", "both"))
        error = float(np.abs(mine - other).max())
        name = f"{SAMPLES} samples of {shortest} to {longest} tokens, half in the domain"
        rows.append(
            row(
                name,
                "both teachers",
                results["preceptor"],
                results["both teachers"],
                max_abs_error=error,
            )
        )
    return rows
