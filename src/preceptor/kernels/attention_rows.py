"""Which keys the rows of an attention map see, and how rows are cut into blocks.

A row sees the keys of its document, up to its own position, within the window. Blocks are cut so
that their key ranges hold few keys that no row sees: causality halves the work, and windows and
packed documents cost what they need.

Shapes: B samples, T tokens, N scored rows of the batch; R rows x K keys of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

FEWEST_ROWS = 64  # of a block, however many keys they see: products with fewer are slow

Strips = list[tuple[int, int, torch.Tensor]]  # columns from, to, and what is hidden there


@dataclass(frozen=True)
class Block:
    """Rows top .. bottom-1 of rows_N, all of one sample, against the keys low .. high-1."""

    sample: int
    top: int
    bottom: int
    low: int
    high: int
    heads: int  # compared heads in one tile

    @property
    def elements(self) -> int:
        """Of a tile."""
        return self.heads * (self.bottom - self.top) * (self.high - self.low)

    def tile(self, buffer: torch.Tensor, heads: int) -> torch.Tensor:
        """The front of a flat buffer as a tile."""
        rows, keys = self.bottom - self.top, self.high - self.low
        return buffer[: heads * rows * keys].view(heads, rows, keys)


class Rows:
    """Where the rows lie and which keys they see."""

    def __init__(self, segments_BT: torch.Tensor, rows_N: torch.Tensor) -> None:
        tokens = segments_BT.shape[1]
        self.segments_BT, self.position_N = segments_BT, rows_N % tokens
        segments_BT, rows_N = segments_BT.cpu(), rows_N.cpu()  # plans need numbers
        if (rows_N[1:] <= rows_N[:-1]).any() or (segments_BT.flatten()[rows_N] < 0).any():
            raise ValueError("rows_N must rise and lie outside padding")
        first_BT, self._gaps = _document_starts(segments_BT)
        self._first_N, self._here_N = first_BT.flatten()[rows_N], rows_N % tokens
        self.samples, self.positions = (rows_N // tokens).tolist(), self._here_N.tolist()

    def starts(self, window: int | None) -> list[int]:
        """The first key that each row may see: of its document, or of the window."""
        if window is None:
            return self._first_N.tolist()
        return torch.maximum(self._first_N, self._here_N - (window - 1)).tolist()

    def strips(self, block: Block, starts: list[int], window: int | None) -> Strips:
        """What is hidden from a block's rows, as a rule only at the edges of its key range."""
        left, right = max(starts[block.top : block.bottom]), self.positions[block.top] + 1
        if self._gaps or left >= right:
            left = right = block.high
        position_R1 = self.position_N[block.top : block.bottom, None]
        segments_T = self.segments_BT[block.sample]
        strips = []
        for low, high in ((block.low, left), (right, block.high)):
            if low < high:
                key_K = torch.arange(low, high, device=position_R1.device)
                hidden_RK = segments_T[low:high] != segments_T[position_R1]
                hidden_RK |= key_K > position_R1
                if window is not None:
                    hidden_RK |= key_K <= position_R1 - window
                strips.append((low - block.low, high - block.low, hidden_RK))
        return strips


def _document_starts(segments_BT: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """First position of every token's document, and whether any document has a gap."""
    position_BT = torch.arange(segments_BT.shape[1]).expand(segments_BT.shape)
    numbers, place_BT = segments_BT.unique(return_inverse=True)
    first = torch.full((len(segments_BT), len(numbers)), segments_BT.shape[1])
    first_BT = first.scatter_reduce_(1, place_BT, position_BT, "amin").gather(1, place_BT)
    joined_BT = (first_BT == position_BT) | (segments_BT < 0)
    joined_BT[:, 1:] |= segments_BT[:, 1:] == segments_BT[:, :-1]
    return first_BT, not bool(joined_BT.all())


def _parts(rows: Rows, starts: list[int], area: int, most_rows: int) -> list[tuple[int, int]]:
    """Runs of rows that see common keys; neighbours whose tile stays below `area` together."""
    positions, samples = rows.positions, rows.samples
    inner = range(1, len(starts))
    cuts = [n for n in inner if starts[n] > positions[n - 1] or samples[n] != samples[n - 1]]
    parts: list[tuple[int, int]] = []
    for top, bottom in pairwise([0, *cuts, len(starts)]):
        first = parts[-1][0] if parts and samples[parts[-1][0]] == samples[top] else top
        span = positions[bottom - 1] + 1 - starts[first]
        if first < top and bottom - first <= most_rows and (bottom - first) * span <= area:
            parts[-1] = first, bottom
        else:
            parts.append((top, bottom))
    return parts


def plan(
    rows: Rows, starts: list[int], head_counts: list[int], elements: int, most_rows: int
) -> list[Block]:
    """Cut the rows into blocks with tiles of about `elements` and few keys that no row sees.

    `head_counts` are the numbers of heads that a tile may hold, rising.
    """
    blocks = []
    for top, end in _parts(rows, starts, elements // 32, most_rows) if starts else ():
        while top < end:
            keys = rows.positions[min(top + most_rows, end) - 1] + 1 - starts[top]
            # room for two heads: threads that share a tile by heads share no memory
            count = elements // (max(2, head_counts[0]) * keys)
            bottom = min(end, top + min(most_rows, max(FEWEST_ROWS, count)))
            low, high = min(starts[top:bottom]), rows.positions[bottom - 1] + 1
            fit = elements // ((bottom - top) * (high - low))
            heads = max((n for n in head_counts if n <= fit), default=head_counts[0])
            blocks.append(Block(rows.samples[top], top, bottom, low, high, heads))
            top = bottom
    return blocks
