"""Teachers during training: in process, routed, ensembles; and the head check they stand on.

B samples, T tokens, N scored positions, K of one teacher, V vocabulary.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from preceptor.core.errors import DataError, ModelError, SettingsError
from preceptor.core.plugs import plug
from preceptor.data.rendering import Renderer
from preceptor.data.signal_store import StoreReader
from preceptor.kernels.linear_divergence import DenseRows, MixtureRows, linear_divergence
from preceptor.losses.forward_kl import forward_kl
from preceptor.models.head import check_head, plain_logits, read_head
from preceptor.models.load import load_causal_lm, open_card, tokenizer_fingerprint
from preceptor.models.signals import Batch, SignalTeacher
from preceptor.teachers import SIGNAL_TEACHERS
from preceptor.teachers.cached import CachedTeacher
from preceptor.teachers.ensemble import EnsembleTeacher
from preceptor.teachers.in_process import InProcessTeacher, open_in_process, weights_fingerprint
from preceptor.teachers.routed import RoutedTeacher
from preceptor.training.storing import Form, write_store

CPU = torch.device("cpu")
LOGITS, ALL = frozenset({"logits"}), frozenset({"logits", "attention", "hidden"})
INSTRUCTIONS = ("Where is the cat?", "Name the colour of the sky.", "Add.", "Say the sum of two.")
RESPONSES = ("In the house.", "It is blue, as the garden is not.", "Three, and one is two.", "Four")


@pytest.fixture(scope="module")
def folders(tiny_model: Callable[..., Path]) -> dict[str, Path]:
    """Two architectures of other hidden sizes and depths over one tokenizer."""
    return {
        "reference": tiny_model("reference-teacher", seed=11),
        "expert": tiny_model(
            "expert-teacher",
            architecture="qwen3",
            seed=12,
            hidden_size=48,
            num_hidden_layers=3,
            head_dim=16,
        ),
    }


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: AutoModelForCausalLM.from_pretrained(path) for name, path in folders.items()}


@pytest.fixture(scope="module")
def rendered(folders: dict[str, Path]) -> list[Any]:
    card = open_card(str(folders["reference"]))
    return Renderer(card.tokenizer, card.limit).render(INSTRUCTIONS, RESPONSES)


@pytest.fixture(scope="module")
def batch(rendered: list[Any]) -> Batch:
    return make_batch(rendered)


def make_batch(rendered: Sequence[Any], left: bool = False, route: Sequence[int] = ()) -> Batch:
    """All samples, as a padding collator gives them, with position numbers."""
    width = max(len(sample.ids) for sample in rendered)
    ids_BT = torch.zeros((len(rendered), width), dtype=torch.long)
    segments_BT = torch.full_like(ids_BT, -1)
    rows: list[int] = []
    for row, sample in enumerate(rendered):
        size = len(sample.ids)
        start = width - size if left else 0
        ids_BT[row, start : start + size] = torch.tensor(sample.ids)
        segments_BT[row, start : start + size] = 0
        end = row * width + start + size - 1
        rows.extend(range(end - sample.n_response, end))
    mask_BT = (segments_BT >= 0).long()
    inputs: dict[str, Any] = {"input_ids": ids_BT, "attention_mask": mask_BT}
    if not left:
        inputs["position_ids"] = torch.arange(width)[None]
    return Batch(
        inputs,
        torch.tensor(rows),
        segments_BT,
        torch.arange(len(rendered)),
        torch.tensor(list(route)) if route else None,
    )


def log_p(rows: Any, temperature: float = 1.0) -> torch.Tensor:
    """What rows of a teacher in process say, through the kernel's twin."""
    assert isinstance(rows, DenseRows)
    return rows.naive_log_p(rows.n_tokens, temperature)


def own_log_p(model: Any, batch: Batch, temperature: float = 1.0) -> torch.Tensor:
    """The model's own logits at the scored positions."""
    with torch.no_grad():
        logits_BTV = model(**batch.inputs, use_cache=False).logits
    return torch.log_softmax(logits_BTV.flatten(0, 1)[batch.rows_N] / temperature, 1)


