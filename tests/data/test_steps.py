"""Where steps begin, and each step in its window, with real tokenizers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from preceptor.core.types import Answer
from preceptor.data.answer_table import Answers
from preceptor.data.rendering import Renderer
from preceptor.data.sequences import tokenize
from preceptor.data.steps import Steps, Windows

Make = Callable[..., Any]


def cut(tokenizer: Any, text: str, separator: str = "\n", end: bool = True) -> list[str]:
    """The steps of a response, as texts."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids += [tokenizer.eos_token_id] if end else []
    return pieces(tokenizer, ids, Steps(tokenizer, separator).starts(ids))


def pieces(tokenizer: Any, ids: list[int], starts: list[int]) -> list[str]:
    ends = [*starts[1:], len(ids)]
    return [tokenizer.decode(ids[low:high]) for low, high in zip(starts, ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("The cat is in.\nThe dog is.", ["The cat is in.\n", "The dog is.</s>"]),
        # a break at the end begins nothing: the end token is no step
        ("The cat.\nThe dog.\n", ["The cat.\n", "The dog.\n</s>"]),
        ("The cat.\n\n \n", ["The cat.\n\n \n</s>"]),
        # runs of breaks, blank lines and indentation
        ("The cat.\n\n\nThe dog.", ["The cat.\n\n\n", "The dog.</s>"]),
        ("The cat.\n \n\t\nThe dog.", ["The cat.\n \n\t\n", "The dog.</s>"]),
        ("One:\n  the cat\n  the dog", ["One:\n ", " the cat\n ", " the dog</s>"]),
        # no break at all
        ("The cat and the dog.", ["The cat and the dog.</s>"]),
        ("", ["</s>"]),
        # white space before everything belongs to the first step
        ("\n\nThe cat.\nThe dog.", ["\n\nThe cat.\n", "The dog.</s>"]),
        ("\n", ["\n</s>"]),
        # characters of several bytes, which byte-level tokens cut through
        ("größer €\nüber 猫\nß", ["größer €\n", "über 猫\n", "ß</s>"]),
    ],
)
def test_lines_are_steps(make_tokenizer: Make, text: str, steps: list[str]) -> None:
    tokenizer = make_tokenizer()
    assert cut(tokenizer, text) == steps
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(cut(tokenizer, text)) == tokenizer.decode([*ids, tokenizer.eos_token_id])


