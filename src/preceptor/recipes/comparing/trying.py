"""Finished selections on known outcomes: contenders and controls, their trials, beta fitted.

Shapes: M teachers, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from preceptor.core.comparison import Base, Fit, Mean, Sentence
from preceptor.core.errors import DataError, nearest
from preceptor.recipes.comparing.finished import Finished
from preceptor.recipes.comparing.outcomes import OutcomeTable, Repeats, resampled_outcomes
from preceptor.selection.agreement import spearman, too_few
from preceptor.selection.fitting import GRID, Known, fit_beta
from preceptor.selection.trial import CONTROL, Bench, Contender, or_none, try_all
from preceptor.selection.verdict import fitted as fitted_words
from preceptor.selection.verdict import with_outcomes

FEWEST = 3  # teachers with an outcome
THINNED = 10  # every so many-th point of the grid of beta is kept


def refuse_unmatched(runs: Sequence[Finished], table: OutcomeTable) -> None:
    """Outcomes that belong to no run, or that do not say to which (raises DataError)."""
    bases = list(dict.fromkeys(run.base for run in runs))
    if not table.with_bases and len(bases) > 1:
        raise DataError(
            "the outcomes do not say of which base they are",
            where=table.path,
            found=f"no column base, and runs of {', '.join(bases)}",
            next_step="add a column base",
        )
    if not any(table.of(base) for base in bases):
        raise DataError(
            "no run has the base of these outcomes",
            where=table.path,
            found=f"{', '.join(table.bases)}; the runs have {', '.join(bases)}",
            next_step="name the bases as the runs' ranking.json does",
        )
    for run in runs:
        own = table.of(run.base)
        matched = [name for name in run.teachers if name in own]
        if own and len(matched) < FEWEST:
            other = next((name for name in own if name not in run.teachers), None)
            hint = "" if other is None else f"; {other!r}: {nearest(other, run.teachers)}"
            raise DataError(
                f"fewer than {FEWEST} teachers of the run have an outcome",
                where=f"{table.path}, base {run.base}",
                found=f"{len(matched)} of {len(run.teachers)}{hint}",
                next_step="name the teachers as the run does, and know the outcome of three",
            )


def try_on_outcomes(
    runs: Sequence[Finished],
    bases: Sequence[Base],
    table: OutcomeTable,
    warnings: list[str],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[Mean | None, list[Sentence]]:
    """Fill `outcomes` of the bases whose outcomes are known; warnings are added to the list.

    Returns:
        Means over these bases (None where there is but one), and what is to be said.
    """
    if table.n_empty:
        warnings.append(f"{table.n_empty} rows of {table.path} have no outcome and are left aside")
    known = [(run, base) for run, base in zip(runs, bases, strict=True) if table.of(run.base)]
    without = [base["name"] for base in bases if base not in [own for _, own in known]]
    if without:
        warnings.append(f"{table.path} has no outcomes of {', '.join(without)}")
    benches = [_bench(run, base["name"], table, warnings, resamples, seed) for run, base in known]
    trials, differences, mean_trials, mean_differences = try_all(
        benches, confidence, resamples, seed
    )
    verdict: list[Sentence] = []
    for place, ((run, base), bench) in enumerate(zip(known, benches, strict=True)):
        fits = {
            reward: fit
            for reward in run.curves
            if (fit := _fit(reward, [(run, bench)])) is not None
        }
        base["outcomes"] = {
            "teachers": list(bench.teachers),
            "outcome": bench.outcome_M.tolist(),
            "n_rows": [len(table.of(run.base)[name].values) for name in bench.teachers],
            "criteria": trials[place],
            "differences": differences[place],
            "beta": fits,
        }
        n = len(bench.teachers)
        few = too_few(n, confidence)
        verdict += with_outcomes(base["name"], trials[place], differences[place], n, 1, few)
        verdict += fitted_words(base["name"], fits)
        if few:
            warnings.append(
                f"{base['name']}: of {n} teachers even a perfect order may be chance; intervals "
                "of correlations are the whole range"
            )
    if len(benches) < 2:
        return None, verdict
    pairs = [(run, bench) for (run, _), bench in zip(known, benches, strict=True)]
    shared = [name for name in pairs[0][0].curves if all(name in run.curves for run, _ in pairs)]
    fits = {reward: fit for reward in shared if (fit := _fit(reward, pairs)) is not None}
    fewest = min(len(bench.teachers) for bench in benches)
    over_all = with_outcomes(
        None,
        mean_trials,
        mean_differences,
        fewest,
        len(benches),
        too_few(fewest, confidence),
    )
    mean: Mean = {
        "bases": [bench.base for bench in benches],
        "criteria": mean_trials,
        "differences": mean_differences,
        "beta": fits,
    }
    return mean, over_all + fitted_words(None, fits) + verdict


def _bench(
    run: Finished,
    name: str,
    table: OutcomeTable,
    warnings: list[str],
    resamples: int,
    seed: int,
) -> Bench:
    """The teachers of a run whose outcome is known, with every criterion and control."""
    known = table.of(run.base)
    kept = [m for m, teacher in enumerate(run.teachers) if teacher in known]
    teachers = tuple(run.teachers[m] for m in kept)
    strangers = [teacher for teacher in known if teacher not in run.teachers]
    if strangers:
        warnings.append(
            f"{name}: outcomes of teachers that the run lacks are left aside: "
            + ", ".join(strangers)
        )
    if len(teachers) < len(run.teachers):
        unknown = [teacher for teacher in run.teachers if teacher not in known]
        warnings.append(f"{name}: no outcome is known of {', '.join(unknown)}")
    outcome_M = np.array([known[teacher].mean for teacher in teachers])
    if not np.ptp(outcome_M):
        warnings.append(f"{name}: all outcomes are equal, so no rank correlation exists")
    contenders = {
        key: Contender(
            own.kind,
            own.good_M[kept],
            None if own.good_MR is None else own.good_MR[kept, :resamples],
        )
        for key, own in run.criteria.items()
    }
    if run.mean_reward is not None and "mean_reward" not in contenders:
        own = run.mean_reward
        assert own.good_MR is not None
        contenders["mean_reward"] = Contender(
            own.kind, own.good_M[kept], own.good_MR[kept, :resamples]
        )
    contenders |= _controls(run.base, teachers, table)
    return Bench(
        name,
        teachers,
        outcome_M,
        resampled_outcomes([known[teacher] for teacher in teachers], resamples, seed),
        contenders,
    )


def _controls(base: str, teachers: Sequence[str], table: OutcomeTable) -> dict[str, Contender]:
    """What is the same for every student.

    `control.other_bases` is the mean outcome on the other bases of the table, `control.all_bases`
    that on all of them (it has seen its own answer), `control.chance` a blind choice.
    """
    found = {}
    own = table.key_of(base) if table.with_bases else ""
    others = [outcomes for key, outcomes in table.bases.items() if key != own]
    if others and all(any(name in other for other in others) for name in teachers):
        for key, pool in (
            ("other_bases", others),
            ("all_bases", list(table.bases.values())),
        ):
            good_M = np.array([_mean_of(name, pool) for name in teachers])
            found[f"{CONTROL}.{key}"] = Contender(CONTROL, good_M, fixed=True)
    found[f"{CONTROL}.chance"] = Contender(CONTROL, np.zeros(len(teachers)), fixed=True)
    return found


def _mean_of(teacher: str, pool: Sequence[Mapping[str, Repeats]]) -> float:
    """Mean outcome of a teacher over the bases that know it."""
    return float(np.mean([own[teacher].mean for own in pool if teacher in own]))


def _fit(reward: str, pairs: Sequence[tuple[Finished, Bench]]) -> Fit | None:
    """Beta of CAR with this reward, fitted on the outcomes of these bases together."""
    known, betas, at_run = [], set(), []
    for run, bench in pairs:
        kept = [run.teachers.index(teacher) for teacher in bench.teachers]
        curve = run.curves[reward]
        score_GM = np.stack([curve(float(beta))[kept] for beta in GRID])
        known.append(Known(bench.teachers, score_GM, bench.outcome_M))
        betas.add(float(run.ranking["beta"]))
        own = curve(float(run.ranking["beta"]))[kept]
        at_run.append(float(spearman(own, bench.outcome_M)))
    fitted = fit_beta(known)
    if fitted is None:
        return None
    run_beta = betas.pop() if len(betas) == 1 else None
    rho_at_run = None if run_beta is None else or_none(float(np.mean(at_run)))
    left = fitted.rho_left_out
    better = rho_at_run is None or (left is not None and left > rho_at_run + 1e-9)
    return {
        "beta": fitted.beta,
        "plateau": list(fitted.plateau),
        "rho": fitted.rho,
        "rho_left_out": fitted.rho_left_out,
        "left_out": fitted.left_out,
        "rho_at_zero": or_none(float(fitted.rho_G[0])),
        "run_beta": run_beta,
        "rho_at_run_beta": rho_at_run,
        # what is no better on teachers that it has not seen is no reason to change
        "suggested": fitted.beta if better or run_beta is None else run_beta,
        "same_everywhere": bool(np.nanmin(fitted.rho_G) >= fitted.rho - 1e-9),
        "curve": [
            [float(GRID[place]), or_none(float(fitted.rho_G[place]))]
            for place in (0, *range(1, len(GRID), THINNED))
        ],
    }
