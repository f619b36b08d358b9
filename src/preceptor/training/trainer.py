"""`DistillTrainer`: TRL's SFTTrainer with an objective and a teacher; no mathematics lives here.

Data preparation, packing, PEFT, checkpoints, FSDP / DeepSpeed, resume and logging are TRL's. What
is ours: a batch is shown to the teacher, the student's body runs with its attention captured where
a loss asks for it, and the losses are formed inside the student's forward, so that sharded weights
are whole when the fused pass reads the head.

Shapes: B samples, T tokens, N scored positions, D hidden width.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import maybe_gather_lm_head_ctx

from preceptor.core.artifacts import write_json
from preceptor.core.errors import DataError, ModelError, SettingsError
from preceptor.models.capture import capture_attention
from preceptor.models.head import check_head, read_head
from preceptor.models.signals import Batch, SignalTeacher, TeacherSignals
from preceptor.training.batches import CARRIED, Carrying, as_batch
from preceptor.training.checkpoints import mark_whole
from preceptor.training.metrics import MetricsFile, norm
from preceptor.training.objective import Objective, Parts, Student
from preceptor.training.projections import Projections


class DistillTrainer(SFTTrainer):
    """TRL's SFTTrainer with the losses of an `Objective`.

    The data may have a column `sample` (number of each row, for stored signals) and a column
    `route` (name of the row's teacher, for a routed teacher). Everything else is as TRL has it.

    Args:
        model: the student: a model, or what SFTTrainer takes for one.
        objective: from `build_objective`; layers are paired here.
        teacher: None only where the objective needs no signal of one.
        metrics_file: JSON lines of every logged step (`docs/reference/run-folder.md`); None
            leaves them to `report_to` alone.
        gradient_norms: also log the norm of each loss's own gradient, at logged steps; costs one
            more backward pass a loss at those steps. Off in distributed runs, whose hooks it
            would trip over.
        more: SFTTrainer's own arguments.

    Raises:
        ModelError: a teacher that lacks a signal, or layers and heads that cannot be compared.
        SettingsError: packing with a teacher that needs whole samples.
    """

    _tag_names = ["trl", "sft", "preceptor"]  # noqa: RUF012 - TRL's own form
    model: Any  # TRL's stubs allow None here, and narrower arguments
    args: Any
    accelerator: Any
    _total_train_tokens: int

    def __init__(
        self,
        model: Any,
        *,
        objective: Objective,
        teacher: SignalTeacher | None = None,
        metrics_file: Path | None = None,
        gradient_norms: bool = True,
        **more: Any,
    ) -> None:
        _refuse_lacking(objective, teacher)
        super().__init__(model, **more)
        self._refuse_overridden(more)
        per_sample = bool(getattr(teacher, "per_sample", False)) and bool(objective.needs)
        if per_sample and (self.args.packing or self.padding_free):
            raise SettingsError(
                "this teacher needs whole samples, and packing joins them",
                where="packing",
                found=f"teacher {type(teacher).__name__}",
                next_step="turn packing and padding_free off",
            )
        core = self.accelerator.unwrap_model(self.model)
        core = core.get_base_model() if hasattr(core, "get_base_model") else core
        _check_head(core)
        self.objective = objective.paired(core.config, getattr(teacher, "config", core.config))
        self.teacher = teacher
        names = getattr(teacher, "names", ())
        self.data_collator = (
            Carrying(self.data_collator, names) if per_sample else self.data_collator
        )
        self.projections = Projections(self.objective.hidden, core.config, teacher, self.args.seed)
        self.projections.to(core.device)
        self.metrics_file = MetricsFile(metrics_file, self.is_world_process_zero())
        self.add_callback(_Keeping(self.metrics_file, self.projections))
        self.gradient_norms = gradient_norms and self.accelerator.num_processes == 1
        _listen(core)

    def _refuse_overridden(self, more: Mapping[str, Any]) -> None:
        """What would change TRL's own loss has no effect on an objective: say so."""
        parallel = getattr(self.accelerator, "parallelism_config", None)
        for name, wrong, instead in (
            ("loss_type", self.args.loss_type != "nll", "the objective is the loss"),
            ("label_smoothing_factor", self.args.label_smoothing_factor > 0, "leave it at 0"),
            ("compute_loss_func", more.get("compute_loss_func") is not None, "write a loss"),
            ("context parallelism", bool(parallel and parallel.cp_enabled), "turn it off"),
            ("sequence parallelism", bool(parallel and parallel.sp_enabled), "turn it off"),
        ):
            if wrong:
                raise SettingsError(
                    f"DistillTrainer does not support {name}", where=name, next_step=instead
                )

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        missing = [name for name in CARRIED if name not in (self._signature_columns or [])]
        self._signature_columns = [*(self._signature_columns or []), *missing]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """TRL's optimizer; learned projections join it as a group of their own."""
        optimizer = super().create_optimizer(model)
        fresh = [p for p in self.projections.parameters() if p.requires_grad]
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if fresh and id(fresh[0]) not in known:
            optimizer.add_param_group({"params": fresh, "weight_decay": 0.0})
        return optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The objective's value on a batch; its parts go to the metrics."""
        if return_outputs:
            raise SettingsError(
                "the losses are formed without logits, so there are none to return",
                where="compute_metrics, preprocess_logits_for_metrics",
                next_step="leave them out, or set prediction_loss_only",
            )
        mode = "train" if self.model.training else "eval"
        batch, labels_BT, targets_N = as_batch(inputs)
        weights_N = self._weights(batch, labels_BT, num_items_in_batch)
        signals = TeacherSignals()
        if self.objective.needs:
            assert self.teacher is not None
            signals = self.teacher.signals(batch, self.objective.needs)
        split = mode == "train" and self.gradient_norms and self._logs_this_step()

        def losses(core: Any, hidden: Mapping[Any, torch.Tensor], attention: Any) -> Parts:
            with _whole_head(core, hidden["last"]) as (head, states):
                student = Student(states, head, targets_N, attention, self.projections(hidden))
                return self.objective(student, signals, batch, weights_N, split)

        out = model(**batch.inputs, use_cache=False, losses=Call(self.objective, batch, losses))
        parts = Parts(out["terms"], out["means"])
        loss = parts.total
        if self.aux_loss_enabled:
            loss = loss + self._router_loss(out, batch, num_items_in_batch)
        self._refuse_nan(loss, parts, inputs)
        if split and len(parts.terms) > 1:
            self._note_norms(parts)
        self._note(mode, parts, batch)
        return loss

    def _weights(self, batch: Batch, labels_BT: torch.Tensor, items: Any) -> torch.Tensor:
        """Weight of each scored position: of the step's tokens, or of its samples."""
        n = batch.rows_N.numel()
        if self.objective.mean == "samples":
            wide = batch.segments_BT.amax() + 1
            sample_BT = torch.arange(len(labels_BT), device=labels_BT.device)[:, None] * wide
            _, sample_N, count_S = torch.unique(
                (sample_BT + batch.segments_BT).flatten()[batch.rows_N],
                return_inverse=True,
                return_counts=True,
            )
            steps = self.current_gradient_accumulation_steps if items is not None else 1
            return 1.0 / (count_S[sample_N] * len(count_S) * steps)
        whole = torch.as_tensor(max(n, 1) if items is None else items, device=labels_BT.device)
        weight = 1.0 / whole.clamp(min=1).float()
        if items is not None and self.args.average_tokens_across_devices:
            weight = weight * (self.accelerator.num_processes // self.get_tp_size())
        return weight.expand(n).contiguous()

    def _router_loss(self, out: Mapping[str, Any], batch: Batch, items: Any) -> torch.Tensor:
        """The student's own load-balancing loss, weighted as TRL weighs it."""
        config = self.accelerator.unwrap_model(self.model).config.get_text_config()
        experts = getattr(config, "num_experts", None) or config.num_local_experts
        balance = load_balancing_loss_func(
            out["router_logits"],
            experts,
            config.num_experts_per_tok,
            batch.inputs.get("attention_mask"),
        )
        assert isinstance(balance, torch.Tensor)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["aux_loss"].append(balance.item())
        steps = self.current_gradient_accumulation_steps if items is not None else 1
        return self.router_aux_loss_coef * balance / steps

    def _logs_this_step(self) -> bool:
        step, every = self.state.global_step + 1, max(int(self.state.logging_steps), 1)
        first = step == 1 and self.args.logging_first_step
        wanted = first or step % every == 0 or step == self.state.max_steps
        return bool(self.accelerator.sync_gradients) and wanted

    def _note_norms(self, parts: Parts) -> None:
        """Norm of each weighted loss's own gradient over the student's trained weights.

        With accumulation it is the gradient of the step's last batch, whose share it is.
        """
        weights = [p for p in self.model.parameters() if p.requires_grad]
        for name, term in parts.terms.items():
            if name == "prediction":  # only watched
                continue
            gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            self._metrics["train"][f"grad_norm.{name}"].append(norm(gradients))

    def _note(self, mode: str, parts: Parts, batch: Batch) -> None:
        for name, mean in parts.means.items():
            value = self.accelerator.gather_for_metrics(mean.detach().float()).mean().item()
            self._metrics[mode][name].append(value)
        if mode == "train":
            real = (batch.segments_BT >= 0).sum()
            tokens = int(self.accelerator.gather_for_metrics(real).sum().item())
            self._total_train_tokens += tokens // self.get_tp_size()
            self.metrics_file.count(tokens)
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    def _refuse_nan(self, loss: torch.Tensor, parts: Parts, inputs: Mapping[str, Any]) -> None:
        """Stop on a loss that is not finite; what the batch was is kept beside the checkpoints."""
        bad = self.accelerator.gather_for_metrics((~torch.isfinite(loss.detach())).float()).sum()
        if bad.item() == 0:
            return
        found = {name: repr(mean.item()) for name, mean in parts.means.items()}
        place = Path(str(self.args.output_dir)) / f"bad-batch-{self.args.process_index}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        record = {"step": self.state.global_step + 1, "losses": found}
        for name in ("sample", "input_ids"):
            if name in inputs:
                record[name] = inputs[name].tolist()
        write_json(place, record)
        raise DataError(
            "the loss is not a finite number",
            where=f"step {self.state.global_step + 1}",
            found=", ".join(f"{name} {value}" for name, value in found.items()),
            next_step=f"look at the batch in {place}; lower the learning rate, or resume from the "
            "last checkpoint with a change of `seed`",
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log; training steps also go to the metrics file."""
        if self.model.training and "loss" in logs:
            logs.update(self.metrics_file.rates(self.args.device))
        super().log(logs, start_time)
        if self.model.training and "loss" in logs:
            self.metrics_file.append(self.state.global_step, self.state.epoch, logs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """TRL's checkpoint, and a last file that says that it is whole."""
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            self.projections.save(folder)
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_whole(folder, self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.projections.load(Path(resume_from_checkpoint))


@dataclass(frozen=True)
class Call:
    """What the listening forward is to do: run the body for a batch and form the losses."""

    objective: Objective
    batch: Batch
    losses: Callable[[Any, Mapping[Any, torch.Tensor], Any], Parts]

    def __call__(self, core: Any, **inputs: Any) -> dict[str, Any]:
        objective, rows_N = self.objective, self.batch.rows_N
        layers = {own for own, _ in objective.attention.pairs} if objective.attention else set()
        states = [own for own, _ in objective.hidden.pairs] if objective.hidden else []
        config = core.config.get_text_config()
        if getattr(config, "output_router_logits", False):
            inputs["output_router_logits"] = True
        if states:
            inputs["output_hidden_states"] = True
        with capture_attention(core, layers) if layers else nullcontext({}) as attention:
            out = core.base_model(**inputs)
        hidden: dict[Any, torch.Tensor] = {"last": out.last_hidden_state.flatten(0, 1)[rows_N]}
        for layer in states:
            hidden[layer] = out.hidden_states[layer].flatten(0, 1)[rows_N]
        parts = self.losses(core, hidden, attention)
        # plain dictionaries: FSDP looks for the tensors that backward starts from
        router = getattr(out, "router_logits", None)
        return {"terms": parts.terms, "means": parts.means, "router_logits": router}


def _listen(core: Any) -> None:
    """Let the causal model's forward take `losses=Call`; every other call is as before."""
    original = core.forward

    @functools.wraps(type(core).forward)
    def forward(self: Any, *args: Any, losses: Call | None = None, **kwargs: Any) -> Any:
        if losses is None:
            return original(*args, **kwargs)
        return losses(self, **kwargs)

    core.forward = types.MethodType(forward, core)


class _whole_head:  # noqa: N801 - reads as a statement
    """The head with whole weights and the states in the dtype that products run in."""

    def __init__(self, core: Any, hidden_ND: torch.Tensor) -> None:
        head = read_head(core)
        weight, bias = head.weight_VD, head.bias_V
        if isinstance(weight, DTensor):
            weight = weight.full_tensor()
            bias = bias.full_tensor() if isinstance(bias, DTensor) else bias
        kind = hidden_ND.device.type
        dtype = hidden_ND.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        layer: Any = core.get_output_embeddings()
        bias_of: Any = getattr(layer, "bias", None)
        self._gather = maybe_gather_lm_head_ctx(layer.weight, bias_of)
        self._parts = (head, weight, bias, dtype, hidden_ND)

    def __enter__(self) -> tuple[Any, torch.Tensor]:
        self._gather.__enter__()
        head, weight, bias, dtype, hidden_ND = self._parts
        bias = None if bias is None else bias.to(dtype)
        return replace(head, weight_VD=weight.to(dtype), bias_V=bias), hidden_ND.to(dtype)

    def __exit__(self, *error: Any) -> None:
        self._gather.__exit__(*error)


@torch.no_grad()
def _check_head(core: Any) -> None:
    """The student's head is read, not called: one of an unknown kind is refused."""
    training = core.training
    check_head(core.eval(), read_head(core))
    core.train(training)


class _Keeping(TrainerCallback):
    """Keeps what stands outside of the student in step with the run."""

    def __init__(self, metrics_file: MetricsFile, projections: Projections) -> None:
        self.metrics_file, self.projections = metrics_file, projections

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A resumed run continues its metrics file from the step of its checkpoint."""
        self.metrics_file.keep_until(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The trainer clears the gradients of the student alone; the last step is always logged."""
        self.projections.zero_grad()
        if state.global_step == state.max_steps:
            control.should_log = True


def _refuse_lacking(objective: Objective, teacher: SignalTeacher | None) -> None:
    gives = frozenset() if teacher is None else teacher.gives
    lacking = sorted(objective.needs - gives)
    if lacking:
        raise ModelError(
            "the teacher does not give what a loss needs",
            where=type(teacher).__name__ if teacher is not None else "no teacher",
            found=f"needed {', '.join(lacking)}; given {', '.join(sorted(gives)) or 'nothing'}",
            next_step="drop that loss, or use a teacher in process",
        )
