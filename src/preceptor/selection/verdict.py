"""The verdict of a comparison in plain words, each sentence made of facts that are given to it.

A sentence names no cause that the facts do not hold. Two criteria disagree *beyond chance* about
who is first where each holds its own first teacher for better than the other's, with an interval
of the paired difference that excludes 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from preceptor.core.comparison import Difference, Fit, Sentence, Trial
from preceptor.selection.families import family_of

COUNTED = ("reward", "likelihood", "reference", "other")  # controls have no say


@dataclass(frozen=True)
class View:
    """Whom a criterion puts first on one base.

    Attributes:
        kind: `reward` (it reads a reward), `likelihood` (it reads the base's probabilities and no
            reward), `reference` (the same of a reference model), `other`, or `control`.
        first: the first teacher; several where their scores are equal.
        tied: teachers that cannot be separated from the first on these instructions.
    """

    kind: str
    first: tuple[str, ...]
    tied: tuple[str, ...] = ()

    @property
    def alone(self) -> str | None:
        """The first teacher, where it is one."""
        return None if len(self.first) > 1 else "".join(self.first)

    def separates(self, teacher: str) -> bool:
        """Whether its first is better than `teacher` beyond chance."""
        return teacher not in self.first and teacher not in self.tied


def without_outcomes(
    base: str, views: Mapping[str, View], deciding: str, pilot: str = ""
) -> list[Sentence]:
    """What the criteria of one base say together, while no outcome is known.

    Args:
        base: name of the base.
        views: by name of the criterion, in the run's order; `deciding` is one of them.
        pilot: the command that trains a short pilot; the advice names it.
    """
    counted = {name: view for name, view in views.items() if view.kind in COUNTED}
    found = [_agreement(counted)] if counted else []
    close = _close(views[deciding], deciding)
    split = _split(base, counted)
    found += split + _beyond_chance(counted, deciding, bool(split)) + close
    found.append(_advice(counted, views[deciding], deciding, bool(split), bool(close), pilot))
    return [{"base": base, "kind": kind, "text": text} for kind, text in found]


Said = tuple[str, str]  # kind and text


def _agreement(counted: Mapping[str, View]) -> Said:
    """Who is put first, and by how many."""
    votes = Counter(view.first for view in counted.values())
    first, n = votes.most_common(1)[0]
    total = len(counted)
    if total == 1:
        return "agree", f"{next(iter(counted))} puts {names(first)} first."
    if n == total:
        both = "Both" if total == 2 else f"All {total}"
        return "agree", f"{both} criteria put {names(first)} first."
    groups = {who: [c for c, view in counted.items() if view.first == who] for who in votes}
    if 2 * n > total:
        others = "; ".join(
            f"{names(own)} {_put(own)} {names(who)} first"
            for who, own in groups.items()
            if who != first
        )
        verb = "puts" if n == 1 else "put"
        return "agree", (
            f"The criteria agree on {names(first)}: {n} of {total} {verb} it first ({others})."
        )
    parts = "; ".join(f"{names(own)} {_put(own)} {names(who)} first" for who, own in groups.items())
    return "disagree", f"The criteria do not agree: {parts}."


def _put(own: Sequence[str]) -> str:
    return "puts" if len(own) == 1 else "put"


def _close(view: View, deciding: str) -> list[Said]:
    """The deciding criterion cannot separate its first from others."""
    close = [*view.first, *(name for name in view.tied if name not in view.first)]
    if len(close) < 2:
        return []
    return [
        (
            "close",
            f"Too close to call by {deciding}: {names(close)} cannot be separated on these "
            "instructions.",
        )
    ]


def _majority(views: Mapping[str, View]) -> str | None:
    """The teacher that more than half of them put first, alone; None where there is none."""
    votes = Counter(view.first for view in views.values())
    if not votes:
        return None
    first, n = votes.most_common(1)[0]
    return first[0] if 2 * n > len(views) and len(first) == 1 else None


def _of_kind(counted: Mapping[str, View], kind: str) -> dict[str, View]:
    return {name: view for name, view in counted.items() if view.kind == kind}


def _split(base: str, counted: Mapping[str, View]) -> list[Said]:
    """Likelihood criteria and reward criteria put different teachers first, beyond chance."""
    likely, rewarded = _of_kind(counted, "likelihood"), _of_kind(counted, "reward")
    a, b = _majority(likely), _majority(rewarded)
    if a is None or b is None or a == b:
        return []
    surely_a = any(view.first == (a,) and view.separates(b) for view in likely.values())
    surely_b = any(view.first == (b,) and view.separates(a) for view in rewarded.values())
    if not (surely_a and surely_b):
        return []
    own_a = [name for name, view in likely.items() if view.first == (a,)]
    own_b = [name for name, view in rewarded.items() if view.first == (b,)]
    relative = ""
    family = family_of(base)
    if family is not None and family_of(a) == family != family_of(b):
        relative = f", of the base's own family ({family})"
    return [
        (
            "family" if relative else "split",
            f"Likelihood criteria ({', '.join(own_a)}) prefer {a}{relative}; criteria that read a "
            f"reward ({', '.join(own_b)}) prefer {b}.",
        )
    ]


def _beyond_chance(counted: Mapping[str, View], deciding: str, split: bool) -> list[Said]:
    """Criteria that disagree with the deciding one beyond chance; a split has named its kinds."""
    main = counted.get(deciding)
    own = None if main is None else main.alone
    if main is None or own is None:
        return []
    against = []
    for name, view in counted.items():
        other = view.alone
        if name == deciding or other is None or other == own:
            continue
        if split and {main.kind, view.kind} == {"likelihood", "reward"}:
            continue
        if main.separates(other) and view.separates(own):
            against.append(f"{name} ({other})")
    if not against:
        return []
    verb = "disagrees" if len(against) == 1 else "disagree"
    return [("disagree", f"{names(against)} {verb} with {deciding} about the first beyond chance.")]


def _advice(
    counted: Mapping[str, View], main: View, deciding: str, split: bool, close: bool, pilot: str
) -> Said:
    """What to do next."""
    short = f"a short pilot (`{pilot}`)" if pilot else "a short pilot"
    choice = [*main.first, *(name for name in main.tied if name not in main.first)]
    if split:
        tops = [_majority(_of_kind(counted, kind)) for kind in ("likelihood", "reward")]
        wanted = list(dict.fromkeys([*(top for top in tops if top), *main.first]))
        return "advice", f"Train {short} on {names(wanted)} before you decide."
    if close:
        return "advice", (
            f"Between {names(choice)} let cost or licence decide, add instructions, or train "
            f"{short} on each."
        )
    votes = Counter(view.first for view in counted.values())
    if votes[main.first] * 2 > len(counted):
        return "advice", f"Take {names(main.first)}."
    return "advice", (
        f"{deciding} takes {names(main.first)}; as most criteria do not, train {short} on the "
        "firsts before you decide."
    )


def with_outcomes(
    where: str | None,
    trials: Mapping[str, Trial],
    differences: Sequence[Difference],
    n_teachers: int,
    n_bases: int,
    few: bool,
) -> list[Sentence]:
    """What known outcomes say of the criteria.

    Args:
        where: name of the base; None for means over bases.
        trials: criteria and controls, by name.
        differences: of rho, between pairs of them.
        n_teachers: fewest that a base has.
        n_bases: whose mean this is.
        few: so few teachers that no order can be told from chance.
    """
    known: dict[str, float] = {}
    for name, trial in trials.items():
        value = trial["spearman"]["value"]
        if trial["kind"] in COUNTED and value is not None:
            known[name] = value
    if not known:
        text = "No rank correlation exists: the outcomes, or all scores, are equal."
        return [{"base": where, "kind": "few", "text": text}]
    best = max(known, key=lambda name: known[name])
    rho = known[best]
    over = f" (mean over {n_bases} bases)" if n_bases > 1 else ""
    ends = trials[best]["spearman"]
    found: list[Said] = [
        (
            "best",
            f"{best} orders the teachers most like their outcomes: Spearman's rho {rho:.2f} "
            f"[{_ends(ends['low'], ends['high'])}]{over}.",
        )
    ]
    if few:
        found.append(
            (
                "few",
                f"With {n_teachers} teachers even a perfect order may be chance: know the outcomes "
                "of more.",
            )
        )
    else:
        found += _rivals(best, known, differences)
    found += _regrets(trials, best)
    found += _control(trials, differences, best)
    return [{"base": where, "kind": kind, "text": text} for kind, text in found]


def _ends(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.2f}, {high:.2f}"


def _rivals(best: str, known: Iterable[str], differences: Sequence[Difference]) -> list[Said]:
    """Which criteria cannot be told from the best one."""
    level, behind = _told_apart(best, known, differences)
    if not level:
        return [("best", "Every other criterion is behind beyond chance.")] if behind else []
    text = f"These data do not separate it from {names(level)}"
    return [("best", f"{text}; behind beyond chance: {names(behind)}." if behind else f"{text}.")]


def _told_apart(
    best: str, others: Iterable[str], differences: Sequence[Difference]
) -> tuple[list[str], list[str]]:
    """Of the others, those whose difference from the best may be 0, and those where it is not."""
    rows = {frozenset((row["first"], row["second"])): row for row in differences}
    level, apart = [], []
    for name in others:
        row = rows.get(frozenset((best, name)))
        if name == best or row is None or row["low"] is None or row["high"] is None:
            continue
        (level if row["low"] <= 0.0 <= row["high"] else apart).append(name)
    return level, apart


def _regrets(trials: Mapping[str, Trial], best: str) -> list[Said]:
    """What taking each criterion's first teacher loses."""
    lost: dict[str, float] = {}
    for name, trial in trials.items():
        value = trial["regret"]["value"]
        if trial["kind"] in COUNTED and value is not None:
            lost[name] = value
    if best not in lost:
        return []
    text = f"Taking its first teacher loses {lost[best]:.3g} against the best one"
    blind = trials["control.chance"]["regret"]["value"] if "control.chance" in trials else None
    text += "" if blind is None else f", a blind choice {blind:.3g}"
    less = [name for name, value in lost.items() if value < lost[best]]
    if less:
        text += f"; {names(less)} {'loses' if len(less) == 1 else 'lose'} less"
    return [("regret", text + ".")]


