"""Divergences by hand, their slopes against autograd, and what marks a loss. N rows, V tokens."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

import pytest
import torch

from preceptor.core.errors import SettingsError
from preceptor.core.loss import as_loss, loss
from preceptor.core.plugs import plug
from preceptor.losses import LOSSES

PARAMETERS: dict[str, dict[str, float]] = {
    "forward_kl": {},
    "reverse_kl": {},
    "jsd": {"beta": 0.3},
    "skew_forward_kl": {"alpha": 0.1},
    "skew_reverse_kl": {"alpha": 0.1},
}
EVERY = pytest.mark.parametrize("name", list(PARAMETERS))


def divergence(name: str, **parameters: float) -> Any:
    return partial(plug("loss", LOSSES, name), **(parameters or PARAMETERS[name]))


# p = (3/4, 1/4), q = (1/2, 1/2), hence at a half m = (5/8, 3/8); slopes sum to 0
GOLDEN = {
    # 3/4 ln 3/2 + 1/4 ln 1/2; q - p
    "forward_kl": ({}, 0.130812, -0.25),
    # 1/2 ln 2/3 + 1/2 ln 2; 1/2 (ln 2/3 - value)
    "reverse_kl": ({}, 0.143841, -0.274653),
    # half of KL(p||m) = 3/4 ln 6/5 + 1/4 ln 2/3 = 0.035375, half of KL(q||m) = 1/2 ln 4/5 +
    # 1/2 ln 4/3 = 0.032269; g = (ln 4/5, ln 4/3) / 2, slope = 1/2 (g_0 - (g_0 + g_1) / 2)
    "jsd": ({"beta": 0.5}, 0.033822, -0.063853),
    # KL(p||m); r = p q / 2 m = (0.3, 1/6), slope = 1/2 (0.3 + 1/6) - 0.3
    "skew_forward_kl": ({"alpha": 0.5}, 0.035375, -0.066667),
    # KL(q||m); g = ln(q / m) - q / 2 m = (-0.623144, -0.378985), slope = (g_0 - g_1) / 4
    "skew_reverse_kl": ({"alpha": 0.5}, 0.032269, -0.061040),
}


@EVERY
def test_a_value_and_a_slope_by_hand(name: str):
    parameters, value, slope = GOLDEN[name]
    log_p = torch.tensor([[0.75, 0.25]]).log()
    log_q = torch.tensor([[0.5, 0.5]]).log()
    value_N, slope_NV = divergence(name, **parameters)(log_p, log_q)
    torch.testing.assert_close(value_N, torch.tensor([value]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope_NV, torch.tensor([[slope, -slope]]), rtol=1e-5, atol=1e-6)


@EVERY
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 20.0])
def test_the_slope_is_the_derivative(name: str, spread: float):
    generator = torch.Generator().manual_seed(int(10 * spread))
    shape, options = (6, 11), {"generator": generator, "dtype": torch.float64}
    log_p_NV = (spread * torch.randn(*shape, **options)).log_softmax(1)
    z_NV = (spread * torch.randn(*shape, **options)).requires_grad_()
    value_N, slope_NV = divergence(name)(log_p_NV.clone(), z_NV.log_softmax(1))
    (wanted_NV,) = torch.autograd.grad(value_N.sum(), z_NV)
    torch.testing.assert_close(slope_NV.detach(), wanted_NV, rtol=1e-9, atol=1e-12)
    assert (value_N > 0).all()


@EVERY
def test_equal_distributions_are_at_distance_zero_without_slope(name: str):
    log_p_NV = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    value_N, slope_NV = divergence(name)(log_p_NV.clone(), log_p_NV.clone())
    torch.testing.assert_close(value_N, torch.zeros(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(slope_NV, torch.zeros(4, 9), rtol=0, atol=1e-6)


@EVERY
def test_probabilities_that_vanish_in_fp32(name: str):
    # p sure of token 0 and q of 1; the reverse; both sure of 0, where 1 and 2 are 0 in both
    z_p = torch.tensor([[900.0, 0.0, 0.0], [0.0, 900.0, 0.0], [900.0, 0.0, 0.0]])
    z_q = torch.tensor([[0.0, 900.0, 0.0], [900.0, 0.0, 0.0], [900.0, 0.0, 0.0]])
    value_N, slope_NV = divergence(name)(z_p.log_softmax(1), z_q.log_softmax(1))
    assert value_N.isfinite().all() and slope_NV.isfinite().all()
    assert value_N[2] == 0.0 and (slope_NV[2] == 0.0).all()
    # disjoint: KL(p||q) = 900; the mixtures end at their bound, entropy of beta or -ln alpha
    bound = {
        "forward_kl": 900.0,
        "reverse_kl": 900.0,
        "jsd": -0.3 * math.log(0.3) - 0.7 * math.log(0.7),
    }.get(name, -math.log(0.1))
    torch.testing.assert_close(value_N[:2], torch.full((2,), bound))


def test_the_ends_of_the_jensen_shannon_divergence():
    generator = torch.Generator().manual_seed(3)
    log_p_NV, log_q_NV = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64).log_softmax(
        2
    )
    for beta, limit in ((1e-6, "forward_kl"), (1 - 1e-6, "reverse_kl")):
        value_N, slope_NV = divergence("jsd", beta=beta)(log_p_NV, log_q_NV)
        wanted_N, wanted_NV = divergence(limit)(log_p_NV, log_q_NV)
        small = min(beta, 1 - beta)
        torch.testing.assert_close(value_N / small, wanted_N, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(slope_NV / small, wanted_NV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["jsd", "skew_forward_kl", "skew_reverse_kl"])
def test_a_share_outside_its_range_is_refused(name: str, share: float):
    (parameter,) = PARAMETERS[name]
    flat = torch.zeros(1, 2).log_softmax(1)
    with pytest.raises(SettingsError, match=f"{parameter} of {name} must lie strictly"):
        divergence(name, **{parameter: share})(flat, flat)


@EVERY
def test_marks_say_what_a_divergence_takes(name: str):
    function = plug("loss", LOSSES, name)
    found = as_loss(name, function)
    assert (found.name, found.function) == (name, function)
    assert found.needs == {"logits"}
    assert found.parameters == tuple(PARAMETERS[name])
    assert (found.from_samples is not None) == (name == "forward_kl")
    taken = inspect.signature(function).parameters
    assert tuple(taken) == ("log_p_NV", "log_q_NV", *found.parameters)
    assert all(parameter.default is parameter.empty for parameter in taken.values())
    assert found.description and "Source" in (inspect.getdoc(function) or "")


def test_an_unmarked_function_is_no_loss():
    def plain(log_p_NV: torch.Tensor) -> torch.Tensor:
        return log_p_NV

    with pytest.raises(SettingsError, match="'plain' is not marked as a loss"):
        as_loss("plain", plain)


def test_wrong_marks_are_named_with_a_suggestion():
    def own(log_p_NV: torch.Tensor, beta: float) -> torch.Tensor:
        return beta * log_p_NV

    with pytest.raises(SettingsError, match="did you mean 'logits'"):
        as_loss("own", loss(needs=("logit",), parameters=("beta",))(own))
    with pytest.raises(SettingsError, match="did you mean 'beta'"):
        as_loss("own", loss(needs=("logits",), parameters=("betta",))(own))
    assert as_loss("mine.losses:own", loss(needs=("logits",))(own)).name == "own"
