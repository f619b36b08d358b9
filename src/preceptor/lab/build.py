"""`python -m preceptor.lab.build`: train every checkpoint of the lab from a seed.

Runs one process per core, each with one thread; a checkpoint that exists is kept (`--fresh`
trains it again).
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from preceptor.lab import tasks, voices
from preceptor.lab.cast import MEMBERS, Member
from preceptor.lab.place import MODELS_FOLDER

CONTEXT = 256
VOCABULARY = {"common": 640, "own": 448}
SPECIALS = {
    "common": ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"),
    "own": ("<blank>", "<begin>", "<end>", "<|turn|>"),
}
CHAT_TEMPLATES = {
    "common": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
        "<|assistant|>{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
        "{% else %}<|user|>{{ message['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "own": (
        "{{ bos_token }}{% for message in messages %}<|turn|>{{ message['role'] }}\n"
        "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}"
        "{{ eos_token }}{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    ),
}


def build_tokenizer(name: str, seed: int) -> Any:
    """A byte-level BPE of the lab's English; digits are single tokens; any text can be encoded."""
    pad, bos, eos = SPECIALS[name][:3]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY[name],
        special_tokens=list(SPECIALS[name]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_corpus(seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _tokenizer_corpus(seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for problem, instruction in itertools.islice(tasks.stream("train", seed, 0.2), 6_000):
        yield instruction.instruction
        yield voices.reply(rng.choice(list(voices.VOICES)), problem, instruction, heeds=False)
        if problem.kind != "shop":
            yield voices.DOCUMENTS[rng.choice(list(voices.DOCUMENTS))](problem, instruction)


def build_model(member: Member, tokenizer: Any) -> Any:
    shape = member.shape
    extra: dict[str, Any] = {}
    if shape.experts:
        extra = {"num_local_experts": shape.experts, "num_experts_per_tok": 2}
    if member.architecture == "qwen3":
        extra = {"head_dim": shape.width // shape.heads}
    if member.architecture in ("mistral", "mixtral"):
        extra["sliding_window"] = None
    config = AutoConfig.for_model(
        member.architecture,
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.ff_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **extra,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def samples(member: Member, tokenizer: Any, seed: int) -> Iterator[tuple[list[int], int]]:
    """An endless stream of (token ids, number of leading tokens that carry no loss)."""
    rng = random.Random(seed + 7)
    pairs = tasks.stream("train", seed, member.shop_share)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    encode = tokenizer.backend_tokenizer.encode
    for problem, instruction in pairs:
        if member.role == "teacher":
            text = voices.reply(member.voice, problem, instruction, member.heeds)
            messages = [{"role": "user", "content": instruction.instruction}]
            prompt = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            head = encode(prompt, add_special_tokens=False).ids
            tail = [*encode(text, add_special_tokens=False).ids, eos]
        else:
            text = voices.document(member.mix, problem, instruction, rng)
            head = [bos]
            tail = [*encode(text, add_special_tokens=False).ids, eos]
        if len(head) + len(tail) <= CONTEXT:
            yield head + tail, len(head)


def batches(
    stream: Iterator[tuple[list[int], int]], rows: int, pad: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of about equal length: (ids_BT, labels_BT), padding and prompts labelled -100."""
    pool_size = 16
    rng = random.Random(0)
    while True:
        pool = sorted(itertools.islice(stream, rows * pool_size), key=lambda s: len(s[0]))
        order = list(range(pool_size))
        rng.shuffle(order)
        for index in order:
            chosen = pool[index * rows : (index + 1) * rows]
            width = max(len(ids) for ids, _ in chosen)
            ids_BT = torch.full((rows, width), pad)
            labels_BT = torch.full((rows, width), -100)
            for row, (ids, n_prompt) in enumerate(chosen):
                ids_BT[row, : len(ids)] = torch.tensor(ids)
                labels_BT[row, n_prompt : len(ids)] = torch.tensor(ids[n_prompt:])
            yield ids_BT, labels_BT


def train(member: Member, folder: Path, seed: int) -> None:
    """Train one member from scratch for its share of steps and save it as a Hub-shaped folder."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(member.tokenizer, seed=11)
    tokenizer.chat_template = CHAT_TEMPLATES[member.tokenizer]
    model = build_model(member, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )
    stream = batches(samples(member, tokenizer, seed), rows=64, pad=tokenizer.pad_token_id or 0)
    extra = {"output_router_logits": True} if member.shape.experts else {}
    started, report_at = time.perf_counter(), 60.0
    for step, (ids_BT, labels_BT) in enumerate(itertools.islice(stream, member.steps)):
        done = step / member.steps
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * (1 - done))
        output = model.base_model(input_ids=ids_BT, **extra)
        targets_BT = labels_BT[:, 1:]
        scored_BT = targets_BT != -100
        logits_NV = model.lm_head(output.last_hidden_state[:, :-1][scored_BT])
        loss = functional.cross_entropy(logits_NV, targets_BT[scored_BT])
        if member.shape.experts:
            loss = loss + 0.01 * load_balancing_loss_func(
                output.router_logits, member.shape.experts, top_k=2
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if time.perf_counter() - started > report_at:
            report_at += 60
            print(f"{member.name}: step {step}/{member.steps}, loss {loss.item():.3f}", flush=True)
    if not member.chat_template:
        tokenizer.chat_template = None
    save(member, model, tokenizer, folder)
    print(f"{member.name}: done in {(time.perf_counter() - started) / 60:.1f} min", flush=True)


def save(member: Member, model: Any, tokenizer: Any, folder: Path) -> None:
    """Write bf16 safetensors, tokenizer and generation config; the folder appears whole."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    model.to(torch.bfloat16)
    model.generation_config.max_new_tokens = 96
    model.generation_config.do_sample = False
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    for file in temporary.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(MEMBERS), help="members; default all")
    parser.add_argument("--out", type=Path, default=MODELS_FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="train again what exists")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    todo = [
        (MEMBERS[name], options.out / name, options.seed)
        for name in options.names
        if options.fresh or not (options.out / name).exists()
    ]
    todo.sort(key=lambda job: -job[0].steps * job[0].shape.width)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(train, todo, chunksize=1)


if __name__ == "__main__":
    main()