def divergence(student: Any, batch: Batch, rows: Sequence[Any]) -> tuple[Any, torch.Tensor]:
    """Forward KL of every position from the student, and its gradient to the hidden states."""
    out = student.base_model(**batch.inputs, use_cache=False).last_hidden_state
    hidden_ND = out.flatten(0, 1)[batch.rows_N]
    losses = linear_divergence(
        hidden_ND,
        read_head(student),
        batch.inputs["input_ids"].flatten()[batch.rows_N + 1],
        torch.ones(len(batch.rows_N)),
        teacher=rows,
        divergence=forward_kl,
        temperature=2.0,
        next_token_weight=0.0,
        divergence_weight=1.0,
    )
    [gradient_ND] = torch.autograd.grad(losses.loss, [hidden_ND])
    return losses.divergence_N, gradient_ND


class TokenCount:
    """Real and padded tokens that go through a model's body, and its forward passes."""

    def __init__(self, model: Any) -> None:
        self.real = self.padded = self.passes = 0
        self._hook = model.base_model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        self.passes += 1
        self.padded += kwargs["input_ids"].numel()
        self.real += int(kwargs["attention_mask"].sum())

    def __enter__(self) -> TokenCount:
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


# in process


@pytest.mark.parametrize("name", ["reference", "expert"])
@pytest.mark.parametrize("left", [False, True])
def test_hidden_states_times_head_are_the_model_s_own_logits(
    name: str, left: bool, models: dict[str, Any], rendered: list[Any]
) -> None:
    batch = make_batch(rendered, left)
    teacher = InProcessTeacher(models[name])
    assert teacher.gives == ALL and not teacher.per_sample
    [rows] = teacher.signals(batch, LOGITS).logits
    assert rows.index_K is None
    torch.testing.assert_close(
        log_p(rows, 2.0), own_log_p(models[name], batch, 2.0), rtol=1e-5, atol=1e-5
    )


def test_hidden_states_are_numbered_from_the_embedding_to_the_last_norm(
    models: dict[str, Any], batch: Batch
) -> None:
    model = models["expert"]
    with torch.no_grad():
        out = model.base_model(**batch.inputs, use_cache=False, output_hidden_states=True)
    found = InProcessTeacher(model).signals(batch, frozenset({"hidden"}))
    assert list(found.hidden) == [0, 1, 2, 3] and not found.logits and not found.attention
    for layer, states_ND in found.hidden.items():
        wanted = out.hidden_states[layer].flatten(0, 1)[batch.rows_N]
        assert torch.equal(states_ND, wanted)
    embedded = model.get_input_embeddings()(batch.inputs["input_ids"])
    assert torch.equal(found.hidden[0], embedded.flatten(0, 1)[batch.rows_N])
    last_ND = out.last_hidden_state.flatten(0, 1)[batch.rows_N]
    assert torch.equal(found.hidden[3], last_ND)
    some = InProcessTeacher(model, hidden_layers=[2]).signals(batch, ALL)
    assert list(some.hidden) == [2]
    with pytest.raises(ModelError, match="layers that the teacher does not have") as caught:
        InProcessTeacher(model, "expert", hidden_layers=[1, 4]).signals(batch, ALL)
    assert caught.value.found == "layers [4]" and caught.value.where == "expert"


def test_attention_is_that_of_the_model(models: dict[str, Any], batch: Batch) -> None:
    """softmax(query key^T * scaling) under the causal mask is what eager attention returns."""
    model = models["expert"]
    found = InProcessTeacher(model).signals(batch, ALL).attention
    assert list(found) == [0, 1, 2]
    eager: Any = AutoModelForCausalLM.from_pretrained(
        model.name_or_path, attn_implementation="eager"
    )
    with torch.no_grad():
        maps = eager(**batch.inputs, use_cache=False, output_attentions=True).attentions
    length = batch.segments_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool).tril()
    for layer, attention in found.items():
        query, key = attention.query_BHTC, attention.key_BGTC
        assert not query.requires_grad
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        scores = (query @ key.mT * attention.scaling).masked_fill(~causal_TT, -torch.inf)
        real = batch.segments_BT >= 0
        torch.testing.assert_close(
            scores.softmax(-1).transpose(1, 2)[real],
            maps[layer].transpose(1, 2)[real],
            rtol=1e-4,
            atol=1e-5,
        )
    only = InProcessTeacher(model, attention_layers=[1]).signals(batch, frozenset({"attention"}))
    assert list(only.attention) == [1] and not only.logits and not only.hidden


