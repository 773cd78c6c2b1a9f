"""Configs become specs, and a bad config is answered with one sentence that names the place and the way out."""

import copy
import importlib
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from robust_saliency import (
    attacks,
    config,
    config_fields,
    descriptions,
    metrics,
    models,
    objectives,
    saliency,
    schedules,
    types,
)
from robust_saliency.baselines import Baseline
from robust_saliency.threat import Threat

FILES = pathlib.Path(common.__file__).parent.glob("*.py")
CONFIGS = sorted(path.stem for path in FILES if "def get_config(" in path.read_text())


def parsed(**changes):
    return config.parse(config_fields.merge(config.to_plain(common.default()), changes))


def adversarial(**attack):
    return parsed(objective={"name": "adversarial", "attack": attack}).objective.spec.attack


def test_the_defaults_name_every_field_of_every_method_that_can_be_chosen():
    plain = config.to_plain(common.default())
    in_code_only = {"bounds", "mask", "init", "eot_samples"}
    attack_fields = (config_fields.fields_of(attacks.PGD) | config_fields.fields_of(attacks.FGSMRS)) - in_code_only
    assert set(plain["objective"]["attack"]) == attack_fields | {"name"}
    regimes = {field for Spec, _ in objectives.OBJECTIVES.values() for field in config_fields.fields_of(Spec)}
    assert set(plain["objective"]) == regimes | {"name", "wrappers", *objectives.WRAPPERS}
    for name, (Spec, _) in objectives.WRAPPERS.items():
        assert set(plain["objective"][name]) == config_fields.fields_of(Spec) - {"inner"}
    for ramp in plain["schedules"].values():
        assert set(ramp) == config_fields.fields_of(schedules.Ramp)
    assert set(plain["train"]) == config_fields.fields_of(config.Train)
    assert set(plain["evaluation"]) == config_fields.fields_of(config.Evaluation)
    assert set(plain["roar"]) == config_fields.fields_of(config.Roar)
    assert set(plain["data"]) == config_fields.fields_of(config.DataSpec)
    assert set(plain["data"]["planted"]) == config_fields.fields_of(type(parsed().data.planted))
    for registry, sections in (
        (saliency.SALIENCY, plain["evaluation"]["maps"].values()),
        (metrics.METRICS, plain["evaluation"]["metrics"].values()),
        (saliency.SALIENCY, [plain["objective"]["guide"]]),
        (models.MODELS, [plain["model"]]),
    ):
        known = {field for Spec, *_ in registry.values() for field in config_fields.fields_of(Spec)} - {"references"}
        for section in sections:
            assert set(section) == known | {"name"}
    assert set(plain["data"]["augment"]) == config_fields.fields_of(type(parsed().data.augment))


def test_the_guide_of_scaat_is_chosen_by_name_and_its_quantile_annealed():
    section = {"name": "scaat", "guide": {"name": "smoothgrad", "num_samples": 3}, "quantile": 0.25}
    ramp = {"until": 0.5, "start": 4.0}
    experiment = parsed(objective=section, schedules={"quantile": ramp})
    spec = experiment.objective.spec
    assert spec.guide == saliency.SmoothGrad(num_samples=3)
    for progress, quantile in ((0.0, 1.0), (0.25, 0.625), (0.5, 0.25), (1.0, 0.25)):
        assert float(schedules.apply(spec, experiment.ramps, progress).quantile) == quantile
    assert "guide smoothgrad" in descriptions.described(experiment.objective)


def test_what_is_given_of_a_metrics_noise_stands_over_its_own_default():
    section = {"name": "max_sensitivity", "noise": {"kind": "gaussian", "num_samples": 3}}
    method = dict(parsed(evaluation={"metrics": {"gini": section}}).evaluation.metrics)["gini"]
    assert method.spec == metrics.MaxSensitivity(noise=metrics.Noise(kind="gaussian", num_samples=3))


def test_numbers_reach_the_specs():
    experiment = parsed(
        objective={"name": "adversarial", "attack": {"norm": "l2", "epsilon": 0.5, "num_steps": 5}},
        data={"batch_size": 64, "augment": {"flip": True}},
        train={"epochs": 3},
    )
    attack = experiment.objective.spec.attack
    assert (attack.threat.norm, attack.threat.epsilon, attack.num_steps) == ("l2", 0.5, 5)
    assert attack.step_size == pytest.approx(0.5 * 2.5 / 5)
    assert (experiment.data.batch_size, experiment.train.epochs, experiment.data.augment.flip) == (64, 3, True)
    labels = [label for label, _ in experiment.evaluation.maps]
    assert labels == ["gradient", "integrated_gradients", "smoothgrad"]
    integrated = dict(experiment.evaluation.maps)["integrated_gradients"]
    assert integrated.function is saliency.integrated_gradients
    assert (integrated.spec.num_steps, integrated.spec.baseline.kind) == (16, "mean")


