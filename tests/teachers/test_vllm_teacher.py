"""The vLLM source over a stand-in for the engine (`stand_in/vllm`), which a CPU can run."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from preceptor.core.errors import ModelError, SettingsError
from preceptor.core.types import Decoding, Reply, Request, Runtime, TeacherSource, user_turn
from preceptor.data.rendering import prompt_ids
from preceptor.recipes.inputs.respondents import open_teacher
from preceptor.recipes.settings.shared import Fleet, TransformersTeacher, VllmTeacher
from preceptor.teachers.vllm import open_teacher as open_vllm

N_NEW = 12
RUNTIME = Runtime(device="cpu", dtype="float32")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, imported as `vllm`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stand_in"))
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_vllm(name)}
    module = importlib.import_module("vllm")
    assert module.__doc__ and "stand-in" in module.__doc__
    yield module
    for name in list(sys.modules):
        if _is_vllm(name):
            del sys.modules[name]
    sys.modules.update(before)


def _is_vllm(name: str) -> bool:
    return name == "vllm" or name.startswith("vllm.")


def opened(folder: Path, **more: Any) -> TeacherSource:
    return open_teacher(VllmTeacher(kind="vllm", model=str(folder), **more), RUNTIME)


def twin(folder: Path) -> TeacherSource:
    return open_teacher(TransformersTeacher(model=str(folder)), RUNTIME)


def asked(texts: tuple[str, ...], decoding: Decoding, **more: Any) -> list[Request]:
    return [Request(user_turn(text), decoding, **more) for text in texts]


def replies(source: TeacherSource, requests: list[Request]) -> list[Reply]:
    found: list[Any] = [None] * len(requests)
    groups = source.groups(requests)
    for number, answers in source.ask([[requests[place] for place in g] for g in groups]):
        for place, answer in zip(groups[number], answers, strict=True):
            found[place] = answer
    return found


def plain(found: list[Reply]) -> list[tuple[Any, ...]]:
    return [(r.response, r.finish_reason, r.n_generated, r.n_prompt) for r in found]


def test_greedy_answers_are_those_of_the_source_transformers(
    vllm: Any, chatter: Path, tmp_path: Path, instruction_texts: tuple[str, ...]
) -> None:
    """Two end tokens, neither the tokenizer's own: it does not end an answer here or there."""
    folder = tmp_path / "teacher"
    shutil.copytree(chatter, folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids = prompt_ids(tokenizer, user_turn(instruction_texts[0]))
    said = model.generate(torch.tensor([ids]), max_new_tokens=N_NEW, eos_token_id=None)
    words = said[0, len(ids) :].tolist()
    own = words[1]
    text = (folder / "tokenizer_config.json").read_text()
    eos = tokenizer.convert_ids_to_tokens(own)
    assert '"eos_token": "</s>"' in text
    (folder / "tokenizer_config.json").write_text(
        text.replace('"eos_token": "</s>"', f'"eos_token": {json.dumps(eos)}')
    )
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == own
    end = next(token for token in words[2:] if token not in words[:2])
    GenerationConfig(eos_token_id=[2, end], pad_token_id=0).save_pretrained(folder)

    requests = asked(instruction_texts, Decoding(max_new_tokens=N_NEW))
    found, wanted = replies(opened(folder), requests), replies(twin(folder), requests)
    assert plain(found) == plain(wanted)
    assert {reply.finish_reason for reply in found} == {"stop", "length"}
    assert found[0].finish_reason == "stop" and found[0].n_generated > 2
    for one, other in zip(found, wanted, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_the_prompts_are_ours_and_the_engine_is_told_what_the_setting_says(
    vllm: Any, chatter: Path, instruction_texts: tuple[str, ...]
) -> None:
    source = opened(chatter, tensor_parallel=2, gpu_memory=0.5, max_length=100, chunk=4)
    requests = asked(instruction_texts, Decoding(max_new_tokens=N_NEW))
    assert source.groups(requests) == [[0, 1, 2, 3], [4, 5]]
    replies(source, requests)
    llm = vllm.LLM.made[-1]
    assert llm.options == {
        "model": str(chatter),
        "trust_remote_code": False,
        "tensor_parallel_size": 2,
        "dtype": "float32",
        "gpu_memory_utilization": 0.5,
        "max_model_len": 100,
        "enable_prefix_caching": True,
        "enable_lora": False,
        "max_lora_rank": 8,
        "load_format": "safetensors",
        "generation_config": "vllm",
    }
    tokenizer = AutoTokenizer.from_pretrained(chatter)
    given = [prompt["prompt_token_ids"] for prompts, _, _ in llm.calls for prompt in prompts]
    assert given == [prompt_ids(tokenizer, user_turn(text)) for text in instruction_texts]


def test_every_request_has_sampling_parameters_of_its_own(
    vllm: Any, chatter: Path, instruction_texts: tuple[str, ...]
) -> None:
    warm = asked(instruction_texts[:2], Decoding(0.7, 0.9, 5), sample=1, run_seed=3)
    requests = [*warm, *asked(instruction_texts[:1], Decoding(max_new_tokens=7))]
    source = opened(chatter)
    found = replies(source, requests)
    [(_, given, lora)] = vllm.LLM.made[-1].calls
    assert lora is None
    assert [p.seed for p in given] == [warm[0].seed, warm[1].seed, None]
    assert [(p.temperature, p.top_p, p.max_tokens) for p in given] == [
        (0.7, 0.9, 5),
        (0.7, 0.9, 5),
        (0.0, 1.0, 7),
    ]
    assert all(p.stop_token_ids == [2] and p.ignore_eos and p.logprobs == 0 for p in given)
    assert replies(source, requests[::-1]) == found[::-1]


def test_labels_have_their_own_log_probabilities_or_none(
    vllm: Any, chatter: Path, instruction_texts: tuple[str, ...]
) -> None:
    """The likeliest and the least likely single-token words, against the model's own logits."""
    model: Any = AutoModelForCausalLM.from_pretrained(chatter)
    tokenizer: Any = AutoTokenizer.from_pretrained(chatter)
    ids = prompt_ids(tokenizer, user_turn(instruction_texts[0]))
    logp = model(input_ids=torch.tensor([ids])).logits[0, -1].detach().log_softmax(-1)
    order = logp.argsort(descending=True).tolist()
    alone = [t for t in order if tokenizer(tokenizer.decode([t]))["input_ids"] == [t]]
    likely, unlikely = alone[0], alone[-1]
    assert likely in order[:20] and unlikely not in order[:20]
    labels = (tokenizer.decode([unlikely]), tokenizer.decode([likely]))
    decoding = Decoding(max_new_tokens=1)
    requests = asked(instruction_texts[:1], decoding, labels=labels)
    requests += asked(instruction_texts[:1], decoding)
    with_labels, without = replies(opened(chatter), requests)
    missing, found = with_labels.label_logprobs
    assert missing is None and found == pytest.approx(float(logp[likely]), abs=1e-5)
    assert without.label_logprobs == ()
    [exact] = replies(twin(chatter), requests[:1])
    assert exact.label_logprobs == pytest.approx(
        (float(logp[unlikely]), float(logp[likely])), abs=1e-5
    )


@pytest.fixture
def adapter(chatter: Path, tmp_path: Path) -> Path:
    """A LoRA adapter of rank 12 that PEFT saved, and that changes what the model says."""
    from peft import LoraConfig, get_peft_model

    base: Any = AutoModelForCausalLM.from_pretrained(chatter)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(
            base, LoraConfig(r=12, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        )
    model.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_an_adapter_answers_as_the_merged_model(
    vllm: Any, chatter: Path, adapter: Path, tmp_path: Path, instruction_texts: tuple[str, ...]
) -> None:
    from peft import PeftModel

    base: Any = AutoModelForCausalLM.from_pretrained(chatter)
    merged: Any = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()  # type: ignore[operator]
    shutil.copytree(chatter, tmp_path / "merged")
    merged.save_pretrained(tmp_path / "merged")

    requests = asked(instruction_texts, Decoding(max_new_tokens=N_NEW))
    found = replies(opened(chatter, adapter=str(adapter)), requests)
    assert plain(found) == plain(replies(twin(tmp_path / "merged"), requests))
    assert plain(found) != plain(replies(twin(chatter), requests))
    llm = vllm.LLM.made[-1]
    [(_, _, lora)] = llm.calls
    assert lora.lora_path == str(adapter)
    assert (llm.options["enable_lora"], llm.options["max_lora_rank"]) == (True, 16)


def test_the_identity_is_that_of_the_weights(
    vllm: Any, chatter: Path, adapter: Path, tmp_path: Path
) -> None:
    assert opened(chatter).identity == twin(chatter).identity
    adapted = opened(chatter, adapter=str(adapter)).identity
    assert {**adapted, "adapter": ""} == {**twin(chatter).identity, "adapter": ""}
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    assert opened(chatter, adapter=str(other)).identity == adapted
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 99}))
    assert opened(chatter, adapter=str(other)).identity != adapted


