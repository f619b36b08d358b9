"""Plugs: a name on a shelf, or a user's own `module:function`, becomes a function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from preceptor.core.errors import PreceptorError, SettingsError, nearest


def plug(kind: str, shelf: Mapping[str, str], name: str) -> Callable[..., Any]:
    """The function that `name` stands for.

    Args:
        kind: what is looked for ("criterion", "reward", ...), for the error text.
        shelf: table of names, each `module:function`.
        name: a name on the shelf, or `module:function` of the user's own code.

    Raises:
        SettingsError: unknown name, or a module or function that cannot be imported.
    """
    target = shelf.get(name, name)
    module_name, _, function_name = target.partition(":")
    if not function_name:
        raise SettingsError(
            f"unknown {kind} {name!r}",
            found=nearest(name, shelf),
            next_step=f"use a known {kind} or your own as `module:function`",
        )
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except PreceptorError:  # it says by itself what it lacks
        raise
    except Exception as error:  # a user's module may raise anything
        raise SettingsError(
            f"the {kind} {name!r} cannot be imported",
            where=target,
            found=f"{type(error).__name__}: {error}",
            next_step="check the spelling, and that the module is installed or on PYTHONPATH",
        ) from error
    if not callable(function):
        raise SettingsError(
            f"the {kind} {name!r} is not a function",
            where=target,
            found=type(function).__name__,
            next_step="name a function",
        )
    return function
