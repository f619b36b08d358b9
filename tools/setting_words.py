"""What a setting may be, in words, from its annotation and its default."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from preceptor.recipes.settings.loading import Settings
from preceptor.recipes.settings.training import PRESETS, Training

# settings classes: one, several, and the section of the page that is about them
LINKS = {
    "Source": ("source", "sources", "a-source"),
    "Columns": ("columns", "columns", "columns"),
    "TransformersTeacher": ("teacher", "teachers", "a-teacher"),
    "VllmTeacher": ("teacher", "teachers", "a-teacher"),
    "OpenAITeacher": ("teacher", "teachers", "a-teacher"),
    "OwnTeacher": ("teacher", "teachers", "a-teacher"),
    "Price": ("price", "prices", "price"),
    "Fleet": ("fleet", "fleets", "a-fleet"),
    "ColumnReward": ("reward", "rewards", "a-reward"),
    "VerifierReward": ("reward", "rewards", "a-reward"),
    "ModelReward": ("reward", "rewards", "a-reward"),
    "JudgeReward": ("reward", "rewards", "a-reward"),
    "PairwiseReward": ("reward", "rewards", "a-reward"),
    "PairwiseLogprobReward": ("reward", "rewards", "a-reward"),
    "OwnReward": ("reward", "rewards", "a-reward"),
    "Baseline": ("baseline", "baselines", "a-baseline"),
    "TeacherFacts": ("facts", "facts", "facts"),
    "Race": ("race", "races", "a-race"),
    "Pilot": ("pilot", "pilots", "a-pilot"),
    "PilotTraining": ("training", "trainings", "training"),
    "Decodings": ("decodings", "decodings", "decodings"),
    "ExportSet": ("set", "sets", "a-set"),
    "Data": ("data", "data", "data"),
    "Training": ("training", "trainings", "training"),
    "Lora": ("adapters", "adapters", "adapters"),
    "Quality": ("quality", "quality", "quality"),
    "Loss": ("loss", "losses", "a-loss"),
    "InProcess": ("model in process", "models in process", "in-process"),
    "Ensemble": ("ensemble", "ensembles", "ensemble"),
    "Routed": ("routed teacher", "routed teachers", "routed"),
    "Cached": ("cached teacher", "cached teachers", "cached"),
    "AlpacaEval": ("benchmark", "benchmarks", "a-benchmark"),
    "ArenaHard": ("benchmark", "benchmarks", "a-benchmark"),
    "MTBench": ("benchmark", "benchmarks", "a-benchmark"),
    "Verifiable": ("benchmark", "benchmarks", "a-benchmark"),
    "LmEval": ("benchmark", "benchmarks", "a-benchmark"),
    "LabTest": ("benchmark", "benchmarks", "a-benchmark"),
    "OwnBenchmark": ("benchmark", "benchmarks", "a-benchmark"),
    "Opponent": ("opponent", "opponents", "an-opponent"),
    "Arm": ("arm", "arms", "an-arm"),
    "StudentSettings": ("student", "students", "a-student"),
}
# texts that a validator reads as something else, by the validator's name
REFERENCES = {
    "_model": ("model", "models"),
    "_source": ("path", "paths"),
    "_store": ("folder", "folders"),
    "_prompt": ("file", "files"),
}
PATTERNS = {
    r"^[A-Za-z0-9_.\-]*$": "letters, digits, `_ . -`",
    r"^[A-Za-z0-9_.:\-]*$": "letters, digits, `_ . : -`",
    r"^[\w.]+(:\w+)?$": "`module:function`",
}
PLAIN = {
    bool: ("true or false", "true or false"),
    int: ("integer", "integers"),
    float: ("number", "numbers"),
    str: ("text", "texts"),
    Any: ("anything", "anything"),
}


def describe(annotation: Any, marks: tuple[Any, ...] = (), many: bool = False) -> str:
    """What a setting may be, in words: `list of [teachers](#a-teacher)`, `number in (0, 1]`."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return describe(inner, (*more, *marks), many)
    readers = [getattr(getattr(mark, "func", None), "__name__", "") for mark in marks]
    for reader in readers:
        if reader in REFERENCES:
            return REFERENCES[reader][many]
    limits, origin, inside = _limits(marks), get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _either([part for part in inside if part is not type(None)], marks, many)
    if origin is Literal:
        return _joined([f"`{value}`" for value in inside])
    if origin is tuple:
        return _list(
            inside, limits, one_alone=bool({"_listed", "<lambda>"} & {*readers}), many=many
        )
    if origin is dict:
        values = inside[1]
        held = "" if values is Any else f" of names to {describe(values, many=True)}"
        return ("mappings" if many else "mapping") + held + _least(limits)
    if annotation in PLAIN:
        if "pattern" in limits:
            return PATTERNS[limits["pattern"]]
        return PLAIN[annotation][many] + _range(limits, annotation is int)
    single, several, place = LINKS[annotation.__name__]
    return f"[{several if many else single}](#{place})"


def _either(parts: list[Any], marks: tuple[Any, ...], many: bool) -> str:
    if {*parts} == {str, int, bool}:
        return "values" if many else "value"
    return _joined(list(dict.fromkeys(describe(part, marks, many) for part in parts)))


def _list(inside: tuple[Any, ...], limits: dict[str, Any], one_alone: bool, many: bool) -> str:
    if inside[-1] is not Ellipsis:
        return f"{'pairs' if many else 'pair'} of {describe(inside[0], many=True)}"
    if one_alone:
        return f"{describe(inside[0])}, or list of them" + _least(limits)
    return f"{'lists' if many else 'list'} of {describe(inside[0], many=True)}" + _least(limits)


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " or " + parts[-1]


def _limits(marks: tuple[Any, ...]) -> dict[str, Any]:
    found = {}
    for mark in marks:
        for part in mark.metadata if isinstance(mark, FieldInfo) else [mark]:
            for name in ("ge", "gt", "le", "lt", "min_length", "pattern"):
                if getattr(part, name, None) is not None:
                    found[name] = getattr(part, name)
    return found


def _least(limits: dict[str, Any]) -> str:
    return f", at least {limits['min_length']}" if "min_length" in limits else ""


def _range(limits: dict[str, Any], whole: bool) -> str:
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is None and high is None:
        return ", not empty" if "min_length" in limits else ""
    if high is None:
        assert low is not None
        if "ge" in limits:
            return f" ≥ {low:g}"
        return f" ≥ {low + 1:g}" if whole else f" > {low:g}"
    if low is None:
        return f" ≤ {high:g}" if "le" in limits else f" < {high:g}"
    ends = ("[" if "ge" in limits else "("), ("]" if "le" in limits else ")")
    return f" in {ends[0]}{low:g}, {high:g}{ends[1]}"


def default(field: FieldInfo) -> str:
    """What a setting is where it is not set."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", (), {}):
        return "none"
    if value == "\n":
        return "a line break"
    if isinstance(value, Settings):
        if not value.model_dump(exclude_defaults=True):
            return "all defaults"
        return next(f"`{name}`" for name in PRESETS if value == Training.model_validate(name))
    return f"`{as_yaml(value)}`"


def as_yaml(value: Any) -> str:
    """A default as a settings file would say it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, Settings):
        return as_yaml(value.model_dump(exclude_defaults=True))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {as_yaml(own)}" for name, own in value.items()) + "}"
    return value if isinstance(value, str) else repr(value).replace("e-0", "e-")
