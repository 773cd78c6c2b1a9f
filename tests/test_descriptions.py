"""What a report says of a method is what was run, in a form that a reader can check."""

import dataclasses
import importlib

import pytest

from robust_saliency import attacks, config, descriptions, metrics, objectives, saliency
from robust_saliency.baselines import Baseline
from robust_saliency.config_fields import Method
from robust_saliency.threat import Threat
from tests import tiny


def sentence(name, spec):
    return descriptions.sentence(Method(name, spec, None))


def test_fractions_of_255_are_written_as_such_and_short_decimals_as_they_are():
    pgd = attacks.PGD(threat=Threat(epsilon=4 / 255), step_size=0.5 / 255, num_steps=7)
    assert sentence("pgd", pgd) == (
        "pgd: norm linf, epsilon 4/255, step_size 0.5/255, num_steps 7, start uniform, keep_best False."
    )
    assert "epsilon 0.1," in sentence("pgd", attacks.PGD(threat=Threat(epsilon=0.1)))
    assert "epsilon 0.1235," in sentence("pgd", attacks.PGD(threat=Threat(epsilon=0.12345678)))
    assert "epsilon 0," in sentence("pgd", attacks.PGD(threat=Threat(epsilon=0.0)))


def test_a_setting_that_the_others_leave_without_meaning_is_not_said():
    l1 = attacks.PGD(threat=Threat(norm="l1", epsilon=0.5), start="gaussian")
    assert "projection exact" in sentence("pgd", l1)
    assert "sparsity 0.01" in sentence("pgd", l1)
    assert "start_scale 0.001" in sentence("pgd", l1)


def test_a_map_is_defined_before_its_settings():
    method = Method("gradient", saliency.Gradient(), None)
    text = descriptions.described(method)
    assert text.startswith("The gradient of the score with respect to the pixels")
    assert " Here: gradient: score logit" in text
    assert descriptions.kind(method) == "magnitude"
    assert descriptions.kind(Method("gradient", saliency.Gradient(sign="signed", channels="sum"), None)) == "signed"


def test_the_noise_of_a_metric_is_said_in_words():
    spec = metrics.MaxSensitivity(noise=metrics.Noise(kind="gaussian", scale=0.05, num_samples=4))
    assert sentence("max_sensitivity", spec) == "max_sensitivity: sign abs, 4 draws of gaussian noise of scale 0.05."


def test_a_reader_is_told_that_a_control_uses_the_true_mask():
    text = descriptions.described(Method("lesion_mask_control", objectives.LesionMaskControl(), None))
    assert text.startswith("A control that USES THE TRUE LESION MASK")
    assert text.endswith("attacked outside.")


def test_of_scaat_the_guide_is_named_and_only_the_share_that_counts_is_said():
    assert "guide gradient, score logit" in sentence("scaat", objectives.SCAAT())
    assert "quantile 0.5" in sentence("scaat", objectives.SCAAT())
    assert "energy" not in sentence("scaat", objectives.SCAAT())
    by_energy = sentence("scaat", objectives.SCAAT(protect="energy", energy=0.3))
    assert "energy 0.3" in by_energy and "quantile" not in by_energy


@pytest.mark.parametrize("name", [*objectives.OBJECTIVES, *objectives.WRAPPERS])
def test_what_is_said_of_a_regime_can_be_read_on_a_page(name):
    Spec, _ = (objectives.OBJECTIVES | objectives.WRAPPERS)[name]
    text = descriptions.described(Method(name, Spec(), None))
    assert not any(mark in text for mark in ("``", ":class:", ":func:", ":math:"))
    assert f" Here: {name}: " in text


def test_of_a_run_in_phases_each_is_told_and_which_objective_stands_inside_of_what():
    experiment = config.parse(importlib.import_module("configs.regimes.awp").get_config())
    text = descriptions.training(experiment)
    start, _, rest = text.partition(" Phase regime: ")
    assert start == "Phase standard: CE(f(x), y) on the clean images. Here: standard: label_smoothing 0."
    assert " Here: adversarial: norm linf, epsilon 4/255" in rest
    assert rest.index("Here: adversarial") < rest.index("Inside awp: L(w + v)")
    assert rest.endswith("Here: gamma 0.01.")


def test_of_one_phase_the_objective_alone_is_told():
    objective = {"name": "adversarial", "wrappers": ["clean_mix", "awp"]}
    text = descriptions.training(tiny.experiment(objective=objective))
    assert text.startswith("(1 - clean_weight) CE(f(x'), y)") and "Phase" not in text
    assert text.index("Inside clean_mix: ") < text.index("Inside awp: ")


@pytest.mark.parametrize("name", ["fgsm_rs", "free", "grad_align", "n_fgsm"])
def test_the_attack_of_a_regime_with_steps_of_its_own_is_that_of_validation(name):
    Spec, _ = objectives.OBJECTIVES[name]
    text = sentence(name, Spec(attack=attacks.PGD(threat=Threat(epsilon=4 / 255), num_steps=7)))
    assert f"{name}: norm linf, epsilon 4/255, validated with an attack of 7 steps" in text
    assert "start uniform" not in text and "num_steps" not in text


def test_all_settings_of_a_metric_are_given_those_left_at_their_defaults_too():
    spec = metrics.Deletion(points=5, baseline=Baseline(kind="blur", blur_sigma=3.0))
    facts = descriptions.facts(Method("deletion_auc", spec, None, ("maps",)))
    assert facts["description"] == "Area under the score as the pixels are deleted, most relevant first."
    assert facts["settings"] == {
        "sign": "abs", "order": "morf", "points": "5", "score": "probability", "normalised": "False",
        "least_change": "0", "baseline": "blur of sigma 3.0",
    }  # fmt: skip
    assert (facts["name"], facts["ties"]) == ("deletion_auc", "in random order")


@pytest.mark.parametrize("name", metrics.METRICS)
def test_no_setting_of_a_metric_is_left_out_but_those_without_meaning(name):
    Spec, _, needs = metrics.METRICS[name]
    fields = {field.name for field in dataclasses.fields(Spec)}
    facts = descriptions.facts(Method(name, Spec(), None, needs))
    told = {setting.partition(".")[0] for setting in facts["settings"]}
    assert fields - told <= ({"most_side"} if name == "infidelity" else set())
    squares = descriptions.settings(metrics.Infidelity(perturbation="squares"))
    assert squares["most_side"] == "8" and "sigma" not in squares


def test_what_becomes_of_ties_is_said_where_an_order_of_the_pixels_is_read():
    similarity = descriptions.facts(Method("noise_stability", metrics.NoiseStability(similarity="ssim"), None))
    assert similarity["ties"] == ""
    assert metrics.NoiseStability().ties == metrics.Spearman.ties == "have their average rank"
    assert metrics.EffectiveComplexity.ties == metrics.Road.ties == "in random order"
    assert metrics.Gini.ties == metrics.MaskReliance.__dict__.get("ties", "") == ""
