"""Texts as vectors without a model: hashed n-grams of words and of characters.

Each half of a vector is one bag of n-grams, hashed to a place and a sign, so that n-grams which
share a place cancel as often as they add up (feature hashing: Weinberger and others, ICML 2009,
arXiv 0902.2206). Counts are damped by log(1 + |count|), and each half is scaled to the same length,
so that no text counts more than another one because it is long.

- words: single words and pairs of neighbours (the first one also with the beginning of the text),
  signs of punctuation as words of their own, and one token for the text's length by powers of two;
- characters: runs of 3, 4 and 5, with spaces between words, one at either end.

Texts are normalised by NFKC and case-folded first. The same text has the same vector on every
machine: the hash has a fixed seed and no state.

Shapes: N texts, D places of a vector, C characters of all texts.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

VERSION = "ngrams-1"  # of the map; a router that was fitted on another one does not fit
WORDS, CHARACTERS = 2048, 2048  # places of each half; powers of two
DIM = WORDS + CHARACTERS
RUNS = (3, 4, 5)
BATCH = 512  # texts at a time: bounds the memory of their runs

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SEED = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(0x100000001B3)


def ngram_features(texts: Sequence[str]) -> np.ndarray:
    """Vectors of texts, of length 1 each (0 for an empty text).

    Returns:
        float64 of shape (N, DIM).
    """
    found_ND = np.zeros((len(texts), DIM))
    known: dict[str, int] = {}
    for low in range(0, len(texts), BATCH):
        block = [_normal(text) for text in texts[low : low + BATCH]]
        out_ND = found_ND[low : low + BATCH]
        out_ND[:, :WORDS] = _bag([_words(text, known) for text in block], WORDS)
        out_ND[:, WORDS:] = _bag([_runs(text) for text in block], CHARACTERS)
    found_ND /= np.maximum(np.linalg.norm(found_ND, axis=1, keepdims=True), 1e-300)
    return found_ND


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _words(text: str, known: dict[str, int]) -> np.ndarray:
    """Hashes of words and of pairs of neighbours, and of the length."""
    tokens = [_hash_of(token, known) for token in _TOKEN.findall(text)]
    single = np.array(tokens, dtype=np.uint64)
    before = np.array([_hash_of("<start>", known), *tokens[:-1]], dtype=np.uint64)[: len(tokens)]
    length = _hash_of(f"<length {len(text).bit_length()}>", known)
    pairs = _mixed(before * _BASE + single)
    return np.concatenate([single, pairs, np.array([length], dtype=np.uint64)])


def _hash_of(token: str, known: dict[str, int]) -> int:
    value = known.get(token)
    if value is None:
        digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = known[token] = int.from_bytes(digest, "big")
    return value


def _runs(text: str) -> np.ndarray:
    """Hashes of all runs of characters."""
    codes_C = np.array([ord(letter) for letter in f" {text} "], dtype=np.uint64)
    parts = [np.empty(0, dtype=np.uint64)]
    for size in RUNS:
        n = len(codes_C) - size + 1
        if n < 1:
            break
        value = np.full(n, size, dtype=np.uint64)
        for place in range(size):
            value = value * _BASE + codes_C[place : place + n]
        parts.append(_mixed(value))
    return np.concatenate(parts)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit depends on every bit (arithmetic modulo 2^64)."""
    values = values + _SEED
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bag(hashes: Sequence[np.ndarray], places: int) -> np.ndarray:
    """Signed and damped counts of each text's n-grams, scaled to length 1: (N, places)."""
    counts = [len(own) for own in hashes]
    every = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
    row = np.repeat(np.arange(len(hashes)), counts)
    place = row * places + (every & np.uint64(places - 1)).astype(np.int64)
    sign = np.where(every >> np.uint64(63), -1.0, 1.0)
    bag_ND = np.bincount(place, sign, len(hashes) * places).reshape(len(hashes), places)
    bag_ND = np.sign(bag_ND) * np.log1p(np.abs(bag_ND))
    return bag_ND / np.maximum(np.linalg.norm(bag_ND, axis=1, keepdims=True), 1e-300)
