"""From settings to whoever answers: sources of answers, fleets, and the asker over one store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from preceptor.core.errors import SettingsError, nearest
from preceptor.core.fleet import Fleet
from preceptor.core.plugs import plug
from preceptor.core.types import (
    Decoding,
    Request,
    RewardSource,
    Runtime,
    TeacherSource,
    user_turn,
)
from preceptor.data.answer_store import AnswerStore
from preceptor.data.asking import Asker
from preceptor.fleets import FLEETS
from preceptor.models.load import pick_device
from preceptor.recipes.settings import shared as shared_settings
from preceptor.recipes.settings.evaluation import Evaluate
from preceptor.recipes.settings.rewards import Reward
from preceptor.recipes.settings.select import Pool
from preceptor.recipes.settings.shared import Teacher, model_location
from preceptor.rewards import REWARDS
from preceptor.teachers import TEACHERS

STORE = "store"  # folder of the answer store in the run folder


def open_asker(store: str | None, out: Path) -> Asker:
    """The asker over the shared store, or over the run folder's own; touches no disk yet."""
    return Asker(AnswerStore(Path(store) if store else out / STORE))


def open_runtime(settings: Pool | Evaluate, out: Path) -> tuple[Runtime, Asker]:
    """Where the run's models run, and who asks; `out` is not touched yet (raises ModelError)."""
    pick_device(settings.device)  # refuses one that is not there
    asker = open_asker(settings.store, out)
    runtime = Runtime(
        settings.device,
        settings.dtype,
        getattr(settings, "batch_tokens", None),
        settings.trust_remote_code,
        open_fleet(settings.fleet),
        asker,
        settings.seed,
    )
    return runtime, asker


def open_fleet(setting: shared_settings.Fleet) -> Fleet:
    """The fleet a setting names; nothing is started yet (raises SettingsError)."""
    return plug("fleet", FLEETS, setting.kind)(setting)


def open_teacher(teacher: Teacher, runtime: Runtime) -> TeacherSource:
    """The source a setting names: reads config and tokenizer, no weights (raises ModelError)."""
    located, runtime = locate(teacher, runtime)
    return plug("teacher", TEACHERS, teacher.kind)(located, runtime)


def open_reward(reward: Reward, runtime: Runtime, pool: Collection[str] = ()) -> RewardSource:
    """The reward a setting names: reads config and tokenizer, no weights.

    Args:
        runtime: its `ask` is how judges are asked.
        pool: names of the teachers whose answers will be scored together.

    Raises:
        ModelError: a model that cannot be opened.
        SettingsError: a prompt, function or baseline that cannot be used.
    """
    located: Any = reward
    teacher = getattr(reward, "teacher", None)
    if reward.kind == "reward_model":
        located = located.model_copy(update={"model": model_location(located.model)})
    elif teacher is not None:
        judge, runtime = locate(teacher, runtime)
        located = located.model_copy(update={"teacher": judge})
    rival = getattr(getattr(reward, "baseline", None), "teacher", "")
    if rival and rival not in pool:
        raise SettingsError(
            "the baseline is not one of the teachers whose answers are scored",
            where=f"reward {reward.name!r}: baseline",
            found=nearest(rival, pool) if pool else "only new answers of one model are scored",
            next_step="name one of them, or give a column or a table of answers",
        )
    return plug("reward", REWARDS, reward.kind)(located, runtime)


def locate(teacher: Teacher, runtime: Runtime) -> tuple[Any, Runtime]:
    """A teacher's setting with places instead of `lab:` names, and the fleet it runs on."""
    located: Any = teacher
    for field in ("model", "adapter"):
        if teacher.kind != "openai" and getattr(teacher, field, None):
            place = model_location(getattr(teacher, field))
            located = located.model_copy(update={field: place})
    own = getattr(teacher, "fleet", None)
    if own is not None:
        runtime = replace(runtime, fleet=open_fleet(own))
    return located, runtime


def decoding_of(teacher: Teacher) -> Decoding:
    """How a teacher's setting says it decodes."""
    return Decoding(teacher.temperature, teacher.top_p, teacher.max_new_tokens)


def requests_of(
    texts: Sequence[str], decoding: Decoding, seed: int, samples: int = 1
) -> list[Request]:
    """One-turn requests, text by text, `samples` of each (one where decoding is greedy)."""
    drawn = 1 if decoding.greedy else samples
    return [
        Request(user_turn(text), decoding, sample, seed)
        for text in texts
        for sample in range(drawn)
    ]
