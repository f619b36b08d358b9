"""Settings files: YAML plus `key=value` overrides become a frozen model, or one clear error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from preceptor.core.errors import PreceptorError, SettingsError, nearest


class Settings(BaseModel):
    """Base of all settings: frozen, and closed (an unknown name is an error)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Located(str):
    """A string that remembers the folder its relative path starts from."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Located:
        located = super().__new__(cls, text)
        located.folder = folder
        return located


AnySettings = TypeVar("AnySettings", bound=Settings)


def load_settings(
    kind: type[AnySettings], path: Path | None, overrides: Sequence[str] = ()
) -> AnySettings:
    """Read a YAML file (paths relative to it) and apply overrides (paths relative to here).

    An override is `key=value` or `key.subkey=value`; the value is read as YAML.

    Raises:
        SettingsError: unreadable file, unknown name (with the nearest one), unfit value.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _locate(_read(path), path.resolve().parent)
    for override in overrides:
        _apply(tree, override)
    where = str(path) if path is not None else "command line"
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, kind, where) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            "the settings file cannot be read",
            where=str(path),
            found=error.strerror or str(error),
            next_step="`preceptor init` writes a starter file",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(
            "the settings file is not valid YAML", where=str(path), found=str(error)
        ) from error
    if not isinstance(tree, dict):
        raise SettingsError(
            "the settings file holds no settings",
            where=str(path),
            found=type(tree).__name__,
            next_step="write `name: value` lines; `preceptor init` writes a starter file",
        )
    return tree


def _locate(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return Located(value, folder)
    if isinstance(value, dict):
        return {str(key): _locate(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_locate(item, folder) for item in value]
    return value


def _apply(tree: dict[str, Any], override: str) -> None:
    key, found, text = override.partition("=")
    if not found or not key:
        raise SettingsError(
            "an override must be key=value", where="command line", found=repr(override)
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(
            "the value of an override is not valid YAML", where=override, found=str(error)
        ) from error
    *path, last = key.split(".")
    for part in path:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SettingsError(
                f"{part!r} holds no names to override", where=override, found=repr(inner)
            )
        tree = inner
    tree[last] = _locate(value, Path.cwd())


def _explain(error: ValidationError, kind: type[BaseModel], where: str) -> PreceptorError:
    """The first fault as one error; the others are counted."""
    faults = error.errors(include_url=False)
    first = faults[0]
    inner = (first.get("ctx") or {}).get("error")
    if isinstance(inner, PreceptorError):
        return inner
    path = [part for part in first["loc"] if not str(part).startswith("function-")]
    name = ".".join(map(str, path))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields(kind, path[:-1])
        return SettingsError(
            f"unknown setting {name!r}{more}", where=where, found=nearest(str(path[-1]), known)
        )
    if first["type"] == "missing":
        return SettingsError(
            f"the setting {name!r} is missing{more}", where=where, next_step=f"add `{name}: ...`"
        )
    message = first["msg"].removeprefix("Value error, ")
    return SettingsError(
        f"the setting {name!r} cannot be used{more}" if name else f"these settings clash{more}",
        where=where,
        found=f"{message}, got {_short(first['input'])}" if name else message,
    )


def _short(value: Any) -> str:
    text = repr(str(value) if isinstance(value, Located) else value)
    return text if len(text) < 80 else text[:77] + "..."


def _fields(kind: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names that may stand at `path`; every settings class on the way is looked into."""
    classes = [kind]
    for part in path:
        if isinstance(part, int):
            continue
        steps = []
        for owner in classes:
            if part in owner.model_fields:
                steps += _models_in(owner.model_fields[str(part)].annotation)
            elif _tag(owner) == part:
                steps.append(owner)
        classes = steps or classes
    return sorted({name for owner in classes for name in owner.model_fields})


def _tag(owner: type[BaseModel]) -> str | None:
    field = owner.model_fields.get("kind")
    return None if field is None else str(field.default)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = getattr(annotation, "__args__", ())
    return [model for part in inner for model in _models_in(part)]
