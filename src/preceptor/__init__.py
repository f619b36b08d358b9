"""preceptor: choose the right teacher for a language model, then learn from it.

The verbs are functions here too: `preceptor.select(...)`. Each name below is imported when it is
first asked for, so that `import preceptor` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Evaluation",
    "Plan",
    "PreceptorError",
    "Samples",
    "Selection",
    "Study",
    "Training",
    "align",
    "ask",
    "compare_criteria",
    "distill",
    "evaluate",
    "open_run",
    "plan",
    "select",
    "sft",
    "study",
]

_HOMES = {
    "Comparison": "preceptor.api.comparison",
    "Evaluation": "preceptor.api.evaluation",
    "Plan": "preceptor.api.plan",
    "PreceptorError": "preceptor.core.errors",
    "Samples": "preceptor.api.samples",
    "Selection": "preceptor.api.selection",
    "Study": "preceptor.api.study",
    "Training": "preceptor.api.training",
    "align": "preceptor.api.functions",
    "ask": "preceptor.api.functions",
    "compare_criteria": "preceptor.api.functions",
    "distill": "preceptor.api.functions",
    "evaluate": "preceptor.api.functions",
    "open_run": "preceptor.api.functions",
    "plan": "preceptor.api.functions",
    "select": "preceptor.api.functions",
    "sft": "preceptor.api.functions",
    "study": "preceptor.api.functions",
}

if TYPE_CHECKING:
    from preceptor.api.comparison import Comparison
    from preceptor.api.evaluation import Evaluation
    from preceptor.api.functions import (
        align,
        ask,
        compare_criteria,
        distill,
        evaluate,
        open_run,
        plan,
        select,
        sft,
        study,
    )
    from preceptor.api.plan import Plan
    from preceptor.api.samples import Samples
    from preceptor.api.selection import Selection
    from preceptor.api.study import Study
    from preceptor.api.training import Training
    from preceptor.core.errors import PreceptorError


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