def _control(
    trials: Mapping[str, Trial], differences: Sequence[Difference], best: str
) -> list[Said]:
    """How far the order is the same for every base; controls that do as well as the best."""
    found: list[Said] = []
    rho = trials[best]["spearman"]["value"] or 0.0
    rhos = {
        name: value
        for name, trial in trials.items()
        if trial["kind"] not in COUNTED and (value := trial["spearman"]["value"]) is not None
    }
    if "control.other_bases" in rhos:
        control = rhos["control.other_bases"]
        level, _ = _told_apart(best, ["control.other_bases"], differences)
        better = "no criterion does" if control >= rho else f"{best} does"
        against = f"it cannot be told from {best}" if level else f"{better} better"
        found.append(
            (
                "control",
                f"Ranking teachers by their outcomes on the other bases gives rho {control:.2f}; "
                f"{against}.",
            )
        )
    level = [name for name, own in rhos.items() if own >= rho and not name.startswith("control.")]
    if level:
        verb = "does" if len(level) == 1 else "do"
        found.append(("control", f"{names(level)}, no more than a control, {verb} as well."))
    return found


def fitted(where: str | None, fits: Mapping[str, Fit]) -> list[Sentence]:
    """What known outcomes say of CAR's beta, for each reward."""
    found: list[Sentence] = []
    for reward, fit in fits.items():
        of = f"beta of CAR ({reward})" if len(fits) > 1 else "beta of CAR"
        run, at_run, left = fit["run_beta"], fit["rho_at_run_beta"], fit["rho_left_out"]
        best = f"fitted {fit['beta']:.3g} gives rho {fit['rho']:.2f}"
        unseen = "" if left is None else f" ({left:.2f} on teachers left out)"
        if fit["same_everywhere"]:
            text = f"The {of} does not matter here: the order is as good at every beta."
        elif run is None or at_run is None:
            text = f"The {of}: {best}{unseen}."
        elif fit["suggested"] == run:
            text = f"The {of}: keep {run:.3g}, with rho {at_run:.2f}; {best}{unseen}."
        else:
            text = f"The {of}: {best}{unseen}, the run's {run:.3g} rho {at_run:.2f}."
        found.append({"base": where, "kind": "beta", "text": text})
    return found


def names(items: Sequence[str], limit: int = 4) -> str:
    """A list in prose; items past `limit` become a number."""
    shown = list(items) if len(items) <= limit + 1 else list(items[:limit])
    rest = len(items) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} others"
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