def test_absolute_and_relative_step_sizes():
    assert adversarial(step_size=0.01).step_size == 0.01
    assert adversarial(epsilon=0.1, relative_step_size=0.25).step_size == pytest.approx(0.025)
    assert adversarial(epsilon=0.1, num_steps=5).step_size == pytest.approx(0.1 * 2.5 / 5)
    with pytest.raises(ValueError, match=r"step_size \(pixels\) or relative_step_size \(times epsilon\), not both"):
        adversarial(step_size=0.01, relative_step_size=0.25)


def test_fields_of_other_methods_are_ignored_and_fields_of_none_are_refused():
    assert parsed(objective={"name": "standard"}).objective.spec == objectives.Standard()
    plain = config.to_plain(common.default())
    plain["objective"]["epsilonn"] = 0.1
    with pytest.raises(ValueError, match=r"config.objective: Unknown field 'epsilonn'"):
        config.parse(plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"name": "adversrial"}}, r"objective.*'adversrial'.*Did you mean 'adversarial'"),
        ({"objective": {"name": ""}}, r"config.objective needs a name. Choices: adversarial, .*, standard"),
        ({"objective": {"name": "adversarial", "attack": {"name": "pgdd"}}}, r"attack.*'pgdd'.*Did you mean 'pgd'"),
        (
            {"objective": {"name": "adversarial", "attack": {"epsilon": -0.1}}},
            r"config.objective.attack.epsilon must be at least 0, got -0.1",
        ),
        (
            {"objective": {"name": "adversarial", "attack": {"epsilon": float("nan")}}},
            r"config.objective.attack.epsilon must be finite",
        ),
        (
            {"objective": {"name": "adversarial", "attack": {"norm": "l3"}}},
            r"config.objective.attack: Unknown norm 'l3'.*Choices: l1, l2, linf",
        ),
        (
            {"objective": {"name": "adversarial", "attack": {"norm": "l2"}}},
            r"config.objective.attack.epsilon: in norm 'l2' it is the length .* 0.5; got 0.0157, a radius for linf",
        ),
        (
            {"evaluation": {"attacks": {"linf": {"norm": "l1"}}}},
            r"attacks.linf.epsilon: in norm 'l1' it is the sum .* got 0.0157, a radius for linf",
        ),
        (
            {"evaluation": {"attacks": {"l2": {"norm": "linf", "epsilon": 3.0}}}},
            r"attacks.l2.epsilon: in norm 'linf' it is a change of each pixel of \[0, 1\].* got 3.0",
        ),
        ({"robustness": {"norm": "l2"}}, r"config.robustness.epsilon: in norm 'l2' .* got 0.0157, a radius for linf"),
        (
            {"objective": {"name": "scaat", "guide": {"name": "gradent"}}},
            r"guide.name 'gradent'. Did you mean",
        ),
        (
            {"objective": {"name": "scaat", "guide": {"channels": "none"}}},
            r"SCAAT.guide must give one value",
        ),
        ({"objective": {"name": "scaat", "quantile": 1.5}}, r"objective.quantile must be in \[0, 1\], got 1.5"),
        ({"objective": {"name": "scaat", "attack": {"start": "none"}}}, r"starts at the clean image.*start='gaussian'"),
        ({"objective": {"name": "scaat", "renewed": True, "attack": {"name": "apgd"}}}, r"need pgd with.*got APGD"),
        ({"evaluation": {"metrics": {"gini": {"name": "ginni"}}}}, r"metric.*'ginni'.*Did you mean 'gini'"),
        ({"evaluation": {"maps": {"gradient": {"name": "gradiant"}}}}, r"saliency.*'gradiant'.*'gradient'"),
        ({"train": {"epochs": "many"}}, r"config.train.epochs must be a whole number, got 'many'"),
        ({"train": {"epochs": 1.5}}, r"config.train.epochs must be a whole number, got 1.5"),
        ({"train": {"epochs": True}}, r"config.train.epochs must be a whole number, got True"),
        ({"data": {"batch_size": 0}}, r"config.data.batch_size must be at least 1, got 0"),
        ({"data": {"augment": {"flip": "yes"}}}, r"config.data.augment.flip must be True or False, got 'yes'"),
        ({"model": {"name": "resnet19"}}, r"model.*'resnet19'.*Did you mean 'resnet18'"),
        ({"model": {"name": "nowhere.at_all:net"}}, r"'nowhere.at_all:net' cannot be imported"),
        ({"model": {"mean": "grey"}}, r"config.model.mean must be a list, got 'grey'"),
        ({"optimizer": {"name": "adamx"}}, r"config.optimizer: Unknown optimizer.name 'adamx'"),
        ({"schedules": {"epsilon": {"until": 0.4}}}, r"schedules.epsilon.fields: Unknown field of Standard 'attack'"),
        ({"seed": -1}, r"config.seed must be in \[0, 2147483647\], got -1"),
        ({"init_from": {"include": "("}}, r"config.init_from: init_from.include '\(' is no regular expression"),
        ({"objective": {"name": ":x"}}, r"config.objective.name: ':x' cannot be imported"),
        ({"evaluation": {"maps": {"gradient": {"channels": "none"}}}}, r"maps.gradient.channels is 'none'"),
        ({"train": {"validate_every": 2, "checkpoint_every": 3}}, r"one must be a multiple of the other"),
        ({"mesh": 3}, r"config.mesh must be a section, got 3"),
        ({"init_from": "../standard", "phases": [{"label": "a"}]}, r"config.init_from must be a section, got '../st"),
        ({"schedules": [1]}, r"config.schedules must be a section, got \[1\]"),
        ({"evaluation": {"attacks": [1]}}, r"config.evaluation.attacks must be a section, got \[1\]"),
        ({"evaluation": {"step": "bset"}}, r"Unknown evaluation.step 'bset'. Did you mean 'best'"),
        ({"evaluation": {"metrics": {"gini": {"sign": "absolute"}}}}, r"metrics.gini: Unknown sign 'absolute'"),
        ({"evaluation": {"metrics": {"gini": {"sign": "raw"}}}}, r"metrics.gini: Shares of relevance.*got sign='raw'"),
        ({"evaluation": {"metrics": {"deletion": {"order": "mrof"}}}}, r"Unknown order 'mrof'. Did you mean 'morf'"),
        ({"evaluation": {"metrics": {"deletion": {"score": "prob"}}}}, r"Unknown score 'prob'"),
        ({"evaluation": {"metrics": {"pointing_game": {"tolerance": -1}}}}, r"tolerance must be at least 0, got -1"),
        (
            {"evaluation": {"metrics": {"gini": {"name": "max_sensitivity", "noise": {"scale": -1.0}}}}},
            r"config.evaluation.metrics.gini.noise.scale must be at least 0, got -1.0",
        ),
        (
            {"evaluation": {"metrics": {"gini": {"name": "random_logit", "similarity": "centre_shift"}}}},
            r"metrics.gini: Unknown similarity 'centre_shift'.*Choices: kendall, spearman, ssim, top_k_intersection",
        ),
        (
            {"evaluation": {"metrics": {"lesion_mass": {"mask": "lesoin"}}}},
            r"Unknown mask in config.evaluation.metrics.lesion_mass.mask 'lesoin'. Did you mean 'lesion'",
        ),
        (
            {"evaluation": {"explained": "predicted", "metrics": {"gini": {"name": "road"}}}},
            r"metrics.gini asks whether the label is met, but config.evaluation.explained is 'predicted'",
        ),
        ({"evaluation": {"metrics": {"gini": {"name": 3}}}}, r"config.evaluation.metrics.gini needs a name. Choices: "),
        ({"evaluation": {"split": "tests"}}, r"config.evaluation: Unknown evaluation.split 'tests'.*'test'"),
    ],
)
def test_bad_configs_are_answered_in_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        parsed(**changes)
    assert "\n" not in str(error.value)


