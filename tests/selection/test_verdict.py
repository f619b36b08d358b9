"""Every sentence of the verdict, on made-up rankings."""

from typing import Any

import pytest

from preceptor.selection.verdict import View, fitted, names, with_outcomes, without_outcomes


def view(kind: str, first: str, *tied: str) -> View:
    return View(kind, (first,), tied)


def said(views: dict[str, View], base: str = "base", deciding: str = "", pilot: str = "") -> Any:
    rows = without_outcomes(base, views, deciding or next(iter(views)), pilot)
    assert {row["base"] for row in rows} == {base}
    return {row["kind"]: row["text"] for row in rows}


def test_all_agree():
    found = said({"car": view("reward", "X"), "length": view("other", "X")})
    assert found == {"agree": "Both criteria put X first.", "advice": "Take X."}
    found = said({n: view("reward", "X") for n in ("car", "mean_reward", "ifd")})
    assert found["agree"] == "All 3 criteria put X first."


def test_one_criterion_alone():
    found = said({"car": view("reward", "X")})
    assert found == {"agree": "car puts X first.", "advice": "Take X."}


def test_most_agree():
    views = {name: view("reward", "X") for name in ("car", "mean_reward", "car.armo", "ifd")}
    views |= {"length": view("other", "Y"), "perplexity": view("likelihood", "Z", "X")}
    found = said(views)
    assert found["agree"] == (
        "The criteria agree on X: 4 of 6 put it first (length puts Y first; perplexity puts Z "
        "first)."
    )
    assert found["advice"] == "Take X."


def test_no_majority():
    views = {
        "car": view("reward", "X", "Y", "Z"),
        "perplexity": view("likelihood", "Y", "X", "Z"),
        "length": view("other", "Z", "X", "Y"),
    }
    found = said(views)
    assert found["disagree"] == (
        "The criteria do not agree: car puts X first; perplexity puts Y first; length puts Z first."
    )


def test_a_tie_at_the_top_is_named_whole():
    found = said({"size": View("other", ("X", "Y")), "car": view("reward", "X")}, deciding="car")
    assert "size puts X and Y first" in found["disagree"]


def test_controls_have_no_say():
    views = {"car": view("reward", "X"), "price": view("control", "Y"), "ifd": view("reward", "X")}
    assert said(views)["agree"] == "Both criteria put X first."


def test_too_close_to_call():
    found = said({"car": view("reward", "A", "B"), "length": view("other", "A")})
    assert found["close"] == (
        "Too close to call by car: A and B cannot be separated on these instructions."
    )
    assert found["advice"] == (
        "Between A and B let cost or licence decide, add instructions, or train a short pilot on "
        "each."
    )


SPLIT = {
    "car": view("reward", "Llama-3-70B"),
    "mean_reward": view("reward", "Llama-3-70B"),
    "perplexity": view("likelihood", "Qwen2-7B"),
    "ifd": view("likelihood", "Qwen2-7B"),
}


def test_likelihood_against_reward():
    found = said(SPLIT, base="en-verbose", pilot="preceptor select --pilot")
    assert found["split"] == (
        "Likelihood criteria (perplexity, ifd) prefer Qwen2-7B; criteria that read a reward (car, "
        "mean_reward) prefer Llama-3-70B."
    )
    assert found["advice"] == (
        "Train a short pilot (`preceptor select --pilot`) on Qwen2-7B and Llama-3-70B before you "
        "decide."
    )
    assert "family" not in found


def test_likelihood_prefers_the_bases_own_family():
    found = said(SPLIT, base="Qwen/Qwen2-1.5B")
    assert found["family"] == (
        "Likelihood criteria (perplexity, ifd) prefer Qwen2-7B, of the base's own family (qwen); "
        "criteria that read a reward (car, mean_reward) prefer Llama-3-70B."
    )
    assert "split" not in found


def test_no_family_where_both_are_of_it():
    views = {name: own for name, own in SPLIT.items() if own.kind == "likelihood"}
    views |= {"car": view("reward", "Qwen2.5-72B")}
    found = said(views, base="Qwen2-1.5B", deciding="car")
    assert "family" not in found and "Qwen2-7B; criteria that read a reward" in found["split"]


@pytest.mark.parametrize("kind", ["reward", "likelihood"])
def test_no_split_where_one_side_cannot_separate_them(kind):
    views = {
        name: View(own.kind, own.first, ("Qwen2-7B", "Llama-3-70B") if own.kind == kind else ())
        for name, own in SPLIT.items()
    }
    found = said(views, base="Qwen2-1.5B")
    assert "split" not in found and "family" not in found


def test_disagreement_beyond_chance_needs_both_sides():
    sure = {
        "car": view("reward", "X"),
        "mean_reward": view("reward", "X"),
        "length": view("other", "Y"),
    }
    assert said(sure)["disagree"] == "length (Y) disagrees with car about the first beyond chance."
    half = sure | {"length": view("other", "Y", "X")}  # length cannot separate Y from X
    assert "disagree" not in said(half)
    other = {"car": view("reward", "X", "Y"), "length": view("other", "Y")}  # nor can car
    assert "beyond chance" not in " ".join(said(other).values())


def test_advice_where_the_deciding_criterion_stands_alone():
    views = {
        "car": view("reward", "X"),
        "length": view("other", "Y", "X"),
        "ifd": view("likelihood", "Y", "X"),
    }
    assert said(views)["advice"] == (
        "car takes X; as most criteria do not, train a short pilot on the firsts before you decide."
    )


