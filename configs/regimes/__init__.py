"""One training regime a config, on any of the data sets of :mod:`configs.data_sets`.

Most begin with standard training, and train in a second phase with their paper's objective, for as many epochs as
adversarial training of that data set; where a paper trains from scratch, this is the shorter way. A comparison for
equal work is configs/study_regimes.py.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from configs import common, data_sets
from configs.data_sets import Setting

# What is tuned where the first blocks of a robust network are kept: groups 2 to 5 of Margeloiu et al.
LATER_LAYERS = {
    "resnet18": ("^params/block[234]", "^params/logits"),
    "resnet50": ("^params/block[234]", "^params/logits"),
    "small_cnn": ("^params/conv[34]", "^params/logits"),
}


def begin(data_set: str, regime: str, description: str) -> tuple[ConfigDict, Setting]:
    """The config of ``data_set``, called after the regime."""
    config, setting = data_sets.begin(data_set)
    config.title = f"{config.title}: {regime}"
    config.description = description
    config.objective.attack.update(linf(setting))
    config.evaluation.step = "last"  # with regimes that converge the best of many validations is one by chance
    return config, setting


def after_standard(config: ConfigDict, setting: Setting, objective: Mapping, **train) -> ConfigDict:
    """``objective``, in a phase that begins with standard training."""
    start = standard_phase(config)
    teach(config, setting, objective, **train)
    config.phases = (start, common.phase("regime"))
    return config


def standard_phase(config: ConfigDict) -> ConfigDict:
    """What ``config`` is before a regime is written into it; the last phase of a config is what it says itself."""
    objective = {"name": "standard", "wrappers": (), "label_smoothing": 0.0}
    schedules = {label: {"after": 0.0, "until": 0.0} for label in config.schedules}
    same = {"optimizer": config.optimizer.to_dict(), "train": config.train.to_dict()}
    return common.phase("standard", objective=objective, schedules=schedules, **same)


def teach(config: ConfigDict, setting: Setting, objective: Mapping, **changes) -> None:
    """Writes the settings of :func:`phase` into ``config`` itself, as its last phase."""
    write(config, phase(setting, "", objective, **changes).overrides)


def write(config: ConfigDict, overrides: Mapping) -> None:
    for name, section in overrides.items():
        config[name].update(section)


# What a last phase may narrow and an earlier one does not.
WHOLE_NETWORK = {"trainable": (), "batch_norm": "train", "guard_drop": 0.0}


def phase(setting: Setting, label: str, objective: Mapping, learning_rate=3e-3, **train) -> ConfigDict:
    """A phase whose attack grows for four tenths of its time."""
    return common.phase(
        label,
        objective=objective,
        optimizer={"schedule": "cosine", "learning_rate": learning_rate},
        schedules=ramp(objective.get("attack")),
        train={**WHOLE_NETWORK, "epochs": setting.epochs, "validate_every": 1, "checkpoint_every": 1, **train},
    )


def linf(setting: Setting, **changes) -> dict:
    return {"norm": "linf", "epsilon": setting.linf, "num_steps": setting.num_steps, **changes}


def from_noise(setting: Setting, **changes) -> dict:
    """At the clean image itself a divergence has no gradient."""
    return linf(setting, start="gaussian", **changes)


def margeloiu_attack(epsilon: float) -> dict:
    return {
        "norm": "l2",
        "epsilon": epsilon,
        "num_steps": 7,
        "relative_step_size": 1 / 5,
        "start": "sphere",
        "projection": "scale_then_clip",
        "keep_best": True,
    }


def margeloiu_training(learning_rate: float, best_metric: str, epochs: int, **train) -> dict:
    """Optimiser, plateau and patience of all their phases; weights are those of the best ``best_metric``."""
    return {
        "optimizer": {"name": "adam", "schedule": "constant", "learning_rate": learning_rate, "weight_decay": 5e-4},
        "train": {
            "epochs": epochs,
            "validate_every": 1,
            "checkpoint_every": 1,
            "best_metric": best_metric,
            "patience": 10,
            "plateau_patience": 5,
            **train,
        },
    }


def ramp(attack: Mapping | None) -> dict:
    """Epsilon, and the step size where the attack has one, grow from 0 for four tenths of the training."""
    return {"epsilon": {"until": 0.4}} if attack else {}
