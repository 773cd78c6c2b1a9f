"""Ramps: their factor over the training, and their paths through wrappers."""

import jax
import numpy as np
import pytest

from robust_saliency import attacks, objectives, schedules
from robust_saliency.threat import Threat

SPEC = objectives.Adversarial(attack=attacks.FGSM(threat=Threat(epsilon=0.5)))
NESTED = objectives.CleanMix(inner=objectives.AWP(inner=SPEC, gamma=0.5), clean_weight=0.5)
EPSILON = ("attack.threat.epsilon",)


def epsilon_at(progress, spec=SPEC, **fields):
    ramps = [schedules.Ramp(fields=EPSILON, **fields)]
    apply = jax.jit(lambda progress: schedules.apply(spec, ramps, progress))
    return [float(objectives.innermost(apply(p)).attack.threat.epsilon) for p in progress]


@pytest.mark.parametrize(
    ("fields", "factors"),
    [
        ({"until": 0.5}, [0.0, 0.2, 0.5, 1.0, 1.0]),
        ({"after": 0.25, "until": 0.75}, [0.0, 0.0, 0.0, 0.5, 1.0]),
        ({"after": 0.25}, [0.0, 0.0, 1.0, 1.0, 1.0]),
        ({"after": 0.25, "until": 0.1}, [0.0, 0.0, 1.0, 1.0, 1.0]),
        ({"start": 1.0, "stop": 3.0, "until": 1.0}, [1.0, 1.2, 1.5, 2.0, 3.0]),
    ],
)
def test_the_factor_over_the_training(fields, factors):
    np.testing.assert_allclose(
        epsilon_at([0.0, 0.1, 0.25, 0.5, 1.0], **fields), 0.5 * np.array(factors), rtol=1e-6, atol=1e-8
    )


def test_only_a_ramp_with_a_length_or_a_jump_is_used():
    assert [schedules.Ramp(**fields).used for fields in ({}, {"until": 0.1}, {"after": 0.1})] == [False, True, True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"until": 40.0}, r"Ramp\.until must be a share of the training steps, in \[0, 1\], got 40\.0"),
        ({"until": -0.4}, r"Ramp\.until must be a share.*got -0\.4"),
        ({"after": 1.5}, r"Ramp\.after must be a share.*got 1\.5"),
        ({"start": -3.0, "until": 1.0}, r"Ramp\.start must be at least 0, got -3\.0"),
        ({"stop": float("nan")}, r"Ramp\.stop must be at least 0, got nan"),
    ],
)
def test_a_ramp_out_of_range_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        schedules.Ramp(**fields)


def test_a_ramp_may_be_data():
    factor = jax.jit(lambda ramp: schedules.apply(SPEC, [ramp], 0.25).attack.threat.epsilon / 0.5)
    assert factor(schedules.Ramp(fields=EPSILON, until=0.5)) == 0.5


def test_a_path_is_the_same_through_wrappers_and_a_wrappers_own_begins_with_its_name():
    assert epsilon_at([0.25], NESTED, until=0.5) == [0.25]
    ramp = schedules.Ramp(fields=("awp.gamma", "clean_mix.clean_weight"), until=1.0)
    ramped = schedules.apply(NESTED, [ramp], 0.5)
    assert (float(ramped.inner.gamma), float(ramped.clean_weight)) == (0.25, 0.25)
    assert ramped.inner.inner == SPEC, "the objective's own clean_weight is another one"
    own = schedules.apply(NESTED, [schedules.Ramp(fields=("clean_weight",), until=1.0)], 0.5)
    assert (own.clean_weight, float(own.inner.inner.clean_weight)) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("attack.threat.epsilonn", r"Unknown field of Threat 'epsilonn'\. Did you mean 'epsilon'"),
        ("awp.gama", r"Unknown field of AWP 'gama'\. Did you mean 'gamma'"),
        ("awp", r"Unknown field of AWP ''\. Choices: gamma, trainable\."),
        ("awp.inner", r"Unknown field of AWP 'inner'\. Choices: gamma, trainable\."),
        ("awp.trainable", r"'trainable' of AWP is no number"),
        ("adaptive_epsilon.factor", r"Unknown field of Adversarial 'adaptive_epsilon'"),
        ("attack", r"'attack' of Adversarial is no number that can change during training"),
        ("attack.threat.norm", r"'norm' of Threat is no number"),
        ("attack.threat.mask", r"'mask' of Threat is no number"),
        ("include_clean", r"'include_clean' of Adversarial is no number"),
        ("clean_weight.epsilon", r"'clean_weight' of Adversarial has no fields"),
    ],
)
def test_a_path_that_leads_nowhere(path, message):
    with pytest.raises(ValueError, match=message):
        schedules.check(NESTED, schedules.Ramp(fields=(path,), until=0.5))