def test_merge_refuses_a_field_that_is_not_there():
    with pytest.raises(ValueError, match=r"config.train: Unknown field 'epoch'.*Did you mean 'epochs'"):
        parsed(train={"epoch": 3})


@pytest.mark.parametrize(
    ("kind", "label", "message"),
    [
        ("maps", "random", "the label 'random' is taken"),
        ("maps", "ruler_mask", "the label 'ruler_mask' is taken"),
        ("maps", "fractions", "the label 'fractions' is taken"),
        ("maps", "a/b", "must not be empty, start with a dot or hold a slash, got 'a/b'"),
        ("metrics", "group", "the label 'group' is taken"),
        ("attacks", "..", "start with a dot"),
    ],
)
def test_a_label_that_results_use_themselves_is_refused(kind, label, message):
    plain = config.to_plain(common.default())
    methods = plain["evaluation"][kind]
    methods[label] = next(iter(methods.values()))
    with pytest.raises(ValueError, match=message):
        config.parse(plain)


@types.spec
class Power:
    power: int = 2


OWN_METRIC = (Power, lambda maps, spec: (maps**spec.power).sum(axis=(1, 2)), ("maps",))


def test_a_users_own_method_is_named_by_its_place():
    section = {"name": f"{__name__}:OWN_METRIC", "power": 3}
    chosen = config_fields.choose("metric", dict(metrics.METRICS), section, "config.evaluation.metrics.own")
    assert chosen.spec == Power(power=3)
    assert chosen.function is OWN_METRIC[1]


