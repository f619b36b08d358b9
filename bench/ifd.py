"""`ifd`: what the pass without the instruction costs on top of the pass with it.

The second pass must send every answer token through the layers and the head again; only the
instruction's tokens are saved. `time_ratio` is second pass / first pass; `arithmetic_ratio` the
same ratio of the products alone.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from bench.harness import Contender, Meter, race, row
from bench.workload import VOCABULARIES, build_model, build_sequences
from preceptor.data.rendering import Rendered
from preceptor.selection.measure import BATCH_TOKENS, Scorer, make_plan

LAYER_PRODUCTS = 8 * (2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 1408)  # per token


def conditional(meter: Meter, vocabulary: str, lengths: str, n: int, second: bool) -> np.ndarray:
    """One pass; `second` drops the instruction."""
    sequences = build_sequences(vocabulary, lengths, n)
    if second:
        sequences = [Rendered(array("i", [1]) + s.response_ids, s.n_response) for s in sequences]
    scorer = Scorer(build_model(vocabulary))
    with meter:
        plan = make_plan(sequences, BATCH_TOKENS["cpu"])
        for batch in plan.batches:
            scorer.score([plan.unique[place] for place in batch.rows])
    return np.empty(0)


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `ifd` benchmark."""
    rows = []
    for vocabulary, lengths in (
        ("large", "chat"),
        ("large", "long prompts"),
        ("tiny", "long prompts"),
    ):
        case = {"vocabulary": vocabulary, "lengths": lengths, "n": 64}
        first, second = (
            Contender(name, "bench.ifd:conditional", {"second": flag})
            for name, flag in (("with instruction", False), ("without", True))
        )
        results = race([first, second], case, repeats)
        sequences = build_sequences(vocabulary, lengths, 64)
        whole = sum(len(s.ids) for s in sequences)
        answer = sum(s.n_response for s in sequences)
        head = answer * 512 * VOCABULARIES[vocabulary]
        arithmetic = ((answer + len(sequences)) * LAYER_PRODUCTS + head) / (
            whole * LAYER_PRODUCTS + head
        )
        rows.append(
            row(
                f"{vocabulary} vocabulary, {lengths}",
                "pass with instruction",
                results["without"],
                results["with instruction"],
                arithmetic_ratio=arithmetic,
                prompt_share=1 - answer / whole,
            )
        )
    return rows
