"""Which training regime gives maps that can be trusted? Eleven, on planted lesions, for the same number of gradients.

    python launch.py --config=configs/study_regimes.py --workdir=runs/regimes
    python launch.py --config=configs/study_regimes.py --workdir=runs/regimes_one_seed --config.study.seeds=1

Every run starts from the same weights, 16 epochs of standard training, and then spends BUDGET gradient evaluations on
each training image: an epoch of a regime that makes c passes forward and backward for an image counts c times. A killed
study goes on where it was.
"""

from configs import common, quickstart

BUDGET = 72
EPSILON = 4 / 255
STEPS = 7
LATER_LAYERS = ("^params/conv3", "^params/conv4", "^params/logits")
START = "../standard/phases/1_start"


def get_config():
    config = quickstart.get_config()
    config.title = "Training regimes: planted lesions"
    config.description = "Eleven ways to train the same network from the same weights, for as many gradients."
    config.evaluation.attacks.linf.num_steps = 50
    apgd = common.evaluated_attack(name="apgd", epsilon=EPSILON, num_steps=50, unroll=False)
    config.evaluation.attacks.linf_apgd = apgd
    config.evaluation.metrics.noise_stability = common.metric("noise_stability", sigma=0.02, num_samples=4)
    config.study.seeds = 3
    robust, noise = 1 + STEPS, "What the map calls unimportant is replaced by noise."
    config.study.runs = (
        _standard(),
        _run("linf", "Adversarial training in linf.", robust, "adversarial", _linf()),
        _run("l2", "Adversarial training in L2.", robust, "adversarial", _l2()),
        _run("trades", "Clean images, and agreement with the worst around them.", 1 + robust, "trades", _from_noise()),
        _run("fgsm_rs", "Fast adversarial training: one step, random start.", 2, "fgsm_rs", _linf(), guard_drop=0.2),
        _run("saliency_guided", noise, 3, "saliency_guided"),
        _run("gradient_penalty", "A penalty on the gradient of the loss in the pixels.", 3, "gradient_penalty"),
        _scaat(),
        _run("consistent", "Clean and attacked images shall have like activations.", 3, "consistent", _fgsm()),
        _after_robust("fine_tuned", "The linf network, then clean images at a small learning rate.", ()),
        _after_robust("first_layers", "The same, but only the layers after the first two are tuned.", LATER_LAYERS),
    )
    return config


def _standard():
    """16 epochs that every run starts from, then its own share of the budget."""
    start = common.phase("start")
    on = common.phase("on", train=_train(BUDGET), optimizer=_optimizer())
    return common.run("standard", "Trained on clean images.", phases=(start, on))


def _run(label, description, passes, objective, attack=None, fields=(), **train):
    """A regime that makes ``passes`` passes forward and backward for an image."""
    return common.run(
        label,
        description,
        init_from={"workdir": START},
        objective={"name": objective, **({"attack": attack} if attack else {}), **dict(fields)},
        optimizer=_optimizer(),
        schedules=_ramp(attack) if attack else {},
        train=_train(BUDGET // passes) | train,
    )


def _scaat():
    fields = {"divergence_weight": 3.0, "quantile": 0.5}
    text = "The adversary changes the half of the pixels that the map calls unimportant."
    return _run("scaat", text, 3 + STEPS, "scaat", _from_noise(epsilon=8 / 255), fields)


def _after_robust(label, description, trainable):
    """Half of the budget on robustness, half on clean images."""
    robust = common.phase(
        "robust",
        objective={"name": "adversarial", "attack": _linf()},
        schedules=_ramp(_linf()),
        optimizer=_optimizer(),
        train=_train(BUDGET // 2 // (1 + STEPS)),
    )
    tuned = common.phase("tuned", optimizer=_optimizer(3e-4), train=_train(BUDGET // 2) | {"trainable": trainable})
    return common.run(label, description, init_from={"workdir": START}, phases=(robust, tuned))


def _linf(**changes):
    return {"norm": "linf", "epsilon": EPSILON, "num_steps": STEPS, **changes}


def _fgsm():
    return {"name": "fgsm", "norm": "linf", "epsilon": EPSILON}


def _l2():
    return {"norm": "l2", "epsilon": 0.25, "num_steps": STEPS}


def _from_noise(**changes):
    """At the clean image itself a divergence has no gradient."""
    return _linf(start="gaussian", **changes)


def _ramp(attack):
    """Epsilon grows for four tenths of the training; FGSM has no step size beside it."""
    fields = (
        ("attack.threat.epsilon",) if attack.get("name") == "fgsm" else ("attack.threat.epsilon", "attack.step_size")
    )
    return {"epsilon": {"until": 0.4, "fields": fields}}


def _optimizer(learning_rate=3e-3):
    return {"schedule": "cosine", "learning_rate": learning_rate}


def _train(epochs):
    return {"epochs": epochs, "validate_every": 1, "checkpoint_every": 1}
