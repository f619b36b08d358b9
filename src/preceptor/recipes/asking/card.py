"""The dataset card of exported training sets: how to load them, and how they came to be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from preceptor import __version__
from preceptor.recipes.settings.asking import Export, ExportSet
from preceptor.recipes.settings.shared import model_name

TRAIN = "train.parquet"  # of each set's folder
_RULES = {
    "best": "of an instruction's n samples the one with the highest reward, the first of equals",
    "worst": "of an instruction's n samples the one with the lowest reward, the first of equals",
    "one": "one of an instruction's n samples, drawn uniformly by the seed and the instruction",
    "greedy": "the answer at temperature 0",
    "all": "every sample",
}


@dataclass(frozen=True)
class SetFacts:
    """What the card says of one set.

    Attributes:
        configs: form -> name under which `datasets` loads it.
        points: (teacher, temperature, top_p) of its rows; None where it was not recorded.
        rewards: reward -> mean over the rows; None where there is no score.
        tokens: mean length of the answers in the teacher's tokens; None where it is not known.
        cut: answers that reached their longest length.
    """

    name: str
    wanted: ExportSet
    configs: Mapping[str, str]
    rows: int
    instructions: int
    points: Sequence[tuple[Any, ...]]
    rewards: Mapping[str, float | None]
    tokens: float | None
    cut: int

    def line(self) -> str:
        """Name, rows and mean rewards, for the terminal."""
        means = [f"{name} {mean:.3f}" for name, mean in self.rewards.items() if mean is not None]
        return f"{self.name}: {', '.join([f'{self.rows:,} rows', *means])}"


def _version(settings: Export, samples_hash: str) -> str:
    """Of the rows: `datasets` caches by folder name, config and version, not by content."""
    content = f"{samples_hash}\n{settings.model_dump_json()}".encode()
    digest = hashlib.sha256(content).digest()
    return f"1.{int.from_bytes(digest[:3], 'big')}.{int.from_bytes(digest[3:6], 'big')}"


def dataset_card(
    settings: Export,
    asked: Mapping[str, Any],
    facts: Mapping[str, SetFacts],
    n_instructions: int,
    samples_hash: str,
    command: str,
) -> str:
    """The text of `README.md`; its YAML header names each set's file for `datasets`.

    Args:
        asked: `provenance.json` of the asking.
        facts: by the name of the set.
        n_instructions: of the asking, before any were left out.
        samples_hash: of `samples.parquet`.
        command: that makes the sets again.
    """
    configs = [config for own in facts.values() for config in own.configs.values()]
    header = {
        "configs": [
            {
                "config_name": config,
                "version": _version(settings, samples_hash),
                "data_files": [{"split": "train", "path": f"{config}/{TRAIN}"}],
            }
            for config in configs
        ],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "preceptor"],
    }
    kept = next(iter(facts.values())).instructions
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).rstrip(),
        "---",
        "",
        "# Training sets from sampled answers",
        "",
        f"Answers of {_teachers(facts)} to the same {kept:,} instructions, picked in "
        f"{len(facts)} {'ways' if len(facts) > 1 else 'way'}. Made by preceptor {__version__}.",
        "",
        *_sets(facts),
        "",
        *_loading(configs[0]),
        "",
        "## How they came to be",
        "",
        *_origin(asked, samples_hash),
        *_choices(settings, facts),
        f"- All sets hold the same instructions: {kept:,} of {n_instructions:,}; "
        f"{n_instructions - kept:,} were left out, since some set had no row for them.",
        "",
        "Made again by",
        "",
        "```sh",
        asked["command"],
        command,
        "```",
        "",
        "## Licence",
        "",
        "None is stated here. The instructions, and the answers as output of the models above, may "
        "be bound by terms of their owners, some of which limit training other models. Check them "
        "before you use or publish these sets, and add `license:` to the header.",
        "",
    ]
    return "\n".join(lines)


def _teachers(facts: Mapping[str, SetFacts]) -> str:
    return ", ".join(sorted({str(point[0]) for own in facts.values() for point in own.points}))


def _sets(facts: Mapping[str, SetFacts]) -> Iterator[str]:
    """A table of the sets, and the rules they were picked by."""
    rewards = list(dict.fromkeys(name for own in facts.values() for name in own.rewards))
    heads = ["set", "pick", "rows", *(f"mean {name}" for name in rewards), "mean tokens", "cut off"]
    yield _row(heads)
    yield _row(["---"] * 3 + ["---:"] * (len(heads) - 3))
    for own in facts.values():
        means = [_number(own.rewards.get(name), 4) for name in rewards]
        first = [f"`{own.name}`", _pick(own.wanted), f"{own.rows:,}"]
        yield _row([*first, *means, _number(own.tokens, 1), f"{own.cut:,}"])
    yield ""
    for rule in dict.fromkeys(own.wanted.pick for own in facts.values()):
        yield f"- **{rule}**: {_RULES[rule]}."
    yield "- *cut off*: answers that reached the longest length the teacher was allowed."


def _pick(wanted: ExportSet) -> str:
    text = wanted.pick
    if wanted.samples:
        text += f" of the first {wanted.samples}"
    if wanted.reward:
        text += f", by {wanted.reward}"
    if wanted.min_reward is not None:
        text += f", at least {wanted.min_reward:g}"
    return text


def _loading(config: str) -> Iterator[str]:
    yield "```python"
    yield "import datasets"
    yield "from trl import SFTConfig, SFTTrainer"
    yield ""
    yield f'rows = datasets.load_dataset("THIS_FOLDER", "{config}", split="train")'
    yield 'SFTTrainer("BASE_MODEL", args=SFTConfig(), train_dataset=rows).train()'
    yield "```"


def _origin(asked: Mapping[str, Any], samples_hash: str) -> Iterator[str]:
    """Instructions, teachers, decoding and rewards of the asking."""
    then = asked["settings"]
    source = then["instructions"]
    if source:
        yield f"- Instructions: {_place(source['path'])}, split `{source['split']}`."
    for answers in then["answers"]:
        yield f"- Recorded answers: {_place(answers['path'])}, split `{answers['split']}`."
    for name, value in asked["inputs"].items():
        yield f"- Hash of {_place(name)}: `{value}`."
    for name, value in asked["models"].items():
        yield f"- {name[:1].upper()}{name[1:]}: {_identity(value)}."
    for teacher in then["teachers"]:
        name = teacher["name"] or model_name(teacher["model"])
        yield f"- Longest answer of {name}: {teacher['max_new_tokens']:,} tokens."
    samples = then["decodings"]["samples"]
    if then["teachers"]:
        yield f"- Samples at each point (one where greedy): {samples}; seed {then['seed']}."
    for reward in then["rewards"]:
        yield f"- Reward `{reward['name']}`: {_reward(reward)}."
    yield f"- Hash of the samples: `{samples_hash}`; asked with preceptor {asked['preceptor']}."


def _choices(settings: Export, facts: Mapping[str, SetFacts]) -> Iterator[str]:
    for name, own in facts.items():
        drawn = f", seed {settings.seed}" if own.wanted.pick == "one" else ""
        points = "; ".join(_point(*point) for point in own.points)
        yield f"- Set `{name}`: {_pick(own.wanted)}{drawn}; rows of {points}."
    if settings.system:
        yield f"- System message of every conversation: {json.dumps(settings.system)}."


def _point(teacher: str, temperature: float | None, top_p: float | None) -> str:
    if temperature is None:
        return f"{teacher}, recorded"
    if temperature == 0:
        return f"{teacher}, greedy"
    return f"{teacher} at temperature {temperature:g}" + (
        "" if top_p is None else f", top-p {top_p:g}"
    )


def _place(path: str) -> str:
    """A dataset's name, or a file's own name: the folders of a machine say nothing to readers."""
    return f"`{Path(path).name if Path(path.split(' (')[0]).is_absolute() else path}`"


def _identity(value: str) -> str:
    """A model's identity: a JSON object of facts, or one fingerprint."""
    try:
        facts = json.loads(value)
    except ValueError:
        return f"`{value}`"
    if not isinstance(facts, dict):
        return f"`{value}`"
    return ", ".join(f"{key} `{fact}`" for key, fact in facts.items() if fact)


def _reward(reward: Mapping[str, Any]) -> str:
    about = [f"kind {reward['kind']}"]
    for key in ("function", "model", "column", "output"):
        if reward.get(key):
            about.append(f"{key} `{_bare(reward[key])}`")
    judge = reward.get("teacher")
    if isinstance(judge, dict):
        about.append(f"judge `{_bare(judge.get('model', ''))}`")
    return ", ".join(about)


def _bare(value: Any) -> str:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
