"""Does picking among a teacher's samples help its student? A study on the embedded lab.

One teacher answers the lab's training instructions greedily and with several samples. Four
training sets hold, for the same instructions, its best sample by the lab's verifier, its worst
one, one that was drawn, and its greedy answer. The same base is trained on each of them with TRL's
SFTTrainer as it is, and every student answers the lab's test greedily. The table gives mean rewards
with intervals, and paired differences. The design is that of arXiv 2411.07133 (best-of-5,
worst-of-5, one sample, greedy), in miniature.

    python examples/rejection_sampling.py --out runs/rejection --seeds 3

What is finished is not done again: the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import torch
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from preceptor.core import artifacts
from preceptor.core.progress import say
from preceptor.core.run import hash_input, open_run
from preceptor.core.types import Runtime
from preceptor.lab.place import model_folder
from preceptor.recipes.ask import ask
from preceptor.recipes.export import export
from preceptor.recipes.settings.asking import Ask, Export
from preceptor.recipes.settings.training import Quality
from preceptor.recipes.teaching.grading import grades_table, quality_table, read_exam, sit
from preceptor.reporting.pages.training import report as training_report
from preceptor.reporting.terminal.ask import print_samples
from preceptor.reporting.terminal.quality import print_quality

SETS = ("best", "one", "greedy", "worst")
AGAINST = [
    ("best", "one"),
    ("best", "greedy"),
    ("best", "worst"),
    ("one", "worst"),
    ("greedy", "worst"),
    ("greedy", "one"),
    *((name, "base") for name in SETS),
]
REWARD = {"kind": "verifier", "name": "correct", "function": "lab"}


@dataclass(frozen=True)
class Study:
    """What was asked for on the command line."""

    out: Path
    base: str
    teacher: str
    instructions: int
    samples: int
    temperature: float
    steps: int
    seeds: int
    test: int


def main() -> None:
    """Ask, export, train, grade, and print the table."""
    study = read_arguments()
    asked = sample(study)
    print_samples(asked, study.out / "asked")
    sets = pick(study)
    places = {
        (name, seed): train(study, sets, name, seed) for seed in range(study.seeds) for name in SETS
    }
    print_quality(grade(study, sets, places), study.out / "graded")


def read_arguments() -> Study:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--base", default="lab:base-notes", help="who is trained")
    parser.add_argument("--teacher", default="lab:birch-m", help="who answers")
    parser.add_argument("--instructions", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=5, help="of each instruction")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples")
    parser.add_argument("--steps", type=int, default=400, help="of training, 64 answers each")
    parser.add_argument("--seeds", type=int, default=1, help="trainings on each set")
    parser.add_argument("--test", type=int, default=600, help="test instructions")
    return Study(**vars(parser.parse_args()))


def sample(study: Study) -> dict[str, Any]:
    """The teacher's greedy answers and its samples, with their rewards: `ask.json`."""
    settings = {
        "instructions": "lab:train",
        "max_instructions": study.instructions,
        "teachers": [{"model": study.teacher, "max_new_tokens": 48, "batch_size": 128}],
        "decodings": {"temperature": [0, study.temperature], "samples": study.samples},
        "rewards": [REWARD],
    }
    return ask(Ask.model_validate(settings), study.out / "asked", _command())


def pick(study: Study) -> Path:
    """The four sets, as a folder that `datasets` loads."""
    drawn = {"temperature": study.temperature, "samples": study.samples}
    settings = {
        "run": str(study.out / "asked"),
        "sets": {
            "best": {"pick": "best", "reward": "correct", **drawn},
            "worst": {"pick": "worst", "reward": "correct", **drawn},
            "one": {"pick": "one", **drawn},
            "greedy": {"pick": "greedy"},
        },
        "form": "prompt_completion",
    }
    for line in export(Export.model_validate(settings), study.out / "sets", _command()):
        say(line)
    return study.out / "sets"


def train(study: Study, sets: Path, name: str, seed: int) -> Path:
    """A student of one set, by TRL alone; the folder of its checkpoint, which appears whole."""
    place = study.out / "students" / f"{name}-{seed}-{study.steps}"
    if place.exists():
        return place
    say(f"training on {name}, seed {seed}")
    on_cpu = not torch.cuda.is_available()
    more: dict[str, Any] = {}
    known = SFTConfig.__dataclass_fields__  # the name changed in transformers 5.2x
    new, old = "activation_checkpointing", "gradient_checkpointing"
    more[new if new in known else old] = False
    work = place.with_name(f".{place.name}.work")
    arguments = SFTConfig(
        output_dir=str(work),
        learning_rate=0.002,
        lr_scheduler_type="cosine",
        warmup_steps=min(50, study.steps // 4),
        max_steps=study.steps,
        per_device_train_batch_size=64,
        max_length=256,
        save_strategy="no",
        report_to="none",
        seed=seed,
        bf16=False,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        model_init_kwargs={"dtype": "float32"},
        **more,
    )
    rows = datasets.load_dataset(str(sets), name, split="train")
    base = model_folder(study.base) if study.base.startswith("lab:") else study.base
    trainer = SFTTrainer(str(base), args=arguments, train_dataset=rows)
    trainer.train()
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    trainer.save_model(str(part))
    (part / "training_args.bin").unlink(missing_ok=True)
    part.rename(place)
    shutil.rmtree(work, ignore_errors=True)
    return place


def grade(study: Study, sets: Path, places: dict[tuple[str, int], Path]) -> dict[str, Any]:
    """Base and students on the lab's test, as `quality.json`, in a run folder of its own."""
    quality = Quality.model_validate(
        {
            "instructions": "lab:test",
            "max_instructions": study.test,
            "reward": REWARD,
            "max_new_tokens": 64,
            "batch_size": 128,
        }
    )
    inputs: dict[str, str] = {}
    exam = read_exam(quality, Runtime(), 0, inputs)
    for name in SETS:
        file = sets / name / "train.parquet"
        inputs[name] = hash_input(str(file), pq.read_table(file))
    settings = {"steps": study.steps, "seeds": study.seeds, "base": study.base}
    identity = {
        "settings": {**settings, "quality": quality.model_dump(mode="json")},
        "inputs": inputs,
        "models": {},
    }
    with open_run(study.out / "graded", identity, _command()) as run:
        if not run.finished:
            base = model_folder(study.base) if study.base.startswith("lab:") else study.base
            graded: dict[str, dict[int, np.ndarray]] = {
                "base": {0: sit(exam, run, "base", str(base))}
            }
            for (name, seed), place in places.items():
                reward_N = sit(exam, run, f"{name}-{seed}", str(place))
                graded.setdefault(name, {})[seed] = reward_N
            artifacts.write_table(run.path(artifacts.GRADES), grades_table(exam, graded))
            table = quality_table(exam, graded, AGAINST)
            artifacts.write_json(run.path(artifacts.QUALITY), table)
            run.finish()
        found = artifacts.read_json(run.path(artifacts.QUALITY))
        training_report.write(run.folder)
    return found


def _command() -> str:
    return "python " + shlex.join(sys.argv)


if __name__ == "__main__":
    main()
