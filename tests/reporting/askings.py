"""A synthetic asking: teachers at several decodings, from rewards drawn with a fixed seed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preceptor.core import artifacts

TEACHERS = {"aster-m": 0.55, "birch-l": 0.62, "cedar-s (recorded)": 0.4}  # name, skill
POINTS = [(0.0, 1.0), (0.6, 0.9), (0.6, 1.0), (1.0, 0.9), (1.0, 1.0)]  # temperature, top-p
REWARDS = ("letters", "judge")
SAMPLES = 4
TEXT = "Light from the sun holds every colour. The air scatters the short blue waves more.\n\n"


def interval(values: np.ndarray) -> dict[str, float]:
    """A mean with its normal interval."""
    mean, half = float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def extremes(values_NS: np.ndarray, largest: bool) -> list[dict[str, Any]]:
    """Best (or worst) of 1, 2, 4 ... samples, taking the first ones."""
    reduce = np.max if largest else np.min
    steps = [k for k in (1, 2, 4) if k <= values_NS.shape[1]]
    return [{"k": k, **interval(reduce(values_NS[:, :k], axis=1))} for k in steps]


def build_asking_folder(folder: Path, n_instructions: int = 12) -> Path:
    """Write a finished asking into `folder`; the same arguments give the same files.

    The last teacher's answers are recorded: one each, of which nothing is noted. A tenth of the
    judge's scores are missing.
    """
    rng = np.random.default_rng(3)
    points: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for teacher, skill in TEACHERS.items():
        recorded = teacher == list(TEACHERS)[-1]
        for temperature, top_p in [(None, None)] if recorded else POINTS:
            n_samples = 1 if recorded or temperature == 0 else SAMPLES
            shape = (n_instructions, n_samples)
            noise = 0.03 if temperature == 0 else 0.05 + 0.1 * (temperature or 0.0)
            reward = {
                name: np.clip(skill + 0.1 * place + rng.normal(0, noise, shape), 0, 1)
                for place, name in enumerate(REWARDS)
            }
            missing = rng.random(shape) < 0.1
            missing[:, 0] = False
            point = {
                "teacher": teacher,
                "temperature": temperature,
                "top_p": top_p,
                "max_new_tokens": None if recorded else 256,
            }
            for i in range(n_instructions):
                for sample in range(n_samples):
                    cut = not recorded and (i + sample) % 9 == 0
                    rows.append(
                        {
                            "instruction_id": f"q{i:03}",
                            "instruction": f"Why is the sky blue? (question {i})",
                            **point,
                            "sample": sample,
                            "response": f"{teacher}, sample {sample}.\n{TEXT * (1 + i % 3)}",
                            "finish_reason": "recorded"
                            if recorded
                            else "length"
                            if cut
                            else "stop",
                            "n_prompt": 12,
                            "n_generated": None if recorded else 40 + 5 * i,
                            "reward.letters": float(reward["letters"][i, sample]),
                            "reward.judge": None
                            if missing[i, sample]
                            else float(reward["judge"][i, sample]),
                        }
                    )
            points.append(
                point
                | {
                    "n_instructions": n_instructions,
                    "n_answers": n_instructions * n_samples,
                    "samples": n_samples,
                    "n_tokens_mean": None if recorded else 67.5,
                    "cut_share": None if recorded else 0.11,
                    "cost": 0.0 if recorded else 0.31,
                    "rewards": {
                        name: {
                            "n_missing": int(missing.sum()) if name == "judge" else 0,
                            **interval(values.mean(axis=1)),
                            "best_of": extremes(values, largest=True),
                            "worst_of": extremes(values, largest=False),
                        }
                        for name, values in reward.items()
                    },
                }
            )
    asked = {
        "version": 1,
        "n_instructions": n_instructions,
        "n_answers": len(rows),
        "confidence": 0.95,
        "n_resamples": 1000,
        "seed": 0,
        "rewards": {"letters": {"kind": "verifier"}, "judge": {"kind": "judge"}},
        "answers": None,
        "points": points,
    }
    artifacts.write_json(folder / artifacts.ASK, asked)
    table = pa.Table.from_pylist(rows, schema=artifacts.samples_schema(REWARDS))
    artifacts.write_table(folder / artifacts.SAMPLES, table)
    facts = {"answers": 204, "reused": 0, "generated_tokens": 13770, "cost": 1.55, "seconds": 95.0}
    provenance = {
        "preceptor": "0.6.0",
        "status": "finished",
        "command": "preceptor ask ask.yaml --out runs/ask",
        "settings": {"rewards": list(REWARDS)},
        "inputs": {"questions.jsonl": "sha256:" + 16 * "9f86"},
        "models": {"teacher aster-m": "sha256:" + 16 * "d884"},
        "asked": {"aster-m": facts, "birch-l": facts},
        "stage_seconds": {"scoring judge": 41.2},
        "wall_seconds_of_last_run": 240.5,
    }
    artifacts.write_json(folder / artifacts.PROVENANCE, provenance)
    artifacts.write_bytes(folder / artifacts.SETTINGS, b"rewards: [letters, judge]\n")
    return folder
