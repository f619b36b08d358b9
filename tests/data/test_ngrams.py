"""Hashed n-grams: what is the same, what is near, and that the map never changes unnoticed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from preceptor.data.ngrams import BATCH, CHARACTERS, DIM, VERSION, WORDS, ngram_features

TEXTS = [
    "Sort the numbers: 4, 17, 9.",
    "Write a poem about the sea.",
    "Schreibe ein Gedicht über das Meer.",
    "数を並べ替えてください。",
    "a",
]


def test_a_text_is_a_vector_of_length_one() -> None:
    phi = ngram_features(TEXTS)
    assert phi.shape == (len(TEXTS), DIM)
    np.testing.assert_allclose(np.linalg.norm(phi, axis=1), 1.0, atol=1e-12)
    halves = np.linalg.norm(phi[:, :WORDS], axis=1), np.linalg.norm(phi[:, WORDS:], axis=1)
    np.testing.assert_allclose(halves[0], np.sqrt(0.5), atol=1e-12)
    np.testing.assert_allclose(halves[1], np.sqrt(0.5), atol=1e-12)


def test_a_vector_depends_on_its_text_alone() -> None:
    many = [f"{text} {number}" for number in range(BATCH) for text in TEXTS[:2]]
    phi = ngram_features(many)
    for place in (0, 1, BATCH - 1, BATCH, len(many) - 1):
        np.testing.assert_array_equal(phi[place], ngram_features([many[place]])[0])
    assert ngram_features([]).shape == (0, DIM)


def test_case_space_and_width_do_not_matter() -> None:
    plain = ngram_features(["Sort the numbers: 4."])
    for other in ("sort THE  numbers:\n4. ", "Ｓｏｒｔ the numbers: ４."):
        np.testing.assert_array_equal(ngram_features([other]), plain)


def test_near_texts_are_near() -> None:
    first, alike, order, other = ngram_features(
        [
            "Translate the sentence into French.",
            "Translate this sentence into German.",
            "into French the sentence Translate.",
            "What is 17 times 23?",
        ]
    )
    assert first @ alike > 0.4
    assert abs(first @ other) < 0.1
    assert first @ order < 1 - 1e-3, "the order of the words is seen"


def test_signs_let_chance_cancel() -> None:
    """Texts that share nothing are orthogonal on average; without signs they would not be."""
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(rng.choice(letters, 7)) for _ in range(4000)]
    phi = ngram_features([" ".join(words[low : low + 40]) for low in range(0, 4000, 40)])
    gram = phi @ phi.T
    others = gram[~np.eye(len(gram), dtype=bool)]
    assert abs(others.mean()) < 0.02
    used = (phi != 0).any(axis=0)
    assert used[:WORDS].mean() > 0.95, "8,000 n-grams in 2,048 places: 2 % stay empty by chance"
    assert used[WORDS:].all()


def test_an_empty_text_is_no_nan() -> None:
    phi = ngram_features(["", "   "])
    assert np.isfinite(phi).all()


@pytest.mark.parametrize("half", [slice(None, WORDS), slice(WORDS, None)])
def test_the_map_is_pinned(half: slice) -> None:
    """A router that was saved belongs to this very map: a change of it needs another VERSION."""
    assert (VERSION, WORDS, CHARACTERS) == ("ngrams-1", 2048, 2048)
    places = np.flatnonzero(ngram_features(TEXTS[:1])[0, half])
    signs = np.sign(ngram_features(TEXTS[:1])[0, half][places])
    digest = hashlib.blake2b((places * signs).astype("<i4").tobytes(), digest_size=8).hexdigest()
    assert digest == {None: "ff956501f4079676", WORDS: "9c69a31345807209"}[half.start]
