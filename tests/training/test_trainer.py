"""The trainer on tiny models: what TRL's features leave as it is, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preceptor.core.errors import DataError, ModelError, SettingsError
from tests.training.conftest import ATTENTION, PREDICTION, ROWS


def loss_and_gradients(trainer: Any, places: range = range(3)) -> tuple[float, dict[str, Any]]:
    batch = trainer.data_collator([trainer.train_dataset[place] for place in places])
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    found = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return float(loss.detach()), found


def assert_same(first: tuple[float, Any], second: tuple[float, Any], rel: float = 1e-5) -> None:
    import torch

    assert first[0] == pytest.approx(second[0], rel=rel)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(gradient, second[1][name], rtol=1e-3, atol=rel * size + 1e-9)


def test_gradient_checkpointing_changes_nothing(make_trainer: Any) -> None:
    plain = loss_and_gradients(make_trainer([PREDICTION, ATTENTION]))
    saving = loss_and_gradients(
        make_trainer([PREDICTION, ATTENTION], activation_checkpointing=True)
    )
    assert_same(plain, saving)


def test_packed_documents_give_the_loss_of_padded_ones(make_trainer: Any) -> None:
    padded = loss_and_gradients(make_trainer([PREDICTION, ATTENTION], mix=0.5))
    trainer = make_trainer([PREDICTION, ATTENTION], mix=0.5, padding_free=True)
    assert_same(padded, loss_and_gradients(trainer), rel=1e-4)


def test_lora_learns_from_both_losses_and_leaves_the_rest(load: Any, make_trainer: Any) -> None:
    from peft import LoraConfig

    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(
        [ATTENTION], student=load("student", seed=5), more={"peft_config": lora}, max_steps=2
    )
    _, gradients = loss_and_gradients(trainer)
    assert gradients and all("lora_" in name for name in gradients)
    moved = [n for n, g in gradients.items() if "q_proj.lora_B" in n and g.abs().max() > 0]
    assert len(moved) == 2, "the attention loss reaches the queries' adapters of both layers"
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    changed = {n for n, p in trainer.model.named_parameters() if not p.equal(before[n])}
    assert changed and all("lora_" in name for name in changed)


def test_sample_mean_weighs_documents_alike(make_trainer: Any) -> None:
    """Rows of 4, 3 and 2 scored tokens: the mean over rows of their token means."""
    alone = []
    for place in range(3):
        trainer = make_trainer([PREDICTION])
        alone.append(loss_and_gradients(trainer, range(place, place + 1))[0])
    together, _ = loss_and_gradients(make_trainer([PREDICTION], mean="samples"))
    assert together == pytest.approx(sum(alone) / 3, rel=1e-5)
    by_tokens, _ = loss_and_gradients(make_trainer([PREDICTION]))
    wanted = (4 * alone[0] + 3 * alone[1] + 2 * alone[2]) / 9
    assert by_tokens == pytest.approx(wanted, rel=1e-5)


def test_accumulated_batches_give_the_step_of_one_large_batch(make_trainer: Any) -> None:
    import torch

    whole = make_trainer(
        [PREDICTION, ATTENTION], per_device_train_batch_size=6, max_steps=1, optim="sgd"
    )
    parts = make_trainer(
        [PREDICTION, ATTENTION],
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
        max_steps=1,
        optim="sgd",
    )
    for trainer in (whole, parts):
        trainer.train()
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_moe_student_keeps_its_load_balancing_loss(load: Any, make_trainer: Any) -> None:
    options = {"architecture": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    student = load("moe-student", seed=8, **options)
    trainer = make_trainer([PREDICTION], student=student, router_aux_loss_coef=0.5)
    loss, gradients = loss_and_gradients(trainer)
    aux = trainer._metrics["train"]["aux_loss"][-1]
    without, _ = loss_and_gradients(
        make_trainer(
            [PREDICTION], student=load("moe-student", seed=8, **options), router_aux_loss_coef=0.0
        )
    )
    assert aux >= 1.0  # a perfectly even router has 1 times top-k / top-k
    assert loss == pytest.approx(without + 0.5 * aux, rel=1e-4)
    assert any("gate" in name and g.abs().max() > 0 for name, g in gradients.items())


def test_metrics_of_every_step_with_each_losss_own_gradient(
    make_trainer: Any, tmp_path: Path
) -> None:
    place = tmp_path / "metrics.jsonl"
    trainer = make_trainer(
        [PREDICTION, ATTENTION], mix=0.5, max_steps=3, more={"metrics_file": place}
    )
    trainer.train()
    rows = [json.loads(line) for line in place.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        parts = 0.5 * row["next_token"] + 0.5 * (row["divergence"] + row["attention"])
        assert row["loss"] == pytest.approx(parts, rel=1e-4)
        for name in ("next_token", "divergence", "attention"):
            assert row[f"grad_norm.{name}"] > 0
        assert row["tokens_per_second"] > 0 and row["peak_memory_mb"] > 0
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_split_gradients_sum_to_the_whole(make_trainer: Any) -> None:
    """The norm of one loss alone is the whole gradient's norm where there is one loss."""
    import torch

    trainer = make_trainer([PREDICTION], max_steps=1, max_grad_norm=0.0, optim="sgd")
    _, gradients = loss_and_gradients(trainer)
    whole = torch.sqrt(sum((g.square().sum() for g in gradients.values()), torch.zeros(())))
    trainer = make_trainer([PREDICTION, ATTENTION], mix=1.0, max_steps=1)
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(3)])
    trainer.state.logging_steps = 1
    trainer.model.train()
    trainer.compute_loss(trainer.model, dict(batch))
    found = trainer._metrics["train"]["grad_norm.divergence"][-1]
    assert found == pytest.approx(float(whole), rel=1e-4)


