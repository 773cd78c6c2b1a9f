"""Which training regime gives maps that can be trusted? Eleven, on planted lesions, for the same number of passes.

    python launch.py --config=configs/study_regimes.py --workdir=runs/regimes
    python launch.py --config=configs/study_regimes.py --workdir=runs/regimes_one_seed --config.study.seeds=1

Every run starts from the same weights, 16 epochs of standard training, and then makes BUDGET passes, forward and
backward, over each training image. An epoch of a regime that makes c passes for an image counts c times; where that is
an attack and more, the attack has so many steps that c is PASSES. What is evaluated is the end of the training. A
killed study goes on where it was. Scores: docs/results.md.
"""

from configs import common, data_sets, regimes

BUDGET = 72
PASSES = 8
LEARNING_RATE = 3e-3
START = "../standard/phases/1_start"


def get_config():
    config, setting = data_sets.begin("planted_lesions")
    config.title = "Training regimes: planted lesions"
    config.description = "Eleven ways to train the same network from the same weights, with as many passes."
    config.train.epochs = 16
    config.evaluation.step = "last"
    config.evaluation.attacks.linf.num_steps = 50
    config.evaluation.attacks.linf.unroll = False
    config.evaluation.attacks.linf_apgd = common.evaluated_attack(
        name="apgd", epsilon=setting.linf, num_steps=50, unroll=False
    )
    config.evaluation.metrics.noise_stability = common.metric("noise_stability", sigma=0.02, num_samples=4)
    config.study.seeds = 3
    linf = {"norm": "linf", "epsilon": setting.linf, "num_steps": PASSES - 1}
    l2 = {"norm": "l2", "epsilon": setting.l2, "num_steps": PASSES - 1}
    # Of the passes one more is for the clean images, and in SCAAT one for the map; at the clean image itself a
    # divergence has no gradient, hence the noise.
    trades = {**linf, "num_steps": PASSES - 2, "start": "gaussian"}
    scaat = {**trades, "num_steps": PASSES - 3, "epsilon": 2 * setting.linf}
    fgsm = {"name": "fgsm", "norm": "linf", "epsilon": setting.linf}
    unimportant = {"divergence_weight": 3.0, "quantile": 0.5}
    config.study.runs = (
        _standard(),
        _run("linf", "Adversarial training in linf.", PASSES, "adversarial", linf),
        _run("l2", "Adversarial training in L2.", PASSES, "adversarial", l2),
        _run("trades", "Clean images, and agreement with the worst around them.", PASSES, "trades", trades),
        _run("fgsm_rs", "Fast adversarial training: one step, random start.", 2, "fgsm_rs", linf, guard_drop=0.2),
        _run("saliency_guided", "What the map calls unimportant is replaced by noise.", 3, "saliency_guided"),
        _run("gradient_penalty", "A penalty on the gradient of the loss in the pixels.", 2, "gradient_penalty"),
        _run("scaat", "The adversary changes the less important half.", PASSES, "scaat", scaat, unimportant),
        _run("consistent", "Clean and attacked images shall have like activations.", 3, "consistent", fgsm),
        _after_robust("fine_tuned", "The linf network, then clean images at a small learning rate.", linf),
        _after_robust(
            "first_layers",
            "The same, but the first two blocks stay as they are.",
            linf,
            trainable=regimes.LATER_LAYERS["small_cnn"],
        ),
    )
    return config


def _standard():
    """16 epochs that every run starts from, then its own share of the budget."""
    on = common.phase("on", init_step="last", train=_train(BUDGET), optimizer=_optimizer())
    return common.run("standard", "Trained on clean images.", phases=(common.phase("start"), on))


def _run(label, description, passes, objective, attack=None, fields=(), **train):
    """A regime that makes ``passes`` passes over an image in an epoch."""
    return common.run(
        label,
        description,
        init_from={"workdir": START, "step": "last"},
        objective={"name": objective, **({"attack": attack} if attack else {}), **dict(fields)},
        optimizer=_optimizer(),
        schedules=regimes.ramp(attack),
        train=_train(BUDGET // passes) | train,
    )


def _after_robust(label, description, attack, **train):
    """Four epochs of adversarial training, the rest of the budget on clean images."""
    robust_epochs = 4
    robust = common.phase(
        "robust",
        objective={"name": "adversarial", "attack": attack},
        schedules=regimes.ramp(attack),
        optimizer=_optimizer(),
        train=_train(robust_epochs),
    )
    tuned = common.phase(
        "tuned",
        init_step="last",
        optimizer=_optimizer(LEARNING_RATE / 10),
        train=_train(BUDGET - PASSES * robust_epochs) | train,
    )
    return common.run(label, description, init_from={"workdir": START, "step": "last"}, phases=(robust, tuned))


def _optimizer(learning_rate=LEARNING_RATE):
    return {"schedule": "cosine", "learning_rate": learning_rate}


def _train(epochs):
    return {"epochs": epochs, "validate_every": 1, "checkpoint_every": 1}
