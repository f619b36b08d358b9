"""Which criteria name the right teacher? A study on the embedded lab.

For each base, all criteria look at the teachers' answers to one set of instructions. Then a student
is trained on each teacher's answers to other instructions, and graded on a third set that no
criterion saw: these are the outcomes. `compare-criteria` says how each criterion did, with
intervals. The design is that of arXiv 2411.07133 (table 6), in miniature.

    python examples/criteria_on_the_lab.py --out runs/criteria

What is finished is not done again: the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from preceptor.core import artifacts
from preceptor.criteria import CRITERIA
from preceptor.lab.cast import MEMBERS
from preceptor.recipes.compare import compare_criteria
from preceptor.recipes.select import select
from preceptor.recipes.settings import Select
from preceptor.reporting.compare_table import print_comparison

BASES = tuple(member.name for member in MEMBERS.values() if member.role == "base")
TEACHERS = tuple(member.name for member in MEMBERS.values() if member.role != "base")
OUTSIDE = ("cost", "family_prior", "size")  # prices, families and sizes: the lab names none
REWARD = {"kind": "verifier", "name": "correct", "function": "lab"}


def main() -> None:
    """Measure, train, and compare."""
    study = read_arguments()
    outcomes: list[dict[str, Any]] = []
    runs = []
    for base in study.bases:
        runs.append(study.out / base / "criteria")
        run(measuring(study, base), runs[-1])
        trained = run(training(study, base), study.out / base / "outcomes")
        for row in trained["pilot"]["rows"]:
            outcomes.append({"base": base, "teacher": row["teacher"], "outcome": row["score"]})
    file = study.out / "outcomes.json"
    artifacts.write_json(file, outcomes)
    comparison = compare_criteria(runs, file, study.out / "comparison")
    print_comparison(comparison, study.out / "comparison")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--bases", nargs="+", default=BASES, choices=BASES)
    parser.add_argument("--teachers", nargs="+", default=TEACHERS, choices=TEACHERS)
    parser.add_argument("--instructions", type=int, default=400, help="that criteria look at")
    parser.add_argument("--learn", type=int, default=1600, help="answers that a student learns")
    parser.add_argument("--held-out", type=int, default=400, help="that students are graded on")
    parser.add_argument("--epochs", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=1, help="students of each teacher")
    return parser.parse_args()


def measuring(study: argparse.Namespace, base: str) -> dict[str, Any]:
    """Settings: every criterion, from answers to the lab's selection set."""
    chosen = ["car", *(name for name in CRITERIA if name not in (*OUTSIDE, "car"))]
    return {
        **_pool(study, base),
        "instructions": "lab:selection",
        "max_instructions": study.instructions,
        "criteria": chosen,
    }


def training(study: argparse.Namespace, base: str) -> dict[str, Any]:
    """Settings: a pilot of all teachers, on instructions of the lab's training set."""
    return {
        **_pool(study, base),
        "instructions": "lab:train",
        "max_instructions": study.learn + study.held_out,
        "criteria": ["mean_reward"],
        "pilot": {
            "finalists": len(study.teachers),
            "instructions": study.learn,
            "held_out": study.held_out,
            "seeds": study.seeds,
            "max_new_tokens": 64,
            "batch_size": 128,
            "training": {
                "learning_rate": 0.002,
                "epochs": study.epochs,
                "batch_size": 64,
                "warmup_steps": 20,
                "max_length": 256,
                "gradient_norms": False,
            },
        },
    }


def _pool(study: argparse.Namespace, base: str) -> dict[str, Any]:
    """The same teachers and rewards for both; answers are asked once for all bases."""
    return {
        "base": f"lab:{base}",
        "teachers": [
            {"model": f"lab:{name}", "max_new_tokens": 96, "batch_size": 128}
            for name in study.teachers
        ],
        "rewards": [REWARD],
        "store": str((study.out / "store").resolve()),
    }


def run(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """One selection; a finished one is read."""
    command = "python " + shlex.join(sys.argv)
    return select(Select.model_validate(settings), out, command)


if __name__ == "__main__":
    main()
