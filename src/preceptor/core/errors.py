"""The one error family. Every message says what, where, what was found and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PreceptorError(Exception):
    """A mistake the user can mend; the command line prints it without a traceback.

    Args:
        what: the fault in one sentence, without a final full stop.
        where: the file, setting or column that holds it.
        found: what stands there now.
        next_step: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", found: str = "", next_step: str = "") -> None:
        self.what, self.where, self.found, self.next_step = what, where, found, next_step
        super().__init__(str(self))

    def __str__(self) -> str:
        rows = [self.what]
        for label, text in (
            ("where", self.where),
            ("found", self.found),
            ("next", self.next_step),
        ):
            if text:
                rows.append(f"  {label}: {text}")
        return "\n".join(rows)


class SettingsError(PreceptorError):
    """A settings file or override that cannot be used."""


class DataError(PreceptorError):
    """Answers, instructions or rewards that cannot be used."""


class ModelError(PreceptorError):
    """A model or tokenizer that is missing or lacks what is needed."""


class RunFolderError(PreceptorError):
    """A run folder that cannot be written, or that belongs to other settings."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The closest known name as a hint ("did you mean ...?"), or the list of all names."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known names: " + ", ".join(sorted(known))