def trial(rho: float | None, regret: float = 0.0, kind: str = "reward") -> Any:
    low, high = (None, None) if rho is None else (rho - 0.1, min(1.0, rho + 0.1))
    tried = {"value": rho, "low": low, "high": high, "teachers": [low, high], "instructions": None}
    lost = tried | {"value": regret}
    return {
        "kind": kind, "first": ["X"], "spearman": tried, "kendall": tried, "regret": lost,
        "p_value": 0.01,
    }  # fmt: skip


def gap(first: str, second: str, low: float, high: float) -> Any:
    return {"first": first, "second": second, "value": (low + high) / 2, "low": low, "high": high}


def told(trials: dict[str, Any], differences: list[Any], n: int = 19, **more: Any) -> list[str]:
    settings = {"n_teachers": n, "n_bases": 1, "few": False} | more
    rows = with_outcomes(None, trials, differences, **settings)
    return [f"{row['kind']}: {row['text']}" for row in rows]


def test_the_best_and_its_rivals():
    trials = {
        "car": trial(0.889, 0.4),
        "mean_reward": trial(0.871, 0.1),
        "length": trial(0.59, 2.0, "other"),
        "control.chance": trial(None, 3.25, "control"),
    }
    # a difference is found whichever way round it stands
    differences = [gap("mean_reward", "car", -0.1, 0.05), gap("car", "length", 0.1, 0.5)]
    assert told(trials, differences, n_bases=5) == [
        "best: car orders the teachers most like their outcomes: Spearman's rho 0.89 "
        "[0.79, 0.99] (mean over 5 bases).",
        "best: These data do not separate it from mean_reward; behind beyond chance: length.",
        "regret: Taking its first teacher loses 0.4 against the best one, a blind choice 3.25; "
        "mean_reward loses less.",
    ]


def test_a_clear_winner():
    trials = {"car": trial(0.9), "length": trial(0.1, 1.0)}
    found = told(trials, [gap("car", "length", 0.2, 1.2)])
    assert found[1] == "best: Every other criterion is behind beyond chance."


@pytest.mark.parametrize(
    ("control", "ends", "words"),
    [
        (0.912, (-0.04, -0.01), "no criterion does better"),
        (0.7, (0.1, 0.3), "car does better"),
        (0.912, (-0.1, 0.05), "it cannot be told from car"),
        (0.888, (-0.1, 0.1), "it cannot be told from car"),
    ],
)
def test_the_order_that_is_the_same_for_every_base(control, ends, words):
    trials = {"car": trial(0.889), "control.other_bases": trial(control, 0.0, "control")}
    assert told(trials, [gap("car", "control.other_bases", *ends)])[-1] == (
        "control: Ranking teachers by their outcomes on the other bases gives rho "
        f"{control:.2f}; {words}."
    )


def test_a_control_that_does_as_well_is_named():
    trials = {"car": trial(0.6), "size": trial(0.7, 0.0, "control")}
    trials |= {"price": trial(0.1, 0.0, "control"), "control.all_bases": trial(0.9, 0.0, "control")}
    assert told(trials, [])[-1] == "control: size, no more than a control, does as well."


def test_few_teachers_say_so():
    found = told(
        {"car": trial(1.0), "length": trial(0.5)}, [gap("car", "length", -2, 2)], 4, few=True
    )
    assert "few: With 4 teachers even a perfect order may be chance" in found[1]
    assert not any("separate" in text for text in found)


def test_no_correlation_at_all():
    assert told({"car": trial(None)}, []) == [
        "few: No rank correlation exists: the outcomes, or all scores, are equal."
    ]


def fit(**more: Any) -> Any:
    return {
        "beta": 0.5, "plateau": [0.25, 1.0], "rho": 0.85, "rho_left_out": 0.6, "left_out": {},
        "rho_at_zero": 0.7, "run_beta": 3.0, "rho_at_run_beta": 0.8, "suggested": 3.0,
        "same_everywhere": False, "curve": [],
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("own", "text"),
    [
        (
            fit(),
            "The beta of CAR: keep 3, with rho 0.80; fitted 0.5 gives rho 0.85 (0.60 on teachers "
            "left out).",
        ),
        (
            fit(suggested=0.5, rho_left_out=0.82),
            "The beta of CAR: fitted 0.5 gives rho 0.85 (0.82 on teachers left out), the run's 3 "
            "rho 0.80.",
        ),
        (
            fit(run_beta=None, rho_at_run_beta=None, rho_left_out=None),
            "The beta of CAR: fitted 0.5 gives rho 0.85.",
        ),
        (
            fit(same_everywhere=True),
            "The beta of CAR does not matter here: the order is as good at every beta.",
        ),
    ],
)
def test_beta(own, text):
    assert fitted("b", {"armo": own}) == [{"base": "b", "kind": "beta", "text": text}]
    two = [row["text"] for row in fitted(None, {"armo": own, "sky": own})]
    assert "beta of CAR (armo)" in two[0] and "beta of CAR (sky)" in two[1]


def test_names():
    assert [names(list("abcdefgh")[:n]) for n in (1, 2, 3, 5, 6)] == [
        "a",
        "a and b",
        "a, b and c",
        "a, b, c, d and e",
        "a, b, c, d and 2 others",
    ]
