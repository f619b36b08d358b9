"""The figures of a training run: which column of which log is drawn where, in words and ink.

A figure is `{panels, window}`, a panel `{title, unit, lines, missing, zero, wide}`, a line `{run,
column, label, summary, colour, dash}`. `training.js` draws them; `table` gives the values.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from preceptor.reporting.findings.training_log import LOSSES, Log, thinned
from preceptor.reporting.parts import wording

TABLE_ROWS = 24  # steps in the table of a figure, about

_NATS = "nats per response token"
_TITLES = {
    "next_token": ("Next-token loss", _NATS),
    "divergence": ("Prediction loss", _NATS),
    "attention": ("Attention loss", "nats per row of attention"),
    "hidden": ("Hidden-state loss", ""),
}
_NOUNS = {name: title.partition(" ")[0].lower() for name, (title, _) in _TITLES.items()}
# Colour, and dashes for those who cannot tell colours apart.
_INK = {
    "next_token": ("--series-1", "7 3"),
    "divergence": ("--series-2", "2 3"),
    "attention": ("--series-3", "10 3 2 3"),
    "hidden": ("--series-4", "1 5"),
}
ABLATIONS = {  # folder -> label, colour, dashes
    "attention_only": ("attention only", "--series-3", "7 3"),
    "prediction_only": ("prediction only", "--series-2", "2 3"),
    "both": ("both", "--series-1", ""),
}
_SINGLE = {"attention_only": "attention", "prediction_only": "divergence"}

Line = dict[str, Any]


def shown(value: float | None) -> str:
    """A logged value to three digits, whole from a thousand on; as `training.js` shows it."""
    if value is None:
        return "–"
    exact = Decimal(value)
    step = Decimal(1).scaleb(exact.adjusted() - 2)
    short = float(exact.quantize(step, ROUND_HALF_UP)) if value else 0.0
    if abs(short) >= 1000:
        return wording.number(value, 0)
    if 0 < abs(short) < 1e-3:
        digits, _, power = f"{short:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}".replace("-", "−")
    return f"{short:#.3g}".rstrip(".").replace("-", "−") if value else "0"


def figures(logs: dict[str, Log]) -> dict[str, Any]:
    """Section -> {panels, window}; panels without a value and sections without one are left out.

    Args:
        logs: of the run ("run") and of its ablations (names of ABLATIONS), where there are any.

    `window` is the number of drawn steps that smoothing averages over, 0 for too few to smooth.
    """
    panels = {"curves": [], "ablation": _ablation(logs), "pace": []}
    if "run" in logs:
        panels |= {"curves": _curves(logs["run"]), "pace": _pace(logs["run"])}
    found = {}
    for key, each in panels.items():
        kept = [panel for panel in each if panel["lines"]]
        used = {line["run"] for panel in kept for line in panel["lines"]}
        n = max((len(thinned(len(logs[run].steps), logs[run].every)) for run in used), default=0)
        window = max(5, 2 * round(n / 60) + 1) if n >= 20 else 0
        if kept:
            found[key] = {"panels": kept, "window": window}
    return found


def _curves(log: Log) -> list[dict[str, Any]]:
    """Each loss, their weighted sum where it says more, and the gradient norms."""
    panels = [
        _panel(*_TITLES[name], [_line("run", log, name, colour=_INK[name][0])]) for name in LOSSES
    ]
    parts = [name for name in LOSSES if name in log.columns]
    if not (len(parts) == 1 and _agree(log, "loss", parts[0])):
        panels.append(_panel("Weighted sum of the losses", "", [_line("run", log, "loss")]))
    norms = [_line("run", log, "grad_norm", "all losses together")]
    for name in LOSSES:
        if any(value for _, value in log.known(f"grad_norm.{name}")):  # a loss of weight 0 has none
            norms.append(
                _line("run", log, f"grad_norm.{name}", f"{_NOUNS[name]} loss", *_INK[name])
            )
    return [*panels, _panel("Gradient norm", "", norms, zero=True, wide=True)]


def _agree(log: Log, first: str, second: str) -> bool:
    one, other = dict(log.known(first)), dict(log.known(second))
    return all(
        math.isclose(value, other.get(step, value), rel_tol=1e-5) for step, value in one.items()
    )


def _pace(log: Log) -> list[dict[str, Any]]:
    return [
        _panel(title, unit, [_line("run", log, column)], zero=True)
        for title, unit, column in (
            ("Throughput", "tokens/s", "tokens_per_second"),
            ("Peak memory", "MB", "peak_memory_mb"),
            ("Learning rate", "", "learning_rate"),
        )
    ]


def _ablation(logs: dict[str, Log]) -> list[dict[str, Any]]:
    """Figure 4 of arXiv 2406.19112: attention and prediction loss, and their gradient norms.

    "both" is the run itself where it has no log of its own. Where no run logged the norm of each
    loss's own gradient, the whole gradient's norm is shown.
    """
    if not any(key in logs for key in ABLATIONS):
        return []
    runs = {key: key for key in ABLATIONS if key in logs}
    if "both" not in runs and "run" in logs:
        runs["both"] = "run"
    losses, norms = [], []
    for name in ("attention", "divergence"):
        title = f"Gradient norm of the {_NOUNS[name]} loss"
        losses.append(_compared(*_TITLES[name], logs, runs, dict.fromkeys(runs, name)))
        own = dict.fromkeys(runs, f"grad_norm.{name}") | _whole_norms(logs, runs, name)
        norms.append(_compared(title, "", logs, runs, own, zero=True))
    if not any(panel["lines"] for panel in norms):
        whole = dict.fromkeys(runs, "grad_norm")
        norms = [_compared("Gradient norm", "", logs, runs, whole, zero=True, wide=True)]
    return losses + norms


def _whole_norms(logs: dict[str, Log], runs: dict[str, str], name: str) -> dict[str, str]:
    """The run of the loss `name` alone may log one norm only: its whole gradient is that loss's.

    It is taken for that where other runs did log the norms of single losses.
    """
    split = {
        key: any(column.startswith("grad_norm.") for column in logs[run].columns)
        for key, run in runs.items()
    }
    alone = [key for key in runs if _SINGLE.get(key) == name and not split[key]]
    return dict.fromkeys(alone, "grad_norm") if any(split.values()) else {}


def _compared(
    title: str,
    unit: str,
    logs: dict[str, Log],
    runs: dict[str, str],
    columns: dict[str, str],
    **look: bool,
) -> dict[str, Any]:
    """A panel with a line for each ablation that logged its column."""
    lines = {key: _line(run, logs[run], columns[key], *ABLATIONS[key]) for key, run in runs.items()}
    missing = [ABLATIONS[key][0] for key, line in lines.items() if line is None]
    return _panel(title, unit, list(lines.values()), **look) | {"missing": missing}


def _line(
    run: str, log: Log, column: str, label: str = "", colour: str = "--ink", dash: str = ""
) -> Line | None:
    """A column of a log as a line, with words for who cannot see it; None if it has no value."""
    known = log.known(column)
    if not known:
        return None
    (first, start), (last, end) = known[0], known[-1]
    words = f"{shown(start)} at step {first}, {shown(end)} at step {last}"
    return {
        "run": run,
        "column": column,
        "label": label,
        "summary": f"{label}: {words}" if label else words,
        "colour": colour,
        "dash": dash,
    }


def _panel(
    title: str, unit: str, lines: list[Line | None], zero: bool = False, wide: bool = False
) -> dict[str, Any]:
    """One chart; `zero` keeps 0 in sight on a linear scale, `wide` gives it a row of its own."""
    kept = [line for line in lines if line]
    panel = {"title": title, "unit": unit, "lines": kept, "missing": []}
    return panel | {"zero": zero, "wide": wide}


def table(figure: dict[str, Any], logs: dict[str, Log]) -> dict[str, Any]:
    """The values behind a figure at about TABLE_ROWS steps: {heads, rows}."""
    lines = [(panel, line) for panel in figure["panels"] for line in panel["lines"]]
    values = [dict(logs[line["run"]].known(line["column"])) for _, line in lines]
    steps = sorted({step for column in values for step in column})
    kept = thinned(len(steps), max(1, math.ceil(len(steps) / TABLE_ROWS)))
    return {
        "heads": [(panel["title"], line["label"]) for panel, line in lines],
        "rows": [(steps[i], [column.get(steps[i]) for column in values]) for i in kept],
    }