def test_an_adapter_that_cannot_be_used_is_refused_at_opening(
    vllm: Any, chatter: Path, adapter: Path
) -> None:
    with pytest.raises(ModelError, match="the adapter cannot be used") as caught:
        opened(chatter, adapter=str(chatter))
    assert caught.value.where == str(chatter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    for change, words in (({"peft_type": "IA3"}, "IA3"), ({"r": 1024}, "rank 1024, at most 512")):
        (adapter / "adapter_config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelError, match=words):
            opened(chatter, adapter=str(adapter))
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors"):
        opened(chatter, adapter=str(adapter))


def test_vllm_that_is_not_installed_is_said_at_opening(
    chatter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match="vLLM is not installed") as caught:
        opened(chatter)
    assert "pip install 'preceptor[vllm]'" in caught.value.next_step


def test_what_the_settings_can_tell_is_refused_at_opening(vllm: Any, chatter: Path) -> None:
    with pytest.raises(SettingsError, match="does not take this temperature"):
        opened(chatter, temperature=2.5)
    setting = VllmTeacher(
        kind="vllm", model=str(chatter), tensor_parallel=4, fleet=Fleet(kind="ray", gpus=1)
    )
    with pytest.raises(SettingsError, match="fewer GPUs") as caught:
        open_vllm(setting, RUNTIME)
    assert caught.value.found == "gpus: 1, tensor_parallel: 4"
    assert vllm.LLM.made == []


def test_faults_of_the_engine_are_errors_of_ours(
    vllm: Any,
    chatter: Path,
    instruction_texts: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = asked(instruction_texts[:2], Decoding(max_new_tokens=3))
    with pytest.raises(ModelError, match="vLLM cannot run the model") as caught:
        replies(opened(chatter, max_length=4096), requests)
    assert "max_model_len (4096) is greater than 128" in caught.value.found
    with pytest.raises(ModelError, match="longer than the teacher can read") as caught:
        replies(opened(chatter, max_length=16), asked(("blue sky " * 8,), Decoding()))
    assert caught.value.found.endswith("limit 16")

    source = opened(chatter)
    answer = vllm.LLM._answer

    def faulty(self: Any, engine: Any, prompt: Any, params: Any) -> Any:
        output = answer(self, engine, prompt, params)
        if len(self.calls) == 1:
            output.outputs[0].finish_reason = "abort"
        return output

    monkeypatch.setattr(vllm.LLM, "_answer", faulty)
    with pytest.raises(ModelError, match="vLLM gave up while it answered") as caught:
        replies(source, requests)
    assert caught.value.found == "abort"


@pytest.mark.parametrize("whole", [True, False])
def test_the_engine_goes_with_the_stream(
    vllm: Any, chatter: Path, instruction_texts: tuple[str, ...], whole: bool
) -> None:
    source = opened(chatter, chunk=2)
    requests = asked(instruction_texts, Decoding(max_new_tokens=2))
    stream: Any = source.ask([[requests[place] for place in g] for g in source.groups(requests)])
    next(stream)
    record = vllm.LLM.made[-1].record
    assert record == {"down": False}
    assert (len(list(stream)) == 2) if whole else stream.close() is None
    assert record == {"down": True}


def test_the_room_of_an_answer_is_bounded_by_the_engine_s_limit(vllm: Any, chatter: Path) -> None:
    text = "the cat is in the house and " * 2
    width = len(prompt_ids(AutoTokenizer.from_pretrained(chatter), user_turn(text)))
    [reply] = replies(opened(chatter, max_length=40), asked((text,), Decoding(0, 1, 500)))
    assert width < 40
    assert reply.n_generated <= 40 - width
    assert vllm.LLM.made[-1].calls[0][1][0].max_tokens == 40 - width
