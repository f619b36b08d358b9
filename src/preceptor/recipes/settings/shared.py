"""Settings that several recipes share: sources, teachers, fleets. Reaches no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from preceptor.core.errors import SettingsError, nearest
from preceptor.lab.place import PREFIX, model_folder, split_name
from preceptor.recipes.settings.loading import Located, Settings
from preceptor.teachers import TEACHERS


def _model(value: Any) -> Any:
    """A model: `lab:NAME`, a folder (made absolute), or a hub id (left as it is)."""
    if not isinstance(value, str):
        return value
    if value.startswith(PREFIX):
        model_folder(value)
        return str(value)
    return _existing_path(value, "model") or str(value)


def _source(value: Any) -> Any:
    """A table of rows: `lab:SPLIT`, a file or folder (made absolute), or a `datasets` name."""
    if not isinstance(value, str):
        return value
    if value.startswith(PREFIX):
        return PREFIX + split_name(value)
    return _existing_path(value, "file") or str(value)


def _store(value: Any) -> Any:
    """A folder that may not be there yet, made absolute."""
    if not isinstance(value, str):
        return value
    folder = value.folder if isinstance(value, Located) else Path.cwd()
    return str((folder / Path(value).expanduser()).resolve())


def _existing_path(value: str, kind: str) -> str | None:
    folder = value.folder if isinstance(value, Located) else Path.cwd()
    path = (folder / Path(value).expanduser()).resolve()
    if path.exists():
        return str(path)
    beside = "/" in value and path.parent.is_dir()  # a typo, rather than a hub id
    looks_like_path = beside or value.startswith((".", "/", "~")) or value.count("/") > 1
    looks_like_file = kind == "file" and Path(value).suffix in (".parquet", ".jsonl", ".json")
    if looks_like_path or looks_like_file:
        raise SettingsError(
            f"no such {kind}",
            where=str(value),
            found=f"nothing at {path}" + (f"; {_neighbour(path)}" if beside else ""),
            next_step="paths in a settings file are relative to that file",
        )
    return None


def _neighbour(path: Path) -> str:
    return nearest(path.name, sorted(entry.name for entry in path.parent.iterdir())[:50])


def shorthand(name: str) -> BeforeValidator:
    """Accept a bare string for a mapping that needs only `name`."""
    return BeforeValidator(lambda value: {name: value} if isinstance(value, str) else value)


def with_settings(*kinds: type[Settings]) -> frozenset[str]:
    """Names of `kind` that have a class of settings; other names of a shelf take `options`."""
    return frozenset(get_args(kind.model_fields["kind"].annotation)[0] for kind in kinds)


ModelRef = Annotated[str, BeforeValidator(_model)]
SourceRef = Annotated[str, BeforeValidator(_source)]


class Columns(Settings):
    """Names of columns; each default is a list of usual names, tried in turn."""

    instruction_id: str | None = None
    """Key of an instruction (usual: instruction_id, uuid, prompt_id, id); else the text's hash."""
    instruction: str | None = None
    """Text of the instruction (usual: instruction, prompt, question, input)."""
    teacher: str | None = None
    """Who answered (usual: teacher, generator, model, source_model)."""
    response: str | None = None
    """The answer (usual: response, output, answer, content, completion)."""


class Source(Settings):
    """Recorded answers, or instructions, from a file, a folder or a dataset."""

    path: SourceRef
    """Parquet or JSONL file, folder, `datasets` name, or `lab:SPLIT`."""
    split: str = "train"
    """Split of a dataset with several."""
    columns: Columns = Columns()
    """Names of columns, where they are unusual."""


Answers = Annotated[Source, shorthand("path")]


class Fleet(Settings):
    """Workers that load models and share the work, one model each."""

    kind: str = "here"
    """`here` (this process), `processes` (of this machine), `ray` (a cluster), or
    `module:function`."""
    address: str | None = None
    """Of a running Ray cluster (`auto`, `host:6379`); a local one is started if not set."""
    workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    """How many, or [fewest, most] to scale between."""
    cpus: float = Field(default=1.0, ge=0)
    """Cores, and threads, of a worker."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of a worker; with 0 it sees none."""

    @model_validator(mode="after")
    def _can_be(self) -> Fleet:
        if isinstance(self.workers, tuple) and self.workers[0] > self.workers[1]:
            raise SettingsError(
                "a fleet's fewest workers are more than its most",
                where="fleet: workers",
                found=str(list(self.workers)),
                next_step="write [fewest, most]",
            )
        unread = [
            name
            for name, field in type(self).model_fields.items()
            if name != "kind" and getattr(self, name) != field.default
        ]
        if self.kind == "here" and unread:
            raise SettingsError(
                "the fleet of this process has one worker and no settings",
                where="fleet",
                found=", ".join(sorted(unread)),
                next_step="add `kind: processes` or `kind: ray`, or leave the fleet out",
            )
        return self