def test_only_what_is_needed_is_computed(models: dict[str, Any], batch: Batch) -> None:
    """One pass of the body a call, none where nothing is needed, and never the head."""
    teacher = InProcessTeacher(models["reference"])
    heads: list[int] = []
    hook = models["reference"].lm_head.register_forward_hook(lambda *_: heads.append(1))
    with TokenCount(models["reference"]) as count:
        signals = teacher.signals(batch, LOGITS)
        assert not signals.attention and not signals.hidden
        teacher.signals(batch, ALL)
        assert count.passes == 2
        nothing = teacher.signals(batch, frozenset())
        assert not nothing.logits and count.passes == 2
    hook.remove()
    assert heads == []


def test_signals_serve_a_student_s_backward_pass(models: dict[str, Any], batch: Batch) -> None:
    """They can be saved for backward, carry no gradient, and give the teacher none."""
    teacher, student = InProcessTeacher(models["expert"]), models["reference"]
    signals = teacher.signals(batch, ALL)
    [rows] = signals.logits
    assert isinstance(rows, DenseRows)
    tensors = [rows.hidden_KD, rows.head.weight_VD, *signals.hidden.values()]
    assert not any(tensor.requires_grad or tensor.is_inference() for tensor in tensors)
    value_N, gradient_ND = divergence(student, batch, signals.logits)
    p_NV, q_NV = (own_log_p(m, batch, 2.0) for m in (teacher.model, student))
    torch.testing.assert_close(value_N, (p_NV.exp() * (p_NV - q_NV)).sum(1), rtol=1e-4, atol=1e-5)
    # T^2 KL has the gradient T (q - p) by the logits
    wanted_ND = 2.0 * (q_NV.exp() - p_NV.exp()) @ read_head(student).weight_VD.detach()
    torch.testing.assert_close(gradient_ND, wanted_ND, rtol=1e-4, atol=1e-5)
    # a plain autograd function over the teacher's states works as well
    own_ND = torch.ones_like(rows.hidden_KD, requires_grad=True)
    (own_ND * rows.hidden_KD).sum().backward()
    assert own_ND.grad is not None and torch.equal(own_ND.grad, rows.hidden_KD)
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_a_teacher_is_in_eval_mode_and_ignores_autocast(
    folders: dict[str, Path], batch: Batch
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folders["reference"])
    teacher = InProcessTeacher(model.train())
    assert not model.training
    [wanted] = teacher.signals(batch, LOGITS).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        [found] = teacher.signals(batch, LOGITS).logits
    assert isinstance(wanted, DenseRows) and isinstance(found, DenseRows)
    assert found.hidden_KD.dtype == torch.float32
    assert torch.equal(found.hidden_KD, wanted.hidden_KD)


def test_offloading_changes_no_signal(folders: dict[str, Path], batch: Batch) -> None:
    """From the CPU to the CPU: the path is that of an accelerator, the copy is none."""
    kept = InProcessTeacher(AutoModelForCausalLM.from_pretrained(folders["expert"]))
    model: Any = AutoModelForCausalLM.from_pretrained(folders["expert"])
    moved = InProcessTeacher(model, offload=True)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    for _ in range(2):
        wanted, found = (teacher.signals(batch, ALL) for teacher in (kept, moved))
        assert torch.equal(log_p(found.logits[0]), log_p(wanted.logits[0]))
        assert all(torch.equal(found.hidden[n], wanted.hidden[n]) for n in wanted.hidden)
        assert [parameter.data_ptr() for parameter in model.parameters()] == places
        assert all(parameter.device == CPU for parameter in model.parameters())
    assert moved.fingerprint == kept.fingerprint


