"""What routing is worth on prompts that the router was not fitted on.

The training prompts are split into folds by a hash of their text, so that equal texts share a fold
and nothing depends on the order of the rows. A router that was fitted on the other folds routes the
prompts of each; its penalty is chosen inside those, on one of them that is set aside. That is done
for several splits, whose results are averaged at each prompt: one split alone is partly luck. The
prompts beyond the training ones are routed by the final router. So every prompt counts alike, and
none is routed by a router that has seen it.

Routing is compared with the single teacher that is best over all these prompts, which thus is
chosen with hindsight; with the best teacher of each prompt (the *oracle*, which nobody knows before
asking, and whose mean holds the luck of the noise); and with a teacher drawn at random.

Shapes: S splits, N prompts, M teachers, D places of phi, C ways to choose a teacher, R resamples
(and, of `row_space`, its places).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from preceptor.core.errors import DataError
from preceptor.core.progress import progress
from preceptor.data.ngrams import ngram_features
from preceptor.selection.ranking import interval, resample_weights
from preceptor.selection.router import (
    Router,
    choose,
    fit,
    largest_gap,
    pair_loss,
    row_space,
    wins,
)

SPLITS, FOLDS = 3, 5
LEAST = 4 * FOLDS  # different prompts that a router is fitted on
PENALTIES = (float("inf"), 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)  # inf: no routing
WAYS = ROUTED, SINGLE, ORACLE, RANDOM = "routed", "single", "oracle", "random"


@dataclass(frozen=True)
class Trained:
    """A router, and what routers like it say of prompts they have not seen.

    Attributes:
        held_out_SNM: strengths at every prompt, of a router that was not fitted on it.
        constant_SNM: the same of routers that do not look at the prompt.
        trained_N: whether the final router was fitted on the prompt.
        l2: penalties chosen in the folds of all splits; the router's is their median.
        scale: of the labels.
    """

    router: Router
    held_out_SNM: np.ndarray
    constant_SNM: np.ndarray
    trained_N: np.ndarray
    l2: tuple[float, ...]
    scale: float


def _order(texts: Sequence[str], *seed: int) -> np.ndarray:
    """Number of each text among the different ones, in an order that hangs on text and seed."""
    salt = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()
    hashes = [
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt)
        for text in texts
    ]
    numbers = np.array([int.from_bytes(own.digest(), "big") for own in hashes], dtype=np.uint64)
    return np.unique(numbers, return_inverse=True)[1]


def train(
    teachers: Sequence[str],
    texts: Sequence[str],
    score_MN: np.ndarray,
    *,
    prompts: int,
    seed: int,
    scale: float | None = None,
) -> Trained:
    """Fit the router, and routers of the folds.

    Args:
        texts: of the prompts; equal ones may stand there.
        score_MN: of the teachers' answers to them, higher is better.
        prompts: how many different ones to fit on, at most.
        seed: of which ones, and of the folds.
        scale: of soft labels; the largest gap at a prompt if None, 0 for hard labels.

    Raises:
        DataError: too few different prompts.
    """
    order_N = _order(texts, seed)
    n_different = int(order_N.max(initial=-1)) + 1
    if min(prompts, n_different) < LEAST:
        raise DataError(
            "a router needs more prompts to be fitted on",
            where="the run's instructions" if n_different < LEAST else "prompts",
            found=f"{min(prompts, n_different):,} different ones",
            next_step=f"take at least {LEAST}; a few hundred are worth having",
        )
    trained_N = order_N < prompts
    own = np.flatnonzero(trained_N)
    scale = largest_gap(score_MN) if scale is None else scale
    wins_NM = wins(score_MN, scale)
    own_NM, own_texts = wins_NM[own], [texts[place] for place in own.tolist()]
    z_NR, back_DR = row_space(ngram_features(own_texts))
    held_out_SNM = np.full((SPLITS, *wins_NM.shape), np.nan)
    constant_SNM = np.full_like(held_out_SNM, np.nan)
    chosen: list[float] = []
    with progress("fitting the router", SPLITS * FOLDS + 1, "folds") as advance:
        for split in range(SPLITS):
            fold_N = _order(own_texts, seed, split) % FOLDS
            for fold in range(FOLDS):
                out_N = fold_N == fold
                l2, theta_MP = _penalty(z_NR[~out_N], own_NM[~out_N], fold_N[~out_N], fold)
                theta_MP = fit(z_NR[~out_N], own_NM[~out_N], l2, theta_MP)
                u_NM = z_NR[out_N] @ theta_MP[:, :-1].T + theta_MP[:, -1]
                held_out_SNM[split, own[out_N]] = u_NM
                constant_SNM[split, own[out_N]] = _constant(own_NM[~out_N])
                chosen.append(l2)
                advance(1)
        l2 = sorted(chosen)[len(chosen) // 2]
        theta_MP = fit(z_NR, own_NM, l2)
        weight_MD = theta_MP[:, :-1] @ back_DR.T
        router = Router.of(teachers, np.column_stack([weight_MD, theta_MP[:, -1]]), l2)
        advance(1)
    others = np.flatnonzero(~trained_N)
    if others.size:
        held_out_SNM[:, others] = router.utilities([texts[place] for place in others.tolist()])
        constant_SNM[:, others] = _constant(own_NM)
    return Trained(router, held_out_SNM, constant_SNM, trained_N, tuple(chosen), scale)


def _constant(wins_NM: np.ndarray) -> np.ndarray:
    """Strengths that are the same for all prompts: (M,)."""
    return fit(np.empty((len(wins_NM), 0)), wins_NM, 0.0)[:, 0]


def _penalty(
    phi_ND: np.ndarray, wins_NM: np.ndarray, fold_N: np.ndarray, outer: int
) -> tuple[float, np.ndarray]:
    """The penalty of least loss on the fold after `outer`, and the weights fitted with it.

    Penalties are tried from the strongest on, each from the weights of the one before, until one is
    worse than the best: a weaker one would be worse still.
    """
    aside_N = fold_N == (outer + 1) % FOLDS
    best: tuple[float, float, np.ndarray] | None = None
    theta_MP = None
    for l2 in PENALTIES:
        theta_MP = fit(phi_ND[~aside_N], wins_NM[~aside_N], l2, theta_MP)
        u_NM = phi_ND[aside_N] @ theta_MP[:, :-1].T + theta_MP[:, -1]
        loss, _ = pair_loss(torch.from_numpy(u_NM), torch.from_numpy(wins_NM[aside_N]))
        if best is not None and float(loss) >= best[0]:
            break
        best = float(loss), l2, theta_MP
    assert best is not None
    return best[1], best[2]


def accuracy(u_NM: np.ndarray, score_MN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pairs told right, pairs) of each prompt; of pairs with equal scores there is none to tell.

    Equal strengths are half right.
    """
    right_N, pairs_N = np.zeros(len(u_NM)), np.zeros(len(u_NM))
    for k in range(1, len(score_MN)):
        truth_kN = np.sign(score_MN[k] - score_MN[:k])
        told_kN = np.sign(u_NM[:, k] - u_NM[:, :k].T)
        pairs_N += (truth_kN != 0).sum(axis=0)
        right_N += np.where(truth_kN != 0, 0.5 + 0.5 * truth_kN * told_kN, 0.0).sum(axis=0)
    return right_N, pairs_N


