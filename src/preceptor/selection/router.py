"""A router: from the text of a prompt to the teacher it is best asked of, before anybody is asked.

PerSyn (arXiv 2510.10925) calls it "route then generate". Each answer of a finished selection has a
score s (`criteria/persyn.py`); for two teachers k and j of a prompt x the router says

    P(k beats j | x) = sigmoid(u_k(x) - u_j(x)),   u_k(x) = w_k . phi(x) + b_k

which is a Bradley-Terry model whose strengths depend on the prompt. It is fitted on all pairs of
teachers of all training prompts, and routes to the teacher of highest u.

What the paper leaves open, or does otherwise, and what is done here:

- phi: the paper trains a language model; here phi are hashed n-grams (`data/ngrams.py`), which need
  no model and no accelerator, and w is penalised by its squared length.
- labels: soft ones, sigmoid((s_k - s_j) / scale), with the largest gap between two answers to one
  prompt as the scale. There the sigmoid is nearly straight, so that u follows the *mean* of s,
  which routing is to raise. Hard labels (1, 0, a half for a tie; `scale=0`) make u follow how
  *often* a teacher wins, by however little.

Pairs enter the loss only through the sum of each teacher's labels at a prompt, its *wins*.

Shapes: N prompts, M teachers, D places of phi.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from preceptor.core import artifacts
from preceptor.core.errors import RunFolderError
from preceptor.data.ngrams import DIM, VERSION, ngram_features

BIAS_L2 = 1e-4  # keeps the strength of a teacher that always wins finite
CHUNK = 1 << 24  # pairs at a time: bounds the memory of a step
STEPS = 300  # of L-BFGS, at most
_BLOCK = 1024  # texts at a time
_KEY = "router"  # of what the file says beside the weights


def largest_gap(score_MN: np.ndarray) -> float:
    """Largest difference between the scores of two teachers at one prompt."""
    return float((score_MN.max(axis=0) - score_MN.min(axis=0)).max())


def wins(score_MN: np.ndarray, scale: float) -> np.ndarray:
    """Sum of each teacher's labels against all others: (N, M), each row sums to M (M - 1) / 2.

    Args:
        scale: gap of scores whose label is sigmoid(1); 0 for hard labels (a tie is a half).
    """
    wins_NM = np.empty(score_MN.shape[::-1])
    for k, own_N in enumerate(score_MN):
        gap_MN = own_N - score_MN
        label_MN = 0.5 + 0.5 * (np.sign(gap_MN) if scale == 0 else np.tanh(gap_MN / (2 * scale)))
        wins_NM[:, k] = label_MN.sum(axis=0) - 0.5  # less the half against itself
    return wins_NM


def pair_loss(u_NM: torch.Tensor, wins_NM: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the labels, nats: summed over pairs and prompts, over N (M - 1).

    Returns:
        The loss, and its gradient by u_NM.
    """
    n, m = u_NM.shape
    loss = -(u_NM * (wins_NM - (m - 1) / 2)).sum()
    slope_NM = -wins_NM - 0.5
    size = max(1, CHUNK // (m * m))
    for low in range(0, n, size):
        own_nM = u_NM[low : low + size]
        gap_nMM = own_nM[:, :, None] - own_nM[:, None, :]
        loss = loss + 0.5 * torch.nn.functional.softplus(gap_nMM).sum()
        slope_NM[low : low + size] += torch.sigmoid(gap_nMM).sum(dim=2)
    loss = loss - 0.5 * n * m * float(np.log(2.0))  # each against itself is no pair
    return loss / (n * (m - 1)), slope_NM / (n * (m - 1))


def objective(
    theta_MP: torch.Tensor,
    phi_ND: torch.Tensor,
    wins_NM: torch.Tensor,
    l2: float,
    bias_l2: float = BIAS_L2,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`pair_loss` with half of l2 |w|^2 and of bias_l2 |b|^2, and its gradient.

    Args:
        theta_MP: weights of each teacher with its bias behind them, P = D + 1.
    """
    weight_MD, bias_M = theta_MP[:, :-1], theta_MP[:, -1]
    loss, slope_NM = pair_loss(phi_ND @ weight_MD.T + bias_M, wins_NM)
    loss = loss + 0.5 * l2 * weight_MD.square().sum() + 0.5 * bias_l2 * bias_M.square().sum()
    gradient_MD = slope_NM.T @ phi_ND + l2 * weight_MD
    gradient_M = slope_NM.sum(dim=0) + bias_l2 * bias_M
    return loss, torch.cat([gradient_MD, gradient_M[:, None]], dim=1)


def fit(
    phi_ND: np.ndarray,
    wins_NM: np.ndarray,
    l2: float,
    start_MP: np.ndarray | None = None,
    bias_l2: float = BIAS_L2,
) -> np.ndarray:
    """The minimum of `objective`, which is convex: float64 of shape (M, D + 1), by L-BFGS.

    Args:
        l2: inf leaves the biases alone, which are then the same for all prompts.
        start_MP: where to begin; at 0 if None. It matters for time alone.
    """
    n, m = wins_NM.shape
    d = phi_ND.shape[1]
    if np.isinf(l2):
        theta_MP = np.zeros((m, d + 1))
        if d:
            theta_MP[:, -1] = fit(np.empty((n, 0)), wins_NM, 0.0, bias_l2=bias_l2)[:, 0]
            return theta_MP
    inputs = torch.from_numpy(phi_ND), torch.from_numpy(wins_NM)
    # about the curvature of each place, which the steps are then measured in
    curve_P = np.append(0.25 * np.square(phi_ND).mean(axis=0) + l2, 0.25 + bias_l2)
    scale_P = torch.from_numpy(1.0 / np.sqrt(np.maximum(curve_P, 1e-12)))
    begin_MP = torch.from_numpy(np.zeros((m, d + 1)) if start_MP is None else start_MP)
    scaled = torch.nn.Parameter(begin_MP / scale_P)
    solver = torch.optim.LBFGS(
        [scaled],
        max_iter=STEPS,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def step() -> torch.Tensor:
        with torch.no_grad():
            loss, gradient_MP = objective(scaled * scale_P, *inputs, l2, bias_l2)
            scaled.grad = gradient_MP * scale_P
        return loss

    solver.step(step)
    return (scaled.detach() * scale_P).numpy()


def row_space(phi_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fewer places for few prompts: z of shape (N, R) and back of shape (D, R), R <= N.

    The weights of least `objective` are a mixture of the prompts' vectors. So a fit on z, with
    phi = z back^T and orthonormal columns of back, is the fit on phi, and w = back c the weights.
    """
    if len(phi_ND) >= phi_ND.shape[1]:
        return phi_ND, np.eye(phi_ND.shape[1])
    square_R, vectors_NR = np.linalg.eigh(phi_ND @ phi_ND.T)
    kept_R = square_R > 1e-10 * square_R[-1]
    length_R, vectors_NR = np.sqrt(square_R[kept_R]), vectors_NR[:, kept_R]
    return vectors_NR * length_R, phi_ND.T @ (vectors_NR / length_R)


@dataclass(frozen=True)
class Router:
    """A fitted router.

    Attributes:
        weight_MD, bias_M: float32.
        l2: the penalty it was fitted with.
    """

    teachers: tuple[str, ...]
    weight_MD: np.ndarray
    bias_M: np.ndarray
    l2: float

    @classmethod
    def of(cls, teachers: Sequence[str], theta_MP: np.ndarray, l2: float) -> Router:
        """The router of fitted numbers, rounded as its file holds them."""
        single = theta_MP.astype(np.float32)
        return cls(tuple(teachers), single[:, :-1].copy(), single[:, -1].copy(), l2)

    def utilities(self, texts: Sequence[str]) -> np.ndarray:
        """u of each teacher for each text, less their mean at that text: (N, M), in log-odds."""
        blocks = [np.empty((0, len(self.teachers)))]
        for low in range(0, len(texts), _BLOCK):
            phi_ND = ngram_features(texts[low : low + _BLOCK])
            blocks.append(centred(phi_ND @ self.weight_MD.T + self.bias_M))
        return np.concatenate(blocks)

    def save(self, path: Path) -> None:
        """Write the weights, and in the file's metadata what they belong to."""
        facts = {"teachers": self.teachers, "features": VERSION, "l2": str(self.l2)}
        tensors = {"weight": self.weight_MD, "bias": self.bias_M}
        content = save(tensors, {_KEY: json.dumps(facts, ensure_ascii=False)})
        artifacts.write_bytes(path, content)

    @classmethod
    def load(cls, path: Path) -> Router:
        """Read what `save` wrote (raises RunFolderError)."""
        try:
            with safe_open(path, "np") as file:
                facts = json.loads((file.metadata() or {})[_KEY])
                weight_MD, bias_M = file.get_tensor("weight"), file.get_tensor("bias")
            fits = weight_MD.shape == (len(facts["teachers"]), DIM) and len(bias_M) == len(
                weight_MD
            )
            if facts["features"] != VERSION or not fits:
                raise ValueError(f"features {facts['features']}, weights {weight_MD.shape}")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise RunFolderError(
                "this is no router of this release",
                where=str(path),
                found=f"{type(error).__name__}: {error}",
                next_step="train one: `preceptor route`",
            ) from error
        return cls(tuple(facts["teachers"]), weight_MD, bias_M, float(facts["l2"]))


def centred(u_NM: np.ndarray) -> np.ndarray:
    """Strengths less their mean at each prompt: only differences mean anything."""
    return u_NM - u_NM.mean(axis=1, keepdims=True)


def choose(u_NM: np.ndarray, teachers: Sequence[str]) -> np.ndarray:
    """Place of the strongest teacher at each prompt, of equals the first by name: (N,)."""
    order = np.array(sorted(range(len(teachers)), key=lambda m: teachers[m]))
    return order[u_NM[:, order].argmax(axis=1)]