def test_weights_away_from_home_are_copies_and_the_head_outlives_the_pass(
    folders: dict[str, Path], batch: Batch
) -> None:
    """torch copies from `cpu` to `cpu:0`, so it stands for another device here."""
    model: Any = AutoModelForCausalLM.from_pretrained(folders["expert"])
    teacher = InProcessTeacher(model, offload=True)
    tensors = [*model.parameters(), *model.buffers()]
    home = [tensor.data_ptr() for tensor in tensors]
    wanted = own_log_p(model, batch)
    with teacher._on(torch.device("cpu", 0)), torch.no_grad():
        away = [tensor.data_ptr() for tensor in tensors]
        assert not set(away) & set(home)
        hidden_BTD = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
        head = teacher._head()
    assert [tensor.data_ptr() for tensor in tensors] == home
    assert head.weight_VD.data_ptr() in away
    found = log_p(DenseRows(hidden_BTD.flatten(0, 1)[batch.rows_N], head))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_offloaded_weights_go_home_after_a_failure(folders: dict[str, Path], batch: Batch) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folders["reference"])
    teacher = InProcessTeacher(model, offload=True)
    wanted = [parameter.data_ptr() for parameter in model.parameters()]
    with pytest.raises(TypeError):
        teacher.signals(replace(batch, inputs={"input_ids": "no tensor"}), LOGITS)
    assert [parameter.data_ptr() for parameter in model.parameters()] == wanted
    assert len(teacher.signals(batch, LOGITS).logits) == 1


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("gemma2", {"head_dim": 16, "final_logit_softcapping": 5.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 4.0}),
        ("gpt_neox", {}),
    ],
)
def test_the_head_check_knows_the_kinds_of_heads(
    architecture: str, more: dict[str, Any], tiny_model: Callable[..., Path]
) -> None:
    folder = tiny_model(f"headed-{architecture}", architecture=architecture, **more)
    for dtype in (torch.float32, torch.bfloat16):
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        head = read_head(model)
        check_head(model, head)
        wrong = replace(head, scale=head.scale * 1.1)
        with pytest.raises(ModelError, match="output layer is of a kind"):
            check_head(model, wrong, architecture)


def test_unknown_heads_and_models_without_one_are_refused(
    folders: dict[str, Path], tiny_model: Callable[..., Path]
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folders["reference"])
    head = read_head(model)
    narrow = replace(head, weight_VD=head.weight_VD[:-1])
    with pytest.raises(ModelError, match="output layer") as caught:
        check_head(model, narrow, "mine")
    n_tokens = head.weight_VD.shape[0]
    assert caught.value.found == f"{n_tokens - 1} logits, the model gives {n_tokens}"
    assert caught.value.where == "mine"
    forward = model.forward

    def nan(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * torch.nan
        return out

    model.forward = nan
    with pytest.raises(ModelError, match="output layer"):
        InProcessTeacher(model)


def test_plain_logits_by_hand() -> None:
    # (1 * 3 + 2 * 4 + 1) * 0.5 = 6, capped: 2 tanh(6 / 2)
    head = replace(read_head_of([[3.0, 4.0]], [1.0]), scale=0.5, softcap=2.0)
    found = plain_logits(torch.tensor([[1.0, 2.0]]), head)
    torch.testing.assert_close(found, torch.tensor([[2 * 0.9950548]]))


def read_head_of(weight: list[list[float]], bias: list[float]) -> Any:
    from preceptor.models.head import Head

    return Head(torch.tensor(weight), torch.tensor(bias))


def test_fingerprints_tell_weights_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    one: Any = AutoModelForCausalLM.from_pretrained(folders["reference"])
    two: Any = AutoModelForCausalLM.from_pretrained(folders["reference"])
    assert weights_fingerprint(one) == weights_fingerprint(two)
    assert weights_fingerprint(one) != weights_fingerprint(two.to(torch.bfloat16))
    one.lm_head.weight.data[0, 0] += 1
    two = AutoModelForCausalLM.from_pretrained(folders["reference"])
    assert weights_fingerprint(one) != weights_fingerprint(two)
    assert InProcessTeacher(two).fingerprint == weights_fingerprint(two)
    card = open_card(str(folders["reference"]))
    assert open_in_process(card, torch.float32, CPU).fingerprint == card.fingerprint
    offloaded = open_in_process(card, torch.float32, CPU, offload=True, hidden_layers=[1])
    assert offloaded.name == card.reference and offloaded.config.num_hidden_layers == 2


def test_tokenizer_fingerprints_see_vocabulary_specials_and_template(
    tiny_model: Callable[..., Path], make_tokenizer: Callable[..., Any], chat_template: str
) -> None:
    card = open_card(str(tiny_model("base")))
    same = open_card(str(tiny_model("reference-teacher", seed=11)))
    assert tokenizer_fingerprint(card) == tokenizer_fingerprint(same)
    special = make_tokenizer()
    special.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    others = [
        replace(card, tokenizer=tokenizer)
        for tokenizer in (
            make_tokenizer(chat_template=chat_template),
            make_tokenizer(bos=False),
            make_tokenizer(vocab=300),
            special,
        )
    ]
    found = {tokenizer_fingerprint(other) for other in [card, *others]}
    assert len(found) == 5
    card.tokenizer("calls do not change it", truncation=True, padding="max_length")
    assert tokenizer_fingerprint(card) == tokenizer_fingerprint(same)


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed"
)
@pytest.mark.parametrize("load_in", ["4bit", "8bit"])
def test_quantised_loading_says_what_it_needs(load_in: Any, folders: dict[str, Path]) -> None:
    card = open_card(str(folders["reference"]))
    with pytest.raises(ModelError, match=f"loading in {load_in} needs bitsandbytes") as caught:
        load_causal_lm(card, torch.float32, CPU, load_in=load_in)
    assert "pip install bitsandbytes" in caught.value.next_step
    with pytest.raises(ModelError, match="needs bitsandbytes"):
        open_in_process(card, torch.float32, CPU, load_in=load_in)


