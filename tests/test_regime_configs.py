"""Every regime's config, on every data set and in both sizes, fits its network."""

import importlib
import pkgutil

import jax
import pytest

from configs import data_sets, regimes
from robust_saliency import config, initialise, objectives, phases, trainable

REGIMES = [module.name for module in pkgutil.iter_modules(regimes.__path__)]
SHAPES = {"cifar10": (32, 32, 3), "fashion_mnist": (28, 28, 1), "ham10000": (64, 64, 3), "planted_lesions": (32, 32, 3)}
CLASSES = {"cifar10": 10, "fashion_mnist": 10, "ham10000": 7, "planted_lesions": 3}
NAMES = [name + size for name in sorted(data_sets.DATA_SETS) for size in ("", ":small")]


def experiments_of(regime, data_set):
    plain = config.to_plain(importlib.import_module(f"configs.regimes.{regime}").get_config(data_set))
    return [config.parse(phase) for _, phase in phases.unfolded(plain)]


@pytest.mark.parametrize("data_set", NAMES)
@pytest.mark.parametrize("regime", REGIMES)
def test_a_regime_fits_the_network_of_every_data_set(regime, data_set):
    name = data_set.partition(":")[0]
    for experiment in experiments_of(regime, data_set):
        classifier = initialise.classifier_of(experiment.model, SHAPES[name], CLASSES[name])
        params = jax.eval_shape(classifier.init, jax.random.key(0))["params"]
        trainable.labels(params, experiment.train.trainable)
        experiment.objective.function.check(classifier, experiment.objective.spec)


@pytest.mark.parametrize("regime", REGIMES)
def test_a_regime_is_tested_within_the_threat_that_it_is_taught(regime):
    (*_, last) = experiments_of(regime, "fashion_mnist")
    attack = getattr(objectives.innermost(last.objective.spec), "attack", None)
    if attack is not None:
        share = 2 if regime in ("mask_inside", "mask_outside", "mask_random", "scaat") else 1
        norm = attack.threat.norm
        assert attack.threat.epsilon == pytest.approx(share * {"linf": 0.1, "l2": 1.0}[norm])
        assert dict(last.evaluation.attacks)[norm].spec.threat.norm == norm


@pytest.mark.parametrize("regime", REGIMES)
def test_a_config_states_its_command_and_another_data_set(regime):
    text = importlib.import_module(f"configs.regimes.{regime}").__doc__
    assert f"--config=configs/regimes/{regime}.py --workdir=" in text
    assert f"--config=configs/regimes/{regime}.py:" in text
    assert "docs/results.md" in text


def test_every_objective_has_a_config():
    taught = [experiment.objective for regime in REGIMES for experiment in experiments_of(regime, "planted_lesions")]
    named = {type(objectives.innermost(each.spec)) for each in taught}
    assert named == {Spec for Spec, _ in objectives.OBJECTIVES.values()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet", "Unknown data set 'imagenet'. Choices: cifar10, fashion_mnist, ham10000, planted_lesions"),
        ("cifar10:tiny", "Unknown size 'tiny'. Choices: full, small"),
    ],
)
def test_a_data_set_that_is_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        data_sets.begin(name)


@pytest.mark.parametrize("regime", ["fgsm_rs", "scaat", "trades"])
def test_fields_set_on_top_of_a_config_reach_its_last_phase(regime):
    built = importlib.import_module(f"configs.regimes.{regime}").get_config()
    built.objective.attack.epsilon = 0.1
    built.train.epochs = 3
    experiment = config.parse(built)
    assert (experiment.objective.spec.attack.threat.epsilon, experiment.train.epochs) == (0.1, 3)
    ((_, start),) = experiment.phases
    assert (start.objective.name, start.train.epochs) == ("standard", 16)


@pytest.mark.parametrize(
    ("regime", "section", "field", "value"),
    [
        ("awp", "schedules.awp", "after", 0.5),
        ("scaat", "schedules.quantile", "until", 0.5),
        ("trades", "train", "best_metric", "robust_accuracy"),
        ("trades", "train", "patience", 3),
        ("adversarial", "optimizer", "clip_norm", 0.5),
    ],
)
def test_what_is_set_on_top_of_a_config_leaves_its_standard_training_alone(regime, section, field, value):
    module = importlib.import_module(f"configs.regimes.{regime}")
    built = module.get_config()
    holder = built
    for name in section.split("."):
        holder = holder[name]
    holder[field] = value
    ((_, before),), ((_, after),) = config.parse(module.get_config()).phases, config.parse(built).phases
    fields = ("objective", "ramps", "optimizer", "train")
    assert [getattr(after, name) for name in fields] == [getattr(before, name) for name in fields]
    assert config.parse(built) != config.parse(module.get_config())


@pytest.mark.parametrize("name", ["apgd", "fgsm"])
def test_an_attack_without_a_step_size_can_be_taught_against(name):
    built = importlib.import_module("configs.regimes.adversarial").get_config()
    built.objective.attack.name = name
    (ramp,) = config.parse(built).ramps
    assert ramp.fields == ("attack.threat.epsilon",)