def worth(
    trained: Trained,
    score_MN: np.ndarray,
    others: Mapping[str, np.ndarray],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The part `held_out` of `route.json`.

    Args:
        score_MN: what the router was fitted on.
        others: further numbers (M, N) of the answers, by name.
    """
    teachers = trained.router.teachers
    n = score_MN.shape[1]
    every_N = np.arange(n)
    single = int(choose(score_MN.mean(axis=1)[None], teachers)[0])
    routed_SN = np.stack([choose(u_NM, teachers) for u_NM in trained.held_out_SNM])
    best_N = choose(score_MN.T, teachers)
    tables = {"score": score_MN, **others}
    values = {
        name: np.stack(
            [
                grid_MN[routed_SN, every_N].mean(axis=0),
                grid_MN[single],
                grid_MN[best_N, every_N],
                grid_MN.mean(axis=0),
            ]
        )
        for name, grid_MN in tables.items()
    }
    told = [
        tuple(np.mean([accuracy(u_NM, score_MN) for u_NM in u_SNM], axis=0))
        for u_SNM in (trained.held_out_SNM, trained.constant_SNM)
    ]
    means: dict[str, list[np.ndarray]] = {name: [] for name in tables}
    ratios: list[np.ndarray] = []
    for w_NR in resample_weights(n, resamples, seed):
        for name, values_CN in values.items():
            means[name].append(values_CN @ w_NR)
        ratios.append(
            np.stack([_ratio(right_N @ w_NR, pairs_N @ w_NR) for right_N, pairs_N in told])
        )
    found: dict[str, Any] = {
        "n_prompts": n,
        "single": teachers[single],
        "means": {
            name: _cells(values_CN.mean(axis=1), np.concatenate(means[name], 1), confidence)
            for name, values_CN in values.items()
        },
    }
    point = np.array([_ratio(right_N.sum(), pairs_N.sum()) for right_N, pairs_N in told])
    drawn_2R = np.concatenate(ratios, axis=1)
    found["pair_accuracy"] = {
        "router": _cell(point[0], drawn_2R[0], confidence),
        "without_prompt": _cell(point[1], drawn_2R[1], confidence),
        "difference": _cell(point[0] - point[1], drawn_2R[0] - drawn_2R[1], confidence),
    }
    shares_M = np.bincount(routed_SN.ravel(), minlength=len(teachers)) / routed_SN.size
    found["shares"] = {name: float(shares_M[m]) for m, name in enumerate(teachers)}
    return found


def _ratio(above: Any, below: Any) -> Any:
    """The share; a half where there is nothing to tell."""
    return np.where(below > 0, above / np.maximum(below, 1e-300), 0.5)


def _cells(mean_C: np.ndarray, drawn_CR: np.ndarray, confidence: float) -> dict[str, Any]:
    """Mean of each way to choose, and how far routing, the first one, is above the others."""
    found: dict[str, Any] = {
        way: _cell(mean_C[c], drawn_CR[c], confidence) for c, way in enumerate(WAYS)
    }
    found["routed_minus"] = {
        way: _cell(mean_C[0] - mean_C[c], drawn_CR[0] - drawn_CR[c], confidence)
        for c, way in enumerate(WAYS)
        if c
    }
    return found


def _cell(mean: Any, drawn_R: np.ndarray, confidence: float) -> dict[str, float]:
    low, high = interval(drawn_R, confidence)
    return {"mean": float(mean), "low": float(low), "high": float(high)}