class _Teacher(Settings):
    name: str = ""
    """Name in the ranking; the model's own name when empty."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of sampling; unused when greedy."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer, in the teacher's tokens."""


class TransformersTeacher(_Teacher):
    """A checkpoint that is loaded with `transformers`."""

    kind: Literal["transformers"] = "transformers"
    model: ModelRef
    """`lab:NAME`, a checkpoint folder, or a hub id."""
    batch_size: int = Field(default=64, ge=1)
    """Conversations answered together."""
    continuous: bool = False
    """Refill the batch as answers end (`transformers`' continuous batching)."""
    fleet: Fleet | None = None
    """Workers of this teacher alone; the run's when not set."""


class VllmTeacher(_Teacher):
    """A checkpoint that is loaded with vLLM's offline engine (extra `vllm`)."""

    kind: Literal["vllm"]
    model: ModelRef
    """A checkpoint folder or a hub id."""
    adapter: ModelRef | None = None
    """Folder or hub id of a LoRA adapter over it."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share one copy of the model."""
    gpu_memory: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that the engine may take."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest conversation with its answer, in tokens; the model's own when not set."""
    chunk: int = Field(default=1024, ge=1)
    """Conversations handed to the engine, and kept, together."""
    fleet: Fleet | None = None
    """Workers of this teacher alone; the run's when not set."""


class Price(Settings):
    """Money for a million tokens, in any currency."""

    input: float = Field(default=0.0, ge=0)
    """Of prompts."""
    output: float = Field(default=0.0, ge=0)
    """Of answers."""


class OpenAITeacher(_Teacher):
    """A model behind an OpenAI-compatible server or hosted API (extra `openai`)."""

    kind: Literal["openai"]
    model: str
    """The model's name at the server."""
    url: str | None = None
    """Base URL (`http://127.0.0.1:8000/v1`); the hosted API's own when not set."""
    revision: str = ""
    """What tells this model from others of its name, if anything; part of the answers' key."""
    key_env: str = ""
    """Environment variable of the key. When empty: OPENAI_API_KEY for the hosted API, no key for a
    `url`. The key itself is never written anywhere."""
    concurrency: int = Field(16, ge=1)
    """Requests in flight at most."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Limit on requests; every try counts."""
    tokens_per_minute: float | None = Field(None, gt=0)
    """Of prompts and answers; an answer counts as max_new_tokens until its length is known."""
    timeout: float = Field(120.0, gt=0)
    """Seconds for one request."""
    retries: int = Field(6, ge=0)
    """Further tries after 429, 5xx, timeouts and unreadable replies, with growing waits."""
    batch_api: bool = False
    """Send files of requests to the server's batch endpoint (cheaper, up to a day)."""
    price: Price = Price()
    """Money for a million tokens, for the cost account."""
    system: str = ""
    """System message before every conversation."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request body (`reasoning_effort: low`, say); null leaves one out. Not
    `messages`, `model`, `n`, `stream`."""


class OwnTeacher(_Teacher):
    """A teacher of the user's own code: `kind: module:function`, or a shelf's name for it."""

    kind: str = Field(pattern=r"^[\w.]+(:\w+)?$")
    """The function: `open_teacher(setting, runtime)`."""
    model: str = ""
    """For the function to read; a `lab:` name becomes its folder."""
    options: dict[str, Any] = Field(default_factory=dict)
    """For the function to read."""


_TEACHERS = with_settings(TransformersTeacher, VllmTeacher, OpenAITeacher)


def _kind_of_teacher(value: Any) -> str:
    kind = str(value.get("kind", "transformers") if isinstance(value, dict) else value.kind)
    if kind not in TEACHERS and ":" not in kind:
        raise SettingsError(
            f"unknown teacher {kind!r}",
            where="teachers: kind",
            found=nearest(kind, TEACHERS),
            next_step="use a known kind or your own as `module:function`",
        )
    return kind if kind in _TEACHERS else "own"


Teacher = Annotated[
    Annotated[TransformersTeacher, Tag("transformers")]
    | Annotated[VllmTeacher, Tag("vllm")]
    | Annotated[OpenAITeacher, Tag("openai")]
    | Annotated[OwnTeacher, Tag("own")],
    Discriminator(_kind_of_teacher),
    shorthand("model"),
]


StoreRef = Annotated[str, BeforeValidator(_store)]


def model_name(reference: str) -> str:
    """Short name of a model: the folder's name, the lab's name, or the hub id."""
    if reference.startswith(PREFIX):
        return reference.removeprefix(PREFIX)
    path = Path(reference)
    return path.name if path.is_absolute() else reference


def model_location(reference: str) -> str:
    """What the loader opens: a folder, or a hub id."""
    return str(model_folder(reference)) if reference.startswith(PREFIX) else reference


def teacher_name(teacher: _Teacher) -> str:
    """Name of a live teacher in tables: its own, or its model's."""
    return teacher.name or model_name(getattr(teacher, "model", ""))