@pytest.mark.parametrize("name", list(SIGNAL_TEACHERS))
def test_every_name_on_the_shelf_is_found(name: str) -> None:
    assert callable(plug("teacher", SIGNAL_TEACHERS, name))


# routed


def routed(models: dict[str, Any]) -> RoutedTeacher:
    return RoutedTeacher({name: InProcessTeacher(model) for name, model in models.items()})


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("route", [[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
def test_each_sample_is_taught_by_its_own_teacher(
    route: list[int], left: bool, models: dict[str, Any], rendered: list[Any]
) -> None:
    """The teachers differ in architecture, depth and hidden size; positions keep their places."""
    batch = make_batch(rendered, left, route)
    parts = routed(models).signals(batch, LOGITS).logits
    wanted = [own_log_p(model, batch) for model in models.values()]
    owner_N = torch.tensor(route)[batch.rows_N // batch.segments_BT.shape[1]]
    seen: list[int] = []
    for part in parts:
        assert part.index_K is not None
        [number] = owner_N[part.index_K].unique().tolist()
        torch.testing.assert_close(log_p(part), wanted[number][part.index_K], rtol=1e-4, atol=1e-4)
        seen += part.index_K.tolist()
    assert sorted(seen) == list(range(len(batch.rows_N)))
    assert len(parts) == len(set(route))


def test_a_routed_loss_is_that_of_choosing_after_running_both(
    models: dict[str, Any], rendered: list[Any], base: Path
) -> None:
    student: Any = AutoModelForCausalLM.from_pretrained(base)
    batch = make_batch(rendered, route=[1, 0, 1, 0])
    found, gradient = divergence(student, batch, routed(models).signals(batch, LOGITS).logits)
    owner_N = torch.tensor([1, 0, 1, 0])[batch.rows_N // batch.segments_BT.shape[1]]
    both = [
        divergence(student, batch, InProcessTeacher(model).signals(batch, LOGITS).logits)
        for model in models.values()
    ]
    wanted = torch.where(owner_N == 0, both[0][0], both[1][0])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    wanted_ND = torch.where(owner_N[:, None] == 0, both[0][1], both[1][1])
    torch.testing.assert_close(gradient, wanted_ND, rtol=1e-4, atol=1e-5)


def test_every_sample_costs_one_forward_pass(models: dict[str, Any], rendered: list[Any]) -> None:
    """Counted by hooks: each teacher reads its own samples only, padded to the longest of them."""
    route = [0, 1, 0, 0]
    batch = make_batch(rendered, route=route)
    sizes = [len(sample.ids) for sample in rendered]
    teacher = routed(models)
    with TokenCount(models["reference"]) as zero, TokenCount(models["expert"]) as one:
        teacher.signals(batch, LOGITS)
    assert zero.passes == one.passes == 1
    own = [sizes[0], sizes[2], sizes[3]]
    assert (zero.real, one.real) == (sum(own), sizes[1])
    assert (zero.padded, one.padded) == (3 * max(own), sizes[1])
    assert max(own) < max(sizes) == sizes[1]  # so the first teacher's padding was cut
    with TokenCount(models["expert"]) as unused:
        teacher.signals(make_batch(rendered, route=[0] * 4), LOGITS)
        teacher.signals(batch, frozenset())
        rows_N = batch.rows_N[batch.rows_N // batch.segments_BT.shape[1] != 1]
        teacher.signals(replace(batch, rows_N=rows_N), LOGITS)  # its sample scores nothing
    assert unused.passes == 0


def test_padding_on_the_left_is_left_as_it_is(models: dict[str, Any], rendered: list[Any]) -> None:
    batch = make_batch(rendered, left=True, route=[0, 1, 0, 0])
    teacher = routed(models)
    with TokenCount(models["reference"]) as zero:
        teacher.signals(batch, LOGITS)
    assert zero.padded == 3 * batch.segments_BT.shape[1]


def test_inputs_of_every_shape_are_split(models: dict[str, Any], rendered: list[Any]) -> None:
    """A mask of queries and keys, positions for each row, and a flag, beside the ids."""
    batch = make_batch(rendered, route=[0, 1, 0, 0])
    length = batch.segments_BT.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (causal & (batch.segments_BT >= 0)[:, None, :])[:, None]
    inputs = {
        "input_ids": batch.inputs["input_ids"],
        "attention_mask": torch.where(mask, 0.0, -1e9),
        "position_ids": torch.arange(length).expand(4, length),
        "output_attentions": False,
    }
    parts = routed(models).signals(replace(batch, inputs=inputs), LOGITS).logits
    wanted = routed(models).signals(batch, LOGITS).logits
    for found, expected in zip(parts, wanted, strict=True):
        assert found.index_K is not None and expected.index_K is not None
        assert torch.equal(found.index_K, expected.index_K)
        torch.testing.assert_close(log_p(found), log_p(expected), rtol=1e-4, atol=1e-4)


def test_routes_that_lead_nowhere_are_refused(
    models: dict[str, Any], rendered: list[Any], batch: Batch
) -> None:
    teacher = routed(models)
    assert teacher.names == ("reference", "expert") and teacher.per_sample
    with pytest.raises(DataError, match="does not say which teacher"):
        teacher.signals(batch, LOGITS)
    for route in (2, -1):
        with pytest.raises(DataError, match="a teacher that is not there") as caught:
            teacher.signals(make_batch(rendered, route=[0, 1, route, 0]), LOGITS)
        assert caught.value.where == "row 2 of the batch"
        assert caught.value.found == f"teacher {route}, there are 0 to 1 (reference, expert)"
    packed_BT = batch.segments_BT.clone()
    packed_BT[0, 3:] = torch.where(packed_BT[0, 3:] >= 0, 1, -1)
    packed = replace(make_batch(rendered, route=[0, 1, 0, 0]), segments_BT=packed_BT)
    with pytest.raises(DataError, match="packed rows cannot be routed") as caught:
        teacher.signals(packed, LOGITS)
    assert caught.value.next_step == "turn packing off"
    with pytest.raises(ModelError, match="gives logits only"):
        teacher.signals(batch, frozenset({"logits", "hidden"}))
    with pytest.raises(ModelError, match="needs teachers that give logits"):
        RoutedTeacher({})


def test_a_stored_teacher_can_stand_among_routed_ones(
    models: dict[str, Any], rendered: list[Any], tmp_path: Path
) -> None:
    """Sample numbers go along with their rows."""
    reference, expert = (InProcessTeacher(model) for model in models.values())
    form = Form("top_k", reference.vocabulary, 2.0)
    write_store(tmp_path, expert, rendered, form, tokenizer_fingerprint="", device=CPU)
    stored: SignalTeacher = CachedTeacher(StoreReader(tmp_path))
    batch = make_batch(rendered, route=[0, 1, 0, 1])
    student = models["reference"]
    live, half = (
        divergence(student, batch, RoutedTeacher(pair).signals(batch, LOGITS).logits)[0]
        for pair in ({"a": reference, "b": expert}, {"a": reference, "b": stored})
    )
    assert live.max() > 0.1
    torch.testing.assert_close(half, live, rtol=1e-2, atol=1e-3)  # stored as float16


def test_fingerprints_of_routes_and_ensembles_name_their_teachers(models: dict[str, Any]) -> None:
    one, two = (InProcessTeacher(model, fingerprint=name) for name, model in models.items())
    assert RoutedTeacher({"a": one, "b": two}).fingerprint == "routed (a: reference, b: expert)"
    mixed = EnsembleTeacher({"a": one, "b": two}, [0.25, 0.75], "geometric")
    assert mixed.fingerprint == "geometric mixture (0.25 a: reference, 0.75 b: expert)"


# ensembles


@pytest.mark.parametrize("kind", ["probability", "geometric"])
def test_an_ensemble_is_the_mixture_of_its_teachers(
    kind: Any, models: dict[str, Any], batch: Batch, base: Path
) -> None:
    teachers = {name: InProcessTeacher(model) for name, model in models.items()}
    mixed = EnsembleTeacher(teachers, [0.3, 0.7], kind)
    assert mixed.gives == LOGITS and not mixed.per_sample
    [rows] = mixed.signals(batch, LOGITS).logits
    assert isinstance(rows, MixtureRows) and rows.index_K is None
    one_NV, two_NV = (own_log_p(model, batch, 2.0) for model in models.values())
    if kind == "probability":
        p_NV = (0.3 * one_NV.exp() + 0.7 * two_NV.exp()).log()
    else:
        p_NV = torch.log_softmax(0.3 * one_NV + 0.7 * two_NV, 1)
    student: Any = AutoModelForCausalLM.from_pretrained(base)
    q_NV = own_log_p(student, batch, 2.0)
    value_N, gradient_ND = divergence(student, batch, [rows])
    torch.testing.assert_close(value_N, (p_NV.exp() * (p_NV - q_NV)).sum(1), rtol=1e-4, atol=1e-5)
    wanted_ND = 2.0 * (q_NV.exp() - p_NV.exp()) @ read_head(student).weight_VD.detach()
    torch.testing.assert_close(gradient_ND, wanted_ND, rtol=1e-4, atol=1e-5)


def test_a_teacher_without_weight_is_not_run(models: dict[str, Any], batch: Batch) -> None:
    teachers = {name: InProcessTeacher(model) for name, model in models.items()}
    with TokenCount(models["expert"]) as unused, TokenCount(models["reference"]) as used:
        mixed = EnsembleTeacher(teachers, [1.0, 0.0], "probability")
        [rows] = mixed.signals(batch, LOGITS).logits
        assert mixed.signals(batch, frozenset()).logits == ()
    assert (unused.passes, used.passes) == (0, 1)
    assert isinstance(rows, MixtureRows) and len(rows.parts) == 1


def test_weights_that_are_no_distribution_are_refused(models: dict[str, Any], batch: Batch) -> None:
    teachers = {name: InProcessTeacher(model) for name, model in models.items()}
    for weights in ([0.5, 0.6], [1.5, -0.5], [0.0, 0.0], [float("nan"), 1.0]):
        with pytest.raises(SettingsError, match="no distribution") as caught:
            EnsembleTeacher(teachers, weights, "probability")
        assert str(weights) in caught.value.found
    for short in ([1.0], [0.5, 0.25, 0.25]):
        with pytest.raises(SettingsError, match="a weight for each teacher"):
            EnsembleTeacher(teachers, short, "probability")
    unknown: Any = "mean"
    with pytest.raises(SettingsError, match="unknown kind of mixture 'mean'"):
        EnsembleTeacher(teachers, [0.5, 0.5], unknown)
    mixed = EnsembleTeacher(teachers, [0.5, 0.5], "geometric")
    with pytest.raises(ModelError, match="gives logits only"):
        mixed.signals(batch, frozenset({"attention"}))
