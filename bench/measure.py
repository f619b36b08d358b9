"""`measure`: the base model's pass over the answers, against a plain loop and lm-eval.

All contenders score the same answers with the same weights in the same dtype. The floor is the
bare forward of the transformer's layers over exactly the needed tokens, without padding and
without a head; with the head, `floor with head` adds one product of the scored positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.harness import Contender, Meter, race, row
from bench.workload import build_model, build_sequences, build_tokenizer
from preceptor.data.rendering import scored_positions
from preceptor.selection.measure import BATCH_TOKENS, Scorer, make_plan

N_ANSWERS = {"large": 64, "tiny": 96}


def ours(meter: Meter, vocabulary: str, lengths: str, n: int, dtype: str = "float32") -> np.ndarray:
    """The measuring pass of `select`."""
    sequences = build_sequences(vocabulary, lengths, n)
    scorer = Scorer(build_model(vocabulary, dtype))
    with meter:
        plan = make_plan(sequences, BATCH_TOKENS["cpu"])
        nll = np.empty(len(plan.unique))
        for batch in plan.batches:
            nll[batch.rows] = scorer.score([plan.unique[row] for row in batch.rows])["nll"]
        return nll[plan.item_to_unique]


@torch.inference_mode()
def plain_loop(meter: Meter, vocabulary: str, lengths: str, n: int) -> np.ndarray:
    """Batches of 8 in file order, padded, full logits in fp32: what a notebook does."""
    sequences = build_sequences(vocabulary, lengths, n)
    model = build_model(vocabulary)
    found = []
    with meter:
        for low in range(0, n, 8):
            rows = sequences[low : low + 8]
            width = max(len(row.ids) for row in rows)
            ids_BT = torch.zeros((len(rows), width), dtype=torch.long)
            mask_BT = torch.zeros_like(ids_BT)
            labels_BT = torch.full_like(ids_BT, -100)
            for place, sequence in enumerate(rows):
                size = len(sequence.ids)
                ids_BT[place, :size] = torch.tensor(sequence.ids)
                mask_BT[place, :size] = 1
                labels_BT[place, size - sequence.n_response : size] = ids_BT[
                    place, size - sequence.n_response : size
                ]
            logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits.float()
            nll_BT = torch.nn.functional.cross_entropy(
                logits_BTV[:, :-1].transpose(1, 2),
                labels_BT[:, 1:],
                ignore_index=-100,
                reduction="none",
            )
            found += nll_BT.double().sum(1).tolist()
    return np.array(found)


def lm_eval(meter: Meter, vocabulary: str, lengths: str, n: int) -> np.ndarray:
    """EleutherAI's harness: `HFLM.loglikelihood` on the same token ids, batches of 8."""
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    sequences = build_sequences(vocabulary, lengths, n)
    harness: Any = HFLM  # its constructor and token interface have no stubs
    model = harness(
        pretrained=build_model(vocabulary),
        tokenizer=build_tokenizer(vocabulary),
        batch_size=8,
        max_length=1024,
    )
    requests: list[Any] = []
    for place, sequence in enumerate(sequences):
        ids = list(sequence.ids)
        seam = len(ids) - sequence.n_response
        requests.append(((f"q{place}", f"a{place}"), ids[:seam], ids[seam:]))
    with meter:
        scored = model._loglikelihood_tokens(requests, disable_tqdm=True)
    return np.array([-value for value, _ in scored])


@torch.inference_mode()
def floor(meter: Meter, vocabulary: str, lengths: str, n: int, head: bool) -> np.ndarray:
    """Bare layers over the needed tokens, a sequence at a time; with `head`, one product more."""
    sequences = build_sequences(vocabulary, lengths, n)
    model = build_model(vocabulary)
    weight_VD = model.lm_head.weight
    with meter:
        for sequence in sequences:
            ids_BT = torch.tensor(sequence.ids)[None]
            hidden_TD = model.model(input_ids=ids_BT, use_cache=False).last_hidden_state[0]
            if head:
                positions = scored_positions(len(sequence.ids), sequence.n_response)
                for low in range(positions.start, positions.stop, 128):
                    _ = hidden_TD[low : min(low + 128, positions.stop)] @ weight_VD.T
    return np.empty(0)


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of the `measure` benchmark."""
    rows = []
    for vocabulary, n in N_ANSWERS.items():
        case: dict[str, Any] = {"vocabulary": vocabulary, "lengths": "chat", "n": n}
        contenders = [
            Contender("preceptor", "bench.measure:ours"),
            Contender("transformers loop", "bench.measure:plain_loop"),
            Contender("lm-eval", "bench.measure:lm_eval"),
            Contender("floor: layers", "bench.measure:floor", {"head": False}),
            Contender("floor: layers and head", "bench.measure:floor", {"head": True}),
        ]
        if vocabulary == "large":
            contenders.append(
                Contender("preceptor bf16", "bench.measure:ours", {"dtype": "bfloat16"})
            )
        results = race(contenders, case, repeats)
        mine = results["preceptor"]
        answers = {"answers_per_second": n / mine.seconds}
        name = f"{vocabulary} vocabulary"
        for peer in contenders[1:5]:
            rows.append(row(name, peer.name, mine, results[peer.name], **answers))
        if "preceptor bf16" in results:
            half = results["preceptor bf16"]
            sizes = [sequence.n_response for sequence in build_sequences(vocabulary, "chat", n)]
            shift = float(np.mean(half.values / sizes) - np.mean(mine.values / sizes))
            rows.append(row(f"{name}, bf16", "preceptor fp32", half, mine, change_of_L_nats=shift))
    return rows