@pytest.mark.parametrize("name", ["hidden_mse", "hidden_cosine"])
def test_hidden_states_with_a_learned_projection(
    load: Any, make_trainer: Any, tmp_path: Path, name: str
) -> None:
    from transformers import AutoModelForCausalLM

    from preceptor.teachers.in_process import InProcessTeacher
    from preceptor.training.checkpoints import last_checkpoint

    wide = load("wide-teacher", seed=9, hidden_size=48, num_hidden_layers=4)
    hidden = {"name": name, "weight": 1.0, "layers": "uniform"}
    trainer = make_trainer(
        [hidden],
        teacher=InProcessTeacher(wide),
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        logging_steps=1,
    )
    assert [tuple(p.shape) for p in trainer.projections.parameters()] == [(48, 32), (48, 32)]
    before = [p.clone() for p in trainer.projections.parameters()]
    trainer.train()
    assert all(
        not p.equal(q) for p, q in zip(trainer.projections.parameters(), before, strict=True)
    )
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0]
    last = last_checkpoint(Path(trainer.args.output_dir))
    assert last is not None and last.endswith("checkpoint-4")
    AutoModelForCausalLM.from_pretrained(last)  # a plain checkpoint: no keys of ours
    again = make_trainer([hidden], teacher=InProcessTeacher(wide))
    again.projections.load(Path(last))
    for one, other in zip(
        again.projections.parameters(), trainer.projections.parameters(), strict=True
    ):
        assert one.equal(other)


