"""Surprisal, rank, entropy and Brier score of given tokens, without ever holding all logits.

Shapes: N positions, D hidden width, V vocabulary.

One product with the head, as `linear_nll` makes it, and a few sums more over each tile. With
z the logits, m their maximum so far and e = exp(z - m):

    -log p_y  = m + log sum e - z_y
    rank      = 1 + number of v with z_v > z_y
    entropy   = m + log sum e - sum e z / sum e
    Brier     = sum e^2 / (sum e)^2 - 2 p_y + 1
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from preceptor.kernels.linear_nll import BIG_TILE, TILES, tile_logits
from preceptor.models.head import Head

TOKEN_SIGNALS = ("nll", "rank", "entropy", "brier")


def naive_linear_signals(
    hidden_ND: torch.Tensor, head: Head, targets_N: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The twin: all logits at once. All of `TOKEN_SIGNALS`, as `linear_signals` gives them."""
    logits_NV = tile_logits(hidden_ND, head, 0, head.weight_VD.shape[0])
    log_p_NV = logits_NV.log_softmax(1)
    p_NV = log_p_NV.exp()
    own_N1 = targets_N[:, None]
    return {
        "nll": -log_p_NV.gather(1, own_N1)[:, 0],
        "rank": 1 + (logits_NV > logits_NV.gather(1, own_N1)).sum(1),
        "entropy": -(p_NV * log_p_NV).sum(1),
        "brier": (p_NV**2).sum(1) - 2 * p_NV.gather(1, own_N1)[:, 0] + 1,
    }


@dataclass
class _Sums:
    """What is known of some rows after a few tiles; all of shape (rows,), fp32."""

    peak: torch.Tensor  # m
    mass: torch.Tensor  # sum e
    own: torch.Tensor  # z_y
    mean: torch.Tensor | None  # sum e (z - m)
    square: torch.Tensor | None  # sum e^2
    above: torch.Tensor | None  # how many z > z_y; exact in fp32 up to 2^24


@torch.no_grad()
def linear_signals(
    hidden_ND: torch.Tensor,
    head: Head,
    targets_N: torch.Tensor,
    wanted: Collection[str],
    tile: tuple[int, int] | None = None,
) -> dict[str, torch.Tensor]:
    """What `wanted` names of `TOKEN_SIGNALS`, tile by tile with online sums.

    Args:
        hidden_ND: hidden states, any float dtype; products run in it, sums in fp32.
        head: the output layer (same dtype and device).
        targets_N: token ids in [0, V).
        wanted: what is not in it is not computed.
        tile: rows x columns of logits formed at once; by device if None.

    Returns:
        nll (fp32, nats, >= 0), rank (int64, 1 .. V, 1 is the likeliest; tokens that are exactly as
        likely do not count), entropy (fp32, nats, 0 .. ln V) and brier (fp32, 0 .. 2), each of
        shape (N,).
    """
    rows, columns = tile or TILES.get(hidden_ND.device.type, BIG_TILE)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in TOKEN_SIGNALS if name in wanted}
    for top in range(0, hidden_ND.shape[0], rows):
        own = slice(top, top + rows)
        sums = _of_rows(hidden_ND[own], head, targets_N[own], columns, wanted)
        for name, values in _signals(sums).items():
            if name in found:
                found[name].append(values)
    empty = hidden_ND.new_empty(0, dtype=torch.float32)
    return {name: torch.cat(parts) if parts else empty for name, parts in found.items()}


def _of_rows(
    hidden_ND: torch.Tensor,
    head: Head,
    targets_N: torch.Tensor,
    columns: int,
    wanted: Collection[str],
) -> _Sums:
    n, v = hidden_ND.shape[0], head.weight_VD.shape[0]

    def zeros() -> torch.Tensor:
        return torch.zeros(n, dtype=torch.float32, device=hidden_ND.device)

    sums = _Sums(
        zeros().fill_(-torch.inf),
        zeros(),
        zeros(),
        zeros() if "entropy" in wanted else None,
        zeros() if "brier" in wanted else None,
        zeros() if "rank" in wanted else None,
    )
    if sums.above is not None:  # tokens can be compared with z_y only if it is known beforehand
        sums.own = _own_logits(hidden_ND, head, targets_N)
    for low in range(0, v, columns):
        logits_NC = tile_logits(hidden_ND, head, low, min(low + columns, v))
        _add(sums, logits_NC, targets_N - low)
    return sums


def _own_logits(hidden_ND: torch.Tensor, head: Head, targets_N: torch.Tensor) -> torch.Tensor:
    """z_y of each row, by one inner product a row, rounded as a matrix product rounds."""
    product_ND = hidden_ND.float() * head.weight_VD[targets_N].float()
    logits_N = product_ND.sum(1).to(hidden_ND.dtype)
    if head.bias_V is not None:
        logits_N = logits_N + head.bias_V[targets_N]
    logits_N = (logits_N * head.scale).float()
    return head.softcap * torch.tanh(logits_N / head.softcap) if head.softcap else logits_N


def _add(sums: _Sums, logits_NC: torch.Tensor, place_N: torch.Tensor) -> None:
    """Take one tile, which is overwritten; `place_N` is the token's column in it, or beyond it."""
    inside_N = (place_N >= 0) & (place_N < logits_NC.shape[1])
    column_N1 = place_N.clamp(0, logits_NC.shape[1] - 1)[:, None]
    there_N = logits_NC.gather(1, column_N1)[:, 0]
    # reductions in float are several times as fast as those of booleans or of inner products
    scratch_NC = torch.empty_like(logits_NC)
    if sums.above is None:
        sums.own += torch.where(inside_N, there_N, 0.0)
    else:
        # a token is not likelier than itself, whatever the two products round to
        logits_NC.scatter_(1, column_N1, torch.where(inside_N, sums.own, there_N)[:, None])
        sums.above += torch.gt(logits_NC, sums.own[:, None], out=scratch_NC).sum(1)
    peak = torch.maximum(sums.peak, logits_NC.amax(1))
    kept = torch.exp(sums.peak - peak)
    logits_NC -= peak[:, None]
    e_NC = torch.exp(logits_NC, out=scratch_NC)
    if sums.mean is not None:
        moved = torch.where(sums.mass > 0, (sums.peak - peak) * sums.mass, 0.0)
        sums.mean = kept * (sums.mean + moved) + logits_NC.mul_(e_NC).sum(1)
    if sums.square is not None:
        sums.square = kept**2 * sums.square + torch.linalg.vector_norm(e_NC, dim=1) ** 2
    sums.mass = kept * sums.mass + e_NC.sum(1)
    sums.peak = peak


def _signals(sums: _Sums) -> dict[str, torch.Tensor]:
    nll = sums.peak + sums.mass.log() - sums.own
    found = {"nll": nll}
    if sums.above is not None:
        found["rank"] = 1 + sums.above.long()
    if sums.mean is not None:
        found["entropy"] = sums.mass.log() - sums.mean / sums.mass
    if sums.square is not None:
        found["brier"] = sums.square / sums.mass**2 - 2 * (-nll).exp() + 1
    return found
