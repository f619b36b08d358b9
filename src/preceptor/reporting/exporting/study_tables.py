"""The tables of a study and of a comparison of criteria, as they leave their reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from preceptor.reporting.parts.tables import Table, ends, table

MEAN = "(mean over bases)"
_CORRELATED = ("spearman", "kendall", "regret")


def tables(study: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table: `outcomes` (the matrix), `bases`, `trainings`, and where there are any
    `criteria`, `agreement`, `largest`, `families`."""
    known = study["criteria"]
    found = {
        "outcomes": table(
            "Outcome of the students",
            ("base", "source", "arm", "outcome...", "seeds", "rank", "rank_low", "rank_high"),
            [
                (
                    *(row[name] for name in ("base", "source", "arm")),
                    *ends(row["outcome"]),
                    *(row[name] for name in ("seeds", "rank", "rank_low", "rank_high")),
                )
                for row in study["matrix"]
            ],
        ),
        "bases": table(
            "The bases before any training",
            ("base", "outcome..."),
            [(row["base"], *ends(row, "outcome")) for row in study["base_scores"]],
        ),
        "trainings": _trainings(study["cells"]),
        "criteria": trials(known) if known else table("", (), ()),
        "agreement": agreement(known) if known else table("", (), ()),
        "largest": table(
            "Rank of the largest teacher",
            ("base", "source", "size", "rank", "rank_low", "rank_high", "of"),
            [
                tuple(row[k] for k in ("base", "source", "size", "rank", "low", "high", "of"))
                for row in study["largest"]
            ],
        ),
        "families": table(
            "From each teacher to the next larger one of its family",
            ("base", "family", "smaller", "larger", "size", "larger_size", "step..."),
            _steps(study["paradox"]),
        ),
    }
    return {name: own for name, own in found.items() if own.rows}


def of_comparison(found: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table: `scores`, `agreement`, and with outcomes `criteria`, `outcomes`, `beta`."""
    tried = [base for base in found["bases"] if base["outcomes"]]
    made = {
        "criteria": trials(found),
        "agreement": agreement(found),
        "scores": table(
            "Scores by criterion",
            ("base", "criterion", "direction", "unit", "teacher", "score"),
            [
                (base["name"], key, own["direction"], own["unit"], teacher, score)
                for base in found["bases"]
                for key, own in base["criteria"].items()
                for teacher, score in zip(base["teachers"], own["scores"], strict=True)
            ],
        ),
        "outcomes": table(
            "Known outcomes",
            ("base", "teacher", "outcome", "rows"),
            [
                (base["name"], *row)
                for base in tried
                for row in zip(
                    *(base["outcomes"][k] for k in ("teachers", "outcome", "n_rows")), strict=True
                )
            ],
        ),
        "beta": table(
            "Beta fitted on known outcomes",
            ("base", "reward", "beta", "rho", "rho_left_out", "run_beta", "suggested"),
            _betas(found, tried),
        ),
    }
    return {name: own for name, own in made.items() if own.rows}


def trials(found: Mapping[str, Any]) -> Table:
    """Every criterion, and every control, against the outcomes of every base and their mean."""
    tried = [(own["name"], own["outcomes"]) for own in found["bases"] if own["outcomes"]]
    if found["mean"]:
        tried.insert(0, (MEAN, found["mean"]))
    return table(
        "Criteria against known outcomes",
        ("base", "criterion", "kind", "puts_first", *(f"{k}..." for k in _CORRELATED), "p_value"),
        [
            (
                base,
                key,
                own["kind"],
                "; ".join(own["first"]),
                *(end for name in _CORRELATED for end in ends(own[name])),
                own["p_value"],
            )
            for base, outcomes in tried
            for key, own in outcomes["criteria"].items()
        ],
    )


def agreement(found: Mapping[str, Any]) -> Table:
    """Every pair of criteria on every base."""
    return table(
        "Agreement of the criteria",
        ("base", "first", "second", "spearman...", "kendall..."),
        [
            (
                *(base["name"], row["first"], row["second"]),
                *ends(row["spearman"]),
                *ends(row["kendall"]),
            )
            for base in found["bases"]
            for row in base["agreement"]
        ],
    )


def _trainings(cells: Sequence[Mapping[str, Any]]) -> Table:
    measures = list(dict.fromkeys(name for cell in cells for name in cell["scores"]))
    facts = ("base", "source", "arm", "seed", "status", "outcome", "seconds", "folder", "reason")
    return table(
        "Every training",
        (*facts, *(f"score.{name}" for name in measures)),
        [
            (
                *(cell[name] for name in facts),
                *(cell["scores"].get(name) for name in measures),
            )
            for cell in cells
        ],
    )


def _steps(families: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for own in families:
        for place, step in enumerate(own["steps"]):
            pair = (own["sources"][place], own["sources"][place + 1])
            sizes = (own["sizes"][place], own["sizes"][place + 1])
            yield (own["base"], own["family"], *pair, *sizes, *ends(step))


def _betas(found: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    fits = [(base["name"], base["outcomes"]["beta"]) for base in tried]
    if found["mean"]:
        fits.insert(0, (MEAN, found["mean"]["beta"]))
    for base, own in fits:
        for reward, fit in own.items():
            yield (
                base,
                reward,
                *(fit[k] for k in ("beta", "rho", "rho_left_out", "run_beta", "suggested")),
            )
