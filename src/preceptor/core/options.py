"""Options that a user gives to a function by keyword, checked against its annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from preceptor.core.errors import SettingsError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def checked_options(
    name: str, function: Callable[..., Any], options: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The options as the function's annotations want them (`Count` turns 10.0 into 10).

    An argument without an annotation, or with one that says nothing of values, takes anything.

    Args:
        name: of what the options belong to, for the error text.
        options: by argument of `function`.
        where: they were given.

    Raises:
        SettingsError: a value that does not fit.
    """
    checked = {}
    for option, value in options.items():
        adapter = _adapter(function, option)
        try:
            checked[option] = adapter.validate_python(value) if adapter else value
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise SettingsError(
                f"an option of {name!r} cannot be used",
                where=f"{where}.{option}",
                found=f"{value!r}: {reason[0].lower()}{reason[1:]}",
                next_step="correct the value, or leave it out: "
                f"it is {inspect.signature(function).parameters[option].default!r} then",
            ) from error
    return checked


def _adapter(function: Callable[..., Any], option: str) -> TypeAdapter[Any] | None:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        return TypeAdapter(hints[option], config=ConfigDict(allow_inf_nan=False))
    except (KeyError, NameError, TypeError, PydanticUserError):
        return None  # a user's annotation may be of any kind