def test_answers_that_the_limit_has_cut_have_no_end_token(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    assert cut(tokenizer, "The cat.\nThe dog.\n", end=False) == ["The cat.\n", "The dog.\n"]
    # a single token at the end of it all is no step, whatever it is
    assert cut(tokenizer, "The cat.\nb", end=False) == ["The cat.\nb"]


def test_other_separators(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    assert cut(tokenizer, "one\ntwo\n\nthree", "\n\n") == ["one\ntwo\n\n", "three</s>"]
    assert cut(tokenizer, "one. two. three.", ".") == ["one.", " two.", " three.</s>"]
    assert cut(tokenizer, "one######two###", "###") == ["one######", "two###</s>"]
    assert cut(tokenizer, "a.b*c", ".*") == ["a.b*c</s>"]  # text, no pattern


def test_tokens_that_hold_an_end_and_a_beginning() -> None:
    """Such a token counts as the end: the next step begins after it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = ["</s>", "a", "b", "c", ".", "\n", ".\n", "\nb", "\n\n"]
    merges = [(".", "\n"), ("\n", "b"), ("\n", "\n")]
    backend = Tokenizer(
        models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=merges)
    )
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")

    def starts(tokens: list[str]) -> list[int]:
        return Steps(tokenizer, "\n").starts([letters.index(token) for token in tokens])

    assert starts(["a", ".\n", "b", "c", "</s>"]) == [0, 2]
    assert starts(["a", "\nb", "c", "a", "</s>"]) == [0, 2]
    assert starts(["a", "\nb", "\nb", "c", "a", "</s>"]) == [0, 2, 3]
    assert starts(["a", "\n\n", "b", "c", "</s>"]) == [0, 2]
    assert starts(["a", ".\n", "\n\n", "\n", "b", "c", "</s>"]) == [0, 4]
    # a break of two letters in the middle of two tokens
    double = Steps(tokenizer, "\n\n").starts(
        [letters.index(token) for token in ["a", ".\n", "\nb", "c", "a", "</s>"]]
    )
    assert double == [0, 3]


def test_long_runs_of_white_space_cost_no_more_than_their_length(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    newline, space = (tokenizer(text)["input_ids"][0] for text in ("\n", " "))
    word = tokenizer("cat")["input_ids"]
    ids = [*word, newline, *([space, newline] * 20_000), newline, *([space] * 20_000), *word, 2]
    begun = time.monotonic()
    assert Steps(tokenizer, "\n").starts(ids) == [0, len(ids) - len(word) - 1]
    assert time.monotonic() - begun < 5


# --- windows ----------------------------------------------------------------------------------

QUESTION = "Where is the cat?"
LINES = ["The cat is in.", "The dog is.", "One and two.", "The sky."]


def windows_of(
    tokenizer: Any, texts: list[str], share: float, limit: int = 128
) -> tuple[Windows, Any, Renderer]:
    renderer = Renderer(tokenizer, limit)
    answers = Answers.of([Answer(str(n), QUESTION, "ash", text) for n, text in enumerate(texts)])
    tokens = tokenize(renderer, answers)
    return Windows(renderer, tokens.sequences, "\n", share), tokens, renderer


def shown(tokenizer: Any, windows: Windows) -> list[tuple[str, str]]:
    """(what a step is read after, the step)."""
    return [
        (
            tokenizer.decode(list(w.ids[: len(w.ids) - w.n_response])),
            tokenizer.decode(list(w.response_ids)),
        )
        for w in windows.sequences
    ]


def test_windows_of_half_the_steps(make_tokenizer: Make) -> None:
    """Four steps, so a window holds two; the question is the step before the first."""
    tokenizer = make_tokenizer()
    windows, _, _ = windows_of(tokenizer, ["\n".join(LINES)], 0.5)
    first, second, third, last = LINES[0] + "\n", LINES[1] + "\n", LINES[2] + "\n", LINES[3]
    asked = f"<s>{QUESTION}\n\n"
    assert shown(tokenizer, windows) == [
        (asked, first),
        (asked + first, second),  # reaches the question
        (f"<s>{first}{second}", third),  # does not: a bare start token
        (f"<s>{second}{third}", last + "</s>"),
    ]


def test_a_window_holds_at_least_one_step(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    windows, _, _ = windows_of(tokenizer, ["\n".join(LINES)], 0.01)
    starts = [before for before, _ in shown(tokenizer, windows)]
    lines = [line + "\n" for line in LINES]
    assert starts == [f"<s>{QUESTION}\n\n", *(f"<s>{line}" for line in lines[:3])]


def test_a_window_of_all_steps_and_one_of_one_step_see_everything(make_tokenizer: Make) -> None:
    """Then local naturalness is read off the same prefixes as plain mean log p."""
    tokenizer = make_tokenizer()
    windows, tokens, _ = windows_of(tokenizer, ["\n".join(LINES), "The cat.", ""], 1.0)
    whole = [list(sequence.ids) for sequence in tokens.sequences]
    for window in list(windows.sequences)[:4]:
        assert whole[0][: len(window.ids)] == list(window.ids)
    assert sum(w.n_response for w in list(windows.sequences)[:4]) == tokens.n_response[0]
    assert [list(w.ids) for w in list(windows.sequences)[4:]] == whole[1:]  # one step each
    assert [w.n_response for w in list(windows.sequences)[4:]] == tokens.n_response[1:].tolist()


def test_windows_keep_to_the_models_limit(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    texts = ["\n".join(LINES * 4), "\n".join(LINES)]
    windows, tokens, _ = windows_of(tokenizer, texts, 0.5, limit=40)
    assert tokens.truncated.tolist()[0]
    assert all(len(window.ids) <= 40 for window in windows.sequences)
    kept = [int(n) for n in tokens.n_response]
    assert sum(window.n_response for window in windows.sequences) == sum(kept)


def test_means_over_the_steps_of_each_answer(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    windows, _, _ = windows_of(tokenizer, ["\n".join(LINES), "The cat.", "The\ndog is in."], 0.25)
    assert len(windows.sequences) == 4 + 1 + 2
    found = windows.mean_over_steps(np.array([1.0, 2.0, 3.0, 6.0, 5.0, 7.0, 8.0]))
    assert found.tolist() == [3.0, 5.0, 7.5]


def test_special_tokens_in_an_answer_are_text_and_end_nothing(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    windows, tokens, _ = windows_of(tokenizer, ["The cat.\n</s>\nThe dog."], 0.25)
    assert len(windows.sequences) == 3
    assert tokens.sequences[0].ids[-1] == tokenizer.eos_token_id
