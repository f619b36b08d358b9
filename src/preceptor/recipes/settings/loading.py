"""Settings files: YAML plus `key=value` overrides become a frozen model, or one clear error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from preceptor.core.errors import PreceptorError, SettingsError, nearest


class Settings(BaseModel):
    """Base of all settings: frozen, and closed (an unknown name is an error)."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Located(str):
    """A string that remembers the folder its relative path starts from."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Located:
        located = super().__new__(cls, text)
        located.folder = folder
        return located

    def __getnewargs__(self) -> tuple[str, Path]:  # type: ignore[override]
        """So that settings can be sent to another process."""
        return str(self), self.folder


AnySettings = TypeVar("AnySettings", bound=Settings)


def load_settings(
    kind: type[AnySettings],
    path: Path | None,
    overrides: Sequence[str] = (),
    added: Mapping[str, Sequence[str]] | None = None,
) -> AnySettings:
    """Read a YAML file (paths relative to it) and apply overrides (paths relative to here).

    An override is `key=value` or `key.subkey=value`; the value is read as YAML.

    Args:
        added: items that come after those of a setting that is a list; paths relative to here.

    Raises:
        SettingsError: unreadable file, unknown name (with the nearest one), unfit value.
    """
    tree = read_tree(path, overrides)
    for name, items in (added or {}).items():
        held = tree.get(name) or []
        if items and isinstance(held, list):  # else the settings say what is wrong
            tree[name] = [*held, *_locate(list(items), Path.cwd())]
    return validated(kind, tree, place_of(path))


def read_tree(path: Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The names and values of a settings file, overrides applied, as `validated` takes them.

    Raises:
        SettingsError: unreadable file or override.
    """
    tree = {} if path is None else _locate(_read(path), path.resolve().parent)
    for override in overrides:
        _apply(tree, override)
    return tree


def place_of(path: Path | None) -> str:
    """Where settings stand, for errors."""
    return str(path) if path is not None else "command line"


def validated(kind: type[AnySettings], tree: dict[str, Any], where: str) -> AnySettings:
    """Settings from a tree of names and values (raises SettingsError, which says `where`)."""
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
            "the settings file is not valid YAML",
            where=str(path),
            found=str(error),
            next_step="mend the line; `preceptor init` writes a starter file",
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
            "an override must be key=value",
            where="command line",
            found=repr(override),
            next_step="write `name=value` or `name.inner=value`",
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(
            "the value of an override is not valid YAML",
            where=override,
            found=str(error),
            next_step="quote the value as in a YAML file",
        ) from error
    replace_setting(tree, key, _locate(value, Path.cwd()), override)


def replace_setting(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set `name` or `name.inner` of a tree in place (raises SettingsError, which says `where`)."""
    *path, last = key.split(".")
    for part in path:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SettingsError(
                f"{part!r} holds no names to override",
                where=where,
                found=_short(inner),
                next_step="override the whole list or value, or edit the file",
            )
        tree = inner
    tree[last] = value


def _explain(error: ValidationError, kind: type[BaseModel], where: str) -> PreceptorError:
    """The first fault as one error; the others are counted."""
    faults = error.errors(include_url=False)
    # a list whose items are at fault is also "too short"
    faults = [fault for fault in faults if fault["type"] != "too_short"] or faults
    faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")  # a typo explains the rest
    first = faults[0]
    inner = (first.get("ctx") or {}).get("error")
    if isinstance(inner, PreceptorError):
        return inner
    path = _without_tags(kind, first["loc"])
    name = ".".join(map(str, path))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields(kind, first["loc"][:-1])
        return SettingsError(
            f"unknown setting {name!r}{more}",
            where=where,
            found=nearest(str(path[-1]), known),
            next_step="correct the name, or remove the line",
        )
    if first["type"] == "missing":
        return SettingsError(
            f"the setting {name!r} is missing{more}", where=where, next_step=f"add `{name}: ...`"
        )
    message = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    return SettingsError(
        f"the setting {name!r} cannot be used{more}" if name else f"these settings clash{more}",
        where=where,
        found=f"{message}, got {_short(first['input'])}" if name else message,
        next_step="`preceptor schema` prints what every setting may be",
    )


def _short(value: Any) -> str:
    text = repr(str(value) if isinstance(value, Located) else value)
    return text if len(text) < 80 else text[:77] + "..."


def _fields(kind: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names that may stand at `path` (of pydantic: it holds the tags of unions)."""
    return sorted({name for owner in _classes(kind, path) for name in owner.model_fields})


def _without_tags(kind: type[BaseModel], path: Sequence[str | int]) -> list[str | int]:
    """A path of pydantic as the user wrote it: without the tags of unions."""
    return [
        part
        for place, part in enumerate(path)
        if not (place and isinstance(path[place - 1], int) and _tagged(kind, path[:place], part))
    ]


def _tagged(kind: type[BaseModel], path: Sequence[str | int], part: str | int) -> bool:
    return any(part in _tags(owner) for owner in _classes(kind, path))


def _classes(kind: type[BaseModel], path: Sequence[str | int]) -> list[type[BaseModel]]:
    """The settings classes that may stand at `path`."""
    classes = [kind]
    for place, part in enumerate(path):
        if isinstance(part, int):
            continue
        tagged = [owner for owner in classes if part in _tags(owner)]
        if tagged and place and isinstance(path[place - 1], int):
            classes = tagged
            continue
        fields = [owner.model_fields[part] for owner in classes if part in owner.model_fields]
        classes = [model for field in fields for model in _models_in(field.annotation)] or classes
    return classes


def _tags(owner: type[BaseModel]) -> tuple[str, ...]:
    field = owner.model_fields.get("kind")
    return () if field is None else get_args(field.annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = getattr(annotation, "__args__", ())
    return [model for part in inner for model in _models_in(part)]
