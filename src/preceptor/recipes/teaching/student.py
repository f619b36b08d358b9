"""Training a student inside a run folder: from examples to a plain checkpoint, resumable."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl.trainer.sft_config import SFTConfig

from preceptor.core import artifacts
from preceptor.core.errors import SettingsError
from preceptor.core.progress import progress
from preceptor.core.run import Run
from preceptor.core.types import Runtime
from preceptor.data.rendering import Renderer
from preceptor.models.load import Card, load_causal_lm, pick_device
from preceptor.models.signals import SignalTeacher
from preceptor.recipes.settings.training import Lora, Training
from preceptor.training.checkpoints import drop_cut_checkpoints, last_checkpoint
from preceptor.training.objective import Objective
from preceptor.training.trainer import DistillTrainer

MODEL = "model"  # folder of the finished checkpoint


@dataclass(frozen=True)
class Pupil:
    """A student to be trained: its card, how, and where."""

    card: Card
    training: Training
    runtime: Runtime
    seed: int

    def renderer(self) -> Renderer:
        """Renders answers as this student is to learn them, within its longest sequence."""
        limit = min(self.card.limit, self.training.max_length)
        return Renderer(self.card.tokenizer, limit, self.card.reference)


def train_student(
    pupil: Pupil,
    examples: Mapping[str, list[Any]],
    objective: Objective,
    teacher: SignalTeacher | None,
    run: Run,
    name: str = "",
) -> Path:
    """Train, or go on from the last whole checkpoint; the finished model appears whole.

    Args:
        examples: columns from `data.examples.build_examples`.
        name: of the student among several of one run: its model, metrics and report lie in a
            folder of that name; of the run itself if empty.

    Returns:
        The folder of the finished checkpoint, which plain `transformers` loads.
    """
    folder = run.folder / name
    if (folder / MODEL).exists():
        return folder / MODEL
    checkpoints = run.path(artifacts.WORK) / f"checkpoints-{name.replace('/', '-') or 'student'}"
    if run.leads:
        folder.mkdir(parents=True, exist_ok=True)
        drop_cut_checkpoints(checkpoints)
    with one_display():
        trainer = open_trainer(pupil, examples, objective, teacher, folder, checkpoints)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Progress(f"training {name}".strip(), examples))
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        return save_model(trainer, pupil.card, folder / MODEL)


def open_trainer(
    pupil: Pupil,
    examples: Mapping[str, list[Any]],
    objective: Objective,
    teacher: SignalTeacher | None,
    folder: Path,
    checkpoints: Path,
) -> DistillTrainer:
    """The trainer with the student's weights loaded; metrics go to `folder`."""
    device = pick_device(pupil.runtime.device)
    half = pupil.runtime.dtype == "bfloat16"
    dtype = torch.bfloat16 if half else torch.float32
    trainer = DistillTrainer(
        load_causal_lm(pupil.card, dtype, device, pupil.runtime.trust_remote_code),
        objective=objective,
        teacher=teacher,
        metrics_file=folder / artifacts.METRICS,
        gradient_norms=pupil.training.gradient_norms,
        args=_arguments(pupil, checkpoints, device.type),
        train_dataset=datasets.Dataset.from_dict(dict(examples)),
        processing_class=pupil.card.tokenizer,
        peft_config=_lora(pupil.training.lora),
    )
    if pupil.training.lora and trainer.is_fsdp_enabled:
        raise SettingsError(
            "adapters cannot be merged while their weights are sharded",
            where="training: lora",
            found="a launch with FSDP",
            next_step="launch without FSDP, or keep the adapters: DistillTrainer in Python",
        )
    return trainer


def _arguments(pupil: Pupil, folder: Path, device: str) -> SFTConfig:
    training = pupil.training
    more: dict[str, Any] = {}
    known = SFTConfig.__dataclass_fields__  # the name changed in transformers 5.2x
    new, old = "activation_checkpointing", "gradient_checkpointing"
    more[new if new in known else old] = training.gradient_checkpointing
    return SFTConfig(
        output_dir=str(folder),
        learning_rate=training.learning_rate,
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=training.optimizer,
        max_length=training.max_length if training.packing else None,
        packing=training.packing,
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=2,  # the older one is whole while the newer one is written
        logging_steps=training.log_steps,
        report_to=list(training.report_to) or "none",
        seed=pupil.seed,
        data_seed=pupil.seed,
        bf16=device != "cpu" and pupil.runtime.dtype != "float32",
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        disable_tqdm=True,  # the run has one progress display of its own
        **more,
    )


def _lora(lora: Lora | None) -> Any:
    if lora is None:
        return None
    from peft import LoraConfig

    modules = lora.target_modules
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )


@contextlib.contextmanager
def one_display() -> Iterator[None]:
    """The libraries draw bars of their own for every small step; the run has one display."""
    of_data, of_models = datasets.is_progress_bar_enabled(), logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if of_data:
            datasets.enable_progress_bars()
        if of_models:
            logging.enable_progress_bar()


def save_model(trainer: DistillTrainer, card: Card, place: Path) -> Path:
    """The trained model as plain safetensors, adapters merged, with the base's tokenizer."""
    temporary = place.with_name(f".{place.name}.part")
    if trainer.args.should_save:
        shutil.rmtree(temporary, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    before, after = (own.get_text_config() for own in (card.config, model.config))
    if hasattr(before, "output_router_logits"):  # TRL turns it on; generating with it fails
        after.output_router_logits = before.output_router_logits
    if hasattr(model, "merge_and_unload"):
        if trainer.args.should_save:
            model.merge_and_unload().save_pretrained(temporary)
    else:
        if trainer.is_fsdp_enabled:  # shards alone, its default, are no model
            trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(temporary))
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        card.tokenizer.save_pretrained(temporary)
        (temporary / "training_args.bin").unlink(missing_ok=True)  # a pickle: not ours to spread
        temporary.rename(place)
    trainer.accelerator.wait_for_everyone()
    return place


class _Progress(TrainerCallback):
    """The trainer's steps on the one progress display."""

    def __init__(self, title: str, examples: Mapping[str, list[Any]]) -> None:
        self.title = title
        self.mean_tokens = sum(map(len, examples["input_ids"])) / len(examples["input_ids"])
        self._display: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._display = progress(self.title, state.max_steps, "steps", state.global_step)
            self._advance = self._display.__enter__()
            self._tokens = round(
                args.per_device_train_batch_size
                * args.gradient_accumulation_steps
                * args.world_size
                * self.mean_tokens
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._display is not None:
            self._advance(1, self._tokens)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._display is not None:
            self._display.__exit__(None, None, None)
            self._display = None
