"""`ifd`: what the pass without the instruction costs on top of the pass with it.

The second pass must send every answer token through the layers and the head again; what it saves
is the instruction's tokens, and answers that stand under several instructions. `time_ratio` is
second pass / first pass; `arithmetic_ratio` is the same ratio counted in multiplications.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.harness import Contender, Meter, race, row
from bench.workload import Work, build_work, without_instruction
from preceptor.selection.measure import BATCH_TOKENS, Scorer, make_plan

CASES = (("large", "chat"), ("large", "long prompts"), ("lab", "every voice"))


def one_pass(meter: Meter, vocabulary: str, lengths: str, n: int, second: bool) -> np.ndarray:
    """One pass over `n` answers; `second` drops the instruction."""
    work = build_work(vocabulary, lengths, n)
    scorer = Scorer(work.model)
    sequences = without_instruction(work) if second else work.sequences
    with meter:
        plan = make_plan(sequences, BATCH_TOKENS["cpu"])
        for batch in plan.batches:
            scorer.score([plan.unique[place] for place in batch.rows])
    return np.empty(0)


def multiplications(work: Work, second: bool) -> int:
    """Products of the layers' matrices and of the head; attention itself is left out."""
    unique = make_plan(without_instruction(work) if second else work.sequences, 1024).unique
    matrices = sum(p.numel() for p in work.model.base_model.layers.parameters() if p.dim() > 1)
    head = work.model.get_output_embeddings().weight.numel()
    return sum(len(s.ids) * matrices + s.n_response * head for s in unique)


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `ifd` benchmark."""
    rows = []
    for vocabulary, lengths in CASES:
        case = {
            "vocabulary": vocabulary,
            "lengths": lengths,
            "n": 1500 if vocabulary == "lab" else 64,
        }
        first, second = (
            Contender(name, "bench.ifd:one_pass", {"second": flag})
            for name, flag in (("with instruction", False), ("without", True))
        )
        results = race([first, second], case, repeats)
        work = build_work(**case)
        whole = sum(len(s.ids) for s in work.sequences)
        rows.append(
            row(
                f"{vocabulary}, {lengths}",
                "pass with instruction",
                results["without"],
                results["with instruction"],
                arithmetic_ratio=multiplications(work, True) / multiplications(work, False),
                prompt_share=1 - sum(s.n_response for s in work.sequences) / whole,
            )
        )
    return rows
