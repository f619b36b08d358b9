"""The sources of a study: whose answers, at which decoding point, by which pick.

Every source holds the same instructions, so that students learn from different answers and nothing
else. Criteria see the same answers, as far as all rewards know them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.core import artifacts
from preceptor.core.errors import DataError, ModelError, SettingsError, nearest
from preceptor.core.types import Answer
from preceptor.lab.cast import MEMBERS
from preceptor.lab.place import PREFIX
from preceptor.models.size import read_size
from preceptor.recipes.ask import Prepared as Asked
from preceptor.recipes.ask import points_of
from preceptor.recipes.asking.picking import REWARD, pick_together, read_pool
from preceptor.recipes.asking.samples import Samples
from preceptor.recipes.settings.asking import Ask, ExportSet
from preceptor.recipes.settings.select import Pool, TeacherFacts
from preceptor.recipes.settings.shared import Teacher, model_location, model_name
from preceptor.recipes.settings.study import Study
from preceptor.selection.families import family_of, size_of

ANSWERS_FOLDER, SOURCES_FOLDER, SELECTION_FOLDER = "answers", "sources", "selection"
Point = tuple[float | None, float | None]  # temperature, top_p; None where nobody noted it


@dataclass(frozen=True)
class AnswerSource:
    """A set of answers to the same instructions.

    Attributes:
        name: in tables: the teacher's, with what tells its several sources apart.
        model: of the teacher, as settings name it; "" where it is not known.
        size: billions of parameters.
        price: money for a million tokens.
        samples: of an instruction at this point, the most of any; what is picked from.
    """

    name: str
    teacher: str
    temperature: float | None
    top_p: float | None
    pick: str
    model: str = ""
    family: str | None = None
    size: float | None = None
    price: float | None = None
    samples: int = 1

    def wanted(self, reward: str) -> ExportSet:
        """What is picked from the samples of the teachers."""
        best = self.pick in ("best", "worst")
        greedy = self.pick == "greedy"
        return ExportSet.model_validate(
            {
                "pick": self.pick,
                "reward": reward if best else "",
                "teacher": self.teacher,
                "temperature": None if greedy else self.temperature,
                "top_p": None if greedy else self.top_p,
            }
        )


def asking_of(settings: Study, out: Path) -> Ask:
    """The asking of all teachers, which stands in `answers/`; rewards as they are given."""
    own = {name: getattr(settings, name) for name in Pool.model_fields}
    own["rewards"] = tuple(
        reward.model_copy(update={"map": "none", "scale": 1.0, "shift": 0.0})
        for reward in settings.rewards
    )
    return Ask.model_validate(
        {
            **own,
            "store": store_of(settings, out),
            "max_instructions": settings.max_instructions,
            "decodings": settings.decodings,
        }
    )


def store_of(settings: Study, out: Path) -> str:
    """The answer store that all runs of the study share."""
    return settings.store or str((out / "store").resolve())


def list_sources(settings: Study, asked: Asked) -> list[AnswerSource]:
    """Every source, teacher by teacher in the order of the settings, recorded ones last.

    A greedy point has one answer to an instruction: it is one source, whatever `picks` says. So is
    a point with one sample.

    Raises:
        SettingsError: a pick that no teacher has answers for, or facts of a teacher that is not
            there.
    """
    found: list[AnswerSource] = []
    for name, (teacher, _) in asked.teachers.items():
        points: dict[Point, int] = {
            (own.temperature, own.top_p): 1 if own.greedy else settings.decodings.samples
            for own in points_of(asked.settings, teacher)
        }
        facts = _facts_of(settings, name, teacher)
        found += _of_teacher(settings, name, points, facts)
    for name, points in _recorded_points(asked.recorded).items():
        found += _of_teacher(settings, name, points, _facts_of(settings, name, None))
    for wanted in settings.picks:
        if wanted == "greedy" and not any(own.pick == "greedy" for own in found):
            raise SettingsError(
                "nobody answers greedily",
                where="picks",
                found="greedy, and no temperature 0",
                next_step="add 0 to `decodings: temperature`, or drop the pick",
            )
    if not found:
        raise SettingsError(
            "no source is left",
            where="picks, decodings",
            found=", ".join(settings.picks),
            next_step="add `one` to `picks`",
        )
    teachers = list(dict.fromkeys(own.teacher for own in found))
    for name in settings.selection.get("teacher_facts") or {}:
        if name not in teachers:
            raise SettingsError(
                "facts are given of a teacher that is not in the study",
                where="selection: teacher_facts",
                found=nearest(name, teachers),
                next_step="correct the name",
            )
    return found


def _recorded_points(recorded: Sequence[Answer]) -> dict[str, dict[Point, int]]:
    """Teacher -> decoding point -> samples of an instruction, the most of any."""
    samples = Samples()
    samples.add_recorded(recorded)
    count = Counter(
        (answer.teacher, temperature, top_p, answer.instruction_id)
        for answer, temperature, top_p in zip(
            samples.answers, samples.noted["temperature"], samples.noted["top_p"], strict=True
        )
    )
    found: dict[str, dict[Point, int]] = {}
    for (teacher, temperature, top_p, _), n in count.items():
        points = found.setdefault(teacher, {})
        points[temperature, top_p] = max(n, points.get((temperature, top_p), 0))
    return found


def _of_teacher(
    settings: Study, name: str, points: Mapping[Point, int], facts: dict[str, Any]
) -> list[AnswerSource]:
    own: list[tuple[Point, str]] = []
    for point, samples in points.items():
        drawn = [pick for pick in settings.picks if pick != "greedy"]
        if point[0] == 0:
            own.append((point, "greedy"))
        elif drawn:
            own += [(point, pick) for pick in (drawn if samples > 1 else ["one"])]
    several_tops = len({top_p for (t, top_p), _ in own if t != 0}) > 1
    several_points = len({point for point, _ in own}) > 1
    several_picks = len({pick for _, pick in own if pick != "greedy"}) > 1
    found = []
    for (temperature, top_p), pick in own:
        parts = []
        if several_points:
            if pick == "greedy":
                parts.append("greedy")
            elif temperature is not None:
                parts.append(f"t{temperature:g}")
            if several_tops and pick != "greedy" and top_p is not None:
                parts.append(f"p{top_p:g}")
        if several_picks and pick != "greedy":
            parts.append(pick)
        full = f"{name}@{'-'.join(parts)}" if parts else name
        drawn_from = points[temperature, top_p]
        found.append(
            AnswerSource(full, name, temperature, top_p, pick, samples=drawn_from, **facts)
        )
    return found


def _facts_of(settings: Study, name: str, teacher: Teacher | None) -> dict[str, Any]:
    """Model, family, size and price of a teacher: told, from its name, or counted in its config."""
    given = (settings.selection.get("teacher_facts") or {}).get(name) or {}
    known = TeacherFacts.model_validate(given)
    reference = str(getattr(teacher, "model", "") or "")
    named = model_name(reference) if reference else name
    family, size = known.family or family_of(named), known.size or size_of(named)
    if reference.startswith(PREFIX):
        family = known.family or MEMBERS[named].family
    if size is None and teacher is not None and teacher.kind in ("transformers", "vllm"):
        try:
            counted = read_size(model_location(reference), settings.trust_remote_code)
            size = counted.parameters / 1e9
        except ModelError:  # a config that no model can be made of here; its size stays unknown
            size = None
    price = getattr(teacher, "price", None)
    own = price.output if price is not None and price.output else None
    in_process = teacher is not None and teacher.kind in ("transformers", "vllm")
    return {
        "model": reference if in_process else "",
        "family": family,
        "size": size,
        "price": own if known.price is None else known.price,
    }


def write_sources(
    settings: Study, sources: Sequence[AnswerSource], files: Mapping[str, str], out: Path
) -> int:
    """Write a table of answers for each source, and one for the criteria.

    Args:
        files: name of a source -> its file.

    Returns:
        Number of instructions that students learn from.

    Raises:
        DataError: no instruction was answered by all sources, or none has all rewards.
    """
    table = pq.read_table(out / ANSWERS_FOLDER / artifacts.SAMPLES)
    reward = settings.rewards[0].name
    wanted = {own.name: own.wanted(reward) for own in sources}
    picked = pick_together(read_pool(table), wanted, settings.seed)
    tables = {name: _named(table.take(rows), name) for name, rows in picked.items()}
    (out / SOURCES_FOLDER).mkdir(exist_ok=True)
    (out / SELECTION_FOLDER).mkdir(exist_ok=True)
    for name, own in tables.items():
        _write_once(Path(files[name]), lambda own=own: own)
    limit = settings.criteria_on
    _write_once(
        out / SELECTION_FOLDER / artifacts.ANSWERS, lambda: _with_rewards(tables.values(), limit)
    )
    return next(iter(tables.values())).num_rows


def _write_once(path: Path, make: Callable[[], pa.Table]) -> None:
    """The same samples give the same tables, so what is there stays."""
    if not path.exists():
        artifacts.write_table(path, make())


def _named(rows: pa.Table, name: str) -> pa.Table:
    """Answers under the name of their source."""
    place = rows.column_names.index("teacher")
    return rows.set_column(place, "teacher", pa.array([name] * rows.num_rows, pa.string()))


def _with_rewards(tables: Iterable[pa.Table], limit: int | None) -> pa.Table:
    """The answers to the first `limit` instructions that have every reward in every source."""
    tables = list(tables)
    names = [name for name in tables[0].column_names if name.startswith(REWARD)]
    known_N = np.ones(tables[0].num_rows, dtype=bool)
    for own in tables:
        for name in names:
            values_N = own[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            known_N &= np.isfinite(values_N)
    kept = np.flatnonzero(known_N)[:limit]
    if len(kept) < 2:
        raise DataError(
            "criteria have too few answers to look at",
            where="rewards",
            found=f"{len(kept)} of {len(known_N):,} instructions have every reward in every source",
            next_step="use a reward that scores every answer, or ask more instructions",
        )
    return pa.concat_tables([own.take(kept) for own in tables], promote_options="permissive")


def selection_of(
    settings: Study, base: str, sources: Sequence[AnswerSource], table: str, out: Path
) -> dict[str, Any]:
    """Settings of the `select` run of a base, as they could stand in a file.

    Args:
        table: of the answers.
    """
    given = dict(settings.selection)
    given.pop("teacher_facts", None)
    facts = {
        own.name: {"family": own.family, "size": own.size, "price": own.price} for own in sources
    }
    shared = ("confidence", "resamples", "seed", "fleet", "device", "dtype", "batch_tokens")
    return {
        **{name: getattr(settings, name) for name in (*shared, "trust_remote_code")},
        "base": base,
        "answers": [{"path": table}],
        "rewards": [
            {
                "kind": "column",
                "name": reward.name,
                "column": REWARD + reward.name,
                "map": reward.map,
                **(
                    {"scale": reward.scale, "shift": reward.shift} if reward.map == "affine" else {}
                ),
            }
            for reward in settings.rewards
        ],
        "store": store_of(settings, out),
        "teacher_facts": facts,
        **given,
    }