@types.spec
class Told:
    title = "Told"
    direction = "higher"
    range = (0.0, 1.0)


FACTLESS = (Power, OWN_METRIC[1], ("maps",))
GREEDY = (Told, OWN_METRIC[1], ("gradients",))


def test_a_users_own_metric_that_an_evaluation_cannot_use_is_told_before_anything_is_trained():
    for attribute, message in (
        ("FACTLESS", "has no title and no direction and no range"),
        ("GREEDY", "Unknown argument of .*'gradients'"),
    ):
        name = f"{__name__}:{attribute}"
        try:
            with pytest.raises(ValueError, match=message):
                parsed(evaluation={"metrics": {"gini": {"name": name}}})
        finally:
            metrics.METRICS.pop(name, None)


@types.spec
class Shove:
    """Its fields are named like others' and mean something else: ``size`` is a share, there are no steps."""

    threat: Threat = Threat()
    step_size: float = 0.1
    size: float = 1.0
    sparsity: float = 0.5


OWN_FIELDS = (Shove, lambda loss_fn, key, images, spec: images)


def test_a_users_own_fields_mean_what_the_user_says():
    name = f"{__name__}:OWN_FIELDS"
    section = {"name": name, "size": 0.5, "epsilon": 0.25}
    method = config_fields.choose("attack", dict(attacks.ATTACKS), section, "config.evaluation.attacks.own")
    assert (method.spec.size, method.spec.step_size) == (0.5, 2.5 * 0.25)
    said = descriptions.sentence(method)
    assert "size 0.5" in said and "sparsity 0.5" in said


@types.spec
class Brighten:
    threat: Threat = Threat()


def brighten(loss_fn, key, images, spec):
    return jnp.minimum(images + spec.threat.epsilon, 1.0)


OWN_ATTACK, TAKEN, NO_PAIR = (Brighten, brighten), (attacks.PGD, brighten), brighten


def test_an_objective_trains_against_a_users_own_attack():
    name = f"{__name__}:OWN_ATTACK"
    try:
        experiment = parsed(
            objective={"name": "adversarial", "attack": {"name": name, "epsilon": 0.25}},
            schedules={"epsilon": {"until": 0.5, "fields": ["attack.threat.epsilon"]}},
        )
        spec = schedules.apply(experiment.objective.spec, experiment.ramps, 0.25)
        perturbed = attacks.run(None, None, jnp.full((1, 2, 2, 1), 0.5), spec.attack)
        np.testing.assert_allclose(perturbed, 0.625)
        assert attacks.iterated(spec.attack) is None
    finally:
        attacks.ATTACKS.pop(name, None)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("TAKEN", "the spec PGD of .* is that of 'pgd'; give the method one of its own"),
        ("NO_PAIR", r"must be a tuple \(Spec, function\), got <function brighten"),
        ("ABSENT", "cannot be imported: .*ABSENT"),
    ],
)
def test_a_users_own_method_that_cannot_be_used(attribute, message):
    section = {"name": f"{__name__}:{attribute}"}
    with pytest.raises(ValueError, match=f"config.evaluation.attacks.own.name: .*{message}"):
        config_fields.choose("attack", dict(attacks.ATTACKS), section, "config.evaluation.attacks.own")