def test_a_trl_user_needs_ten_lines(tiny_model: Callable[..., Path], chat_template: str) -> None:
    import datasets
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_config import SFTConfig

    from preceptor.teachers.in_process import InProcessTeacher
    from preceptor.training.objective import build_objective
    from preceptor.training.trainer import DistillTrainer

    student = tiny_model("chat-student", chat_template=chat_template, seed=11)
    teacher = tiny_model("chat-teacher", chat_template=chat_template, seed=12)
    rows = [{"prompt": "Name a colour.", "completion": " Blue."}] * 4
    trainer = DistillTrainer(
        AutoModelForCausalLM.from_pretrained(student),
        teacher=InProcessTeacher(AutoModelForCausalLM.from_pretrained(teacher)),
        objective=build_objective(0.5, [PREDICTION], "tokens"),
        args=SFTConfig(
            output_dir=str(student / "out"), max_steps=1, report_to="none", use_cpu=True,
            bf16=False, save_strategy="no", disable_tqdm=True, activation_checkpointing=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.log_history[-1]["train_loss"] > 0


def test_a_loss_that_is_not_finite_stops_with_the_batch_kept(load: Any, make_trainer: Any) -> None:
    import torch

    trainer = make_trainer([PREDICTION], max_steps=2)
    with torch.no_grad():
        trainer.model.lm_head.weight[3] = float("nan")
    with pytest.raises(DataError, match="not a finite number") as caught:
        trainer.train()
    assert "bad-batch-0.json" in str(caught.value)
    kept = json.loads((Path(trainer.args.output_dir) / "bad-batch-0.json").read_text())
    assert kept["step"] == 1
    assert [row[:2] for row in kept["input_ids"]] and len(kept["input_ids"]) == 3


def test_a_teacher_without_the_signal_is_refused(load: Any, make_trainer: Any) -> None:
    from preceptor.teachers.in_process import InProcessTeacher
    from preceptor.teachers.routed import RoutedTeacher

    routed = RoutedTeacher({"a": InProcessTeacher(load("teacher", seed=6))})
    with pytest.raises(ModelError, match="does not give what a loss needs"):
        make_trainer([ATTENTION], teacher=routed)
    with pytest.raises(ModelError, match="no teacher"):
        make_trainer([PREDICTION], teacher=None)
    with pytest.raises(SettingsError, match="packing joins them"):
        make_trainer([PREDICTION], teacher=routed, padding_free=True)


def test_routed_rows_learn_from_their_own_teacher(load: Any, make_trainer: Any) -> None:
    """Half the rows from each teacher: the token-weighted mean of both teachers' losses."""
    from preceptor.teachers.in_process import InProcessTeacher
    from preceptor.teachers.routed import RoutedTeacher

    def opened() -> dict[str, Any]:
        wide = load("wide-teacher", seed=9, hidden_size=48, num_hidden_layers=4)
        return {"one": InProcessTeacher(load("teacher", seed=6)), "two": InProcessTeacher(wide)}

    rows = ROWS | {"route": ["one", "two", "one", "two", "one", "two"]}
    mixed, _ = loss_and_gradients(
        make_trainer([PREDICTION], teacher=RoutedTeacher(opened()), rows=rows), range(6)
    )
    total = 0.0
    for name, teacher in opened().items():
        places = [place for place, route in enumerate(rows["route"]) if route == name]
        own = {column: [ROWS[column][place] for place in places] for column in ROWS}
        trainer = make_trainer([PREDICTION], teacher=teacher, rows=own)
        scored = sum(label != -100 for row in own["labels"] for label in row[1:])
        total += scored * loss_and_gradients(trainer)[0]
    scored = sum(label != -100 for row in ROWS["labels"] for label in row[1:])
    assert mixed == pytest.approx(total / scored, rel=1e-5)
    lost = make_trainer(
        [PREDICTION], teacher=RoutedTeacher(opened()), rows=ROWS | {"route": ["three"] * 6}
    )
    with pytest.raises(DataError, match="teacher that is not there"):
        loss_and_gradients(lost)


def test_evaluation_reports_the_same_losses(make_trainer: Any) -> None:
    trainer = make_trainer([PREDICTION, ATTENTION], mix=0.5)
    found = trainer.evaluate(trainer.train_dataset)
    parts = 0.5 * found["eval_next_token"] + 0.5 * (
        found["eval_divergence"] + found["eval_attention"]
    )
    assert found["eval_loss"] == pytest.approx(parts, rel=0.2)  # means of batches of unlike size


def test_reverse_and_skewed_divergences_train(make_trainer: Any) -> None:
    for entry in (
        replace_in(PREDICTION, name="reverse_kl", temperature=2.0),
        replace_in(PREDICTION, name="jsd", parameters={"beta": 0.5}),
        replace_in(PREDICTION, name="skew_forward_kl", parameters={"alpha": 0.1}),
        replace_in(PREDICTION, name="skew_reverse_kl", parameters={"alpha": 0.1}),
    ):
        trainer = make_trainer([entry], max_steps=6)
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        assert losses[-1] < losses[0], entry["name"]


def replace_in(entry: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**entry, **values}


@pytest.mark.parametrize(
    ("mix", "losses", "text"),
    [
        (1.2, [PREDICTION], "outside \\[0, 1\\]"),
        (0.5, [], "nothing to mix"),
        (0.5, [PREDICTION, PREDICTION], "two losses of one kind"),
        (0.5, [replace_in(PREDICTION, weight=0)], "positive weight"),
        (0.5, [replace_in(PREDICTION, temperature=None)], "needs `temperature`"),
        (0.5, [replace_in(ATTENTION, layers=None)], "needs `layers`"),
        (0.5, [replace_in(PREDICTION, name="jsd")], "other parameters"),
        (0.5, [replace_in(PREDICTION, name="forward_lk")], "did you mean 'forward_kl'"),
    ],
)
def test_an_objective_that_cannot_be_is_refused(mix: float, losses: Any, text: str) -> None:
    from preceptor.training.objective import build_objective

    with pytest.raises(SettingsError, match=text):
        build_objective(mix, losses, "tokens")


def test_mix_zero_needs_no_teacher() -> None:
    from preceptor.training.objective import build_objective

    objective = build_objective(0.0, [PREDICTION, ATTENTION], "tokens")
    assert objective.needs == frozenset() and objective.names == ("next_token",)
    assert replace(objective, mix=0.1).needs == {"logits", "attention"}