def test_config_json_gives_the_same_experiment():
    plain = config.to_plain(common.default())
    again = json.loads(json.dumps(plain))
    assert config.parse(again) == config.parse(ConfigDict(copy.deepcopy(plain)))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_parses_all_its_runs_and_states_its_command(name):
    from robust_saliency import study

    module = importlib.import_module(f"configs.{name}")
    plain = config.to_plain(module.get_config())
    assert f"--config=configs/{name}.py" in module.__doc__
    if plain["study"]["runs"]:
        experiments = study.parse(plain)
        assert len(experiments) == len(plain["study"]["runs"]) * plain["study"]["seeds"]
    else:
        config.parse(plain)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_robustness_report_attacks_within_the_epsilon_of_the_evaluation(name):
    plain = config.to_plain(importlib.import_module(f"configs.{name}").get_config())
    norm = plain["robustness"]["norm"]
    assert plain["robustness"]["epsilon"] == plain["evaluation"]["attacks"][norm]["epsilon"]


def test_the_benchmark_has_an_attack_of_its_own():
    benchmark = parsed(benchmark={"attack": {"name": "fgsm", "epsilon": 0.1}, "repetitions": 1}).benchmark
    assert benchmark.attack.spec == attacks.FGSM(threat=attacks.PGD().threat.__class__(epsilon=0.1))
    assert (benchmark.repetitions, benchmark.batch_size) == (1, 128)


@pytest.mark.parametrize(("own", "expected"), [((), ("^params/logits",)), (("conv1",), ("conv1",))])
def test_awp_attacks_the_weights_that_train_unless_it_names_others(own, expected):
    objective = {"name": "adversarial", "wrappers": ["awp"], "awp": {"trainable": own}}
    assert parsed(objective=objective, train={"trainable": ["^params/logits"]}).objective.spec.trainable == expected


def never_called(*arguments):
    raise AssertionError("a config of the wrong kind is refused before anything is computed")


OWN = types.spec(type("OwnSpec", (), {}))
OBJECTIVE_OF_FUNCTION, ATTACK_OF_OBJECTIVE = (OWN, brighten), (OWN, objectives.Objective(never_called, never_called))
ATTACK_OF_TEXT, ATTACK_OF_THREE, METRIC_OF_TWO = (OWN, "brighten"), (OWN, brighten, ()), (OWN, brighten)


@pytest.mark.parametrize(
    ("section", "attribute", "message"),
    [
        ("objective", "OBJECTIVE_OF_FUNCTION", r"config.objective.name: an objective is a tuple \(Spec, Objective"),
        ("attack", "ATTACK_OF_OBJECTIVE", r"the attack .* must be a tuple of a spec and a function, got Objective"),
        ("attack", "ATTACK_OF_TEXT", r"config.objective.attack.name: .* a function, got 'brighten' second"),
        ("attack", "ATTACK_OF_THREE", r"must be a tuple \(Spec, function\), got 3 entries"),
        ("metric", "METRIC_OF_TWO", r"must be a tuple \(Spec, function, needs\), got 2 entries"),
    ],
)
def test_a_users_own_method_of_the_wrong_kind_is_one_sentence(section, attribute, message):
    named = {"name": f"{__name__}:{attribute}"}
    changes = {
        "objective": {"objective": named},
        "attack": {"objective": {"name": "adversarial", "attack": named}},
        "metric": {"evaluation": {"metrics": {"own": named}}},
    }[section]
    with pytest.raises(ValueError, match=message):
        config.parse({**config.to_plain(common.default()), **changes})


@pytest.mark.parametrize("field", ["steps", "num_queries", "num_targets", "curve_steps", "num_searches"])
def test_a_robustness_report_that_would_not_attack_is_refused_by_its_field(field):
    with pytest.raises(ValueError, match=rf"^config.robustness.{field} must be at least 1, got 0\.$"):
        parsed(robustness={field: 0})


def test_a_section_that_says_nothing_leaves_the_methods_own_default():
    maps = {"windows": {"name": "occlusion"}, "white": {"name": "occlusion", "baseline": {"kind": "white"}}}
    maps["blurred"] = {"name": "occlusion", "baseline": {"blur_sigma": 3.0}}
    plain = config.to_plain(common.default())
    plain["evaluation"]["maps"] = maps
    specs = {label: method.spec for label, method in config.parse(plain).evaluation.maps}
    assert specs["windows"] == saliency.Occlusion() and specs["windows"].baseline.kind == "mean"
    assert specs["white"].baseline.kind == "white"
    assert specs["blurred"].baseline == Baseline(kind="mean", blur_sigma=3.0)


def test_a_baseline_of_images_is_refused_where_there_can_be_none():
    changes = {"integrated_gradients": {"baseline": {"kind": "array"}}}
    with pytest.raises(ValueError, match=r"gradients.baseline.kind: the images of an 'array' cannot be given in a"):
        parsed(evaluation={"maps": changes})
