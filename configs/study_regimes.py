"""Which training regime gives maps that can be trusted? Eleven on planted lesions, for the same number of passes.

    python launch.py --config=configs/study_regimes.py --workdir=runs/regimes
    python launch.py --config=configs/study_regimes.py --workdir=runs/regimes_one_seed --config.study.seeds=1
    python launch.py --config=configs/study_regimes.py:ham10000 --workdir=runs/regimes_ham10000
    python launch.py --config=configs/study_regimes.py:repairs --workdir=runs/regimes_repairs

Every run starts from the same weights, of standard training, and then makes a budget of passes, forward and backward,
over each training image. An epoch of a regime that makes c passes for an image counts c times; where that is an attack
and more, the attack has so many steps that c is PASSES. What is evaluated is the end of the training. ':ham10000' has
seven of the runs, at 64 pixels; ':repairs' varies two that fell short of what was expected. A killed study goes on
where it was. Scores: docs/results.md.
"""

from configs import common, data_sets, regimes

PASSES = 8
ROBUST_EPOCHS = 4  # of what is tuned afterwards
LEARNING_RATE = 3e-3
START = "../standard/phases/1_start"


def get_config(which="planted_lesions"):
    config, setting = data_sets.begin("planted_lesions" if which == "repairs" else which)
    config.title = f"Training regimes: {config.title}"
    config.description = "Ways to train the same network from the same weights, with as many passes."
    config.evaluation.step = "last"
    config.evaluation.attacks.linf.num_steps = 50
    config.evaluation.attacks.linf_apgd = common.evaluated_attack(name="apgd", epsilon=setting.linf, num_steps=50)
    config.evaluation.metrics.noise_stability = common.metric("noise_stability", sigma=0.02, num_samples=4)
    budget = 72
    config.study.seeds = 3
    if which.startswith("ham10000"):
        budget = 48
        config.study.seeds = 1
        config.train.epochs = 12
        config.model.width = 16
        config.evaluation.num_examples = 512
    runs = {run.label: run for run in _runs(setting, budget, config.model.name)}
    labels = SOME.get(which.partition(":")[0]) or [label for label in runs if label not in REPAIRS]
    config.study.runs = tuple(runs[label] for label in labels)
    return config


REPAIRS = ("scaat_wide", "scaat_strong", "fine_tuned_gently")
SOME = {
    "ham10000": ("standard", "linf", "l2", "scaat", "consistent", "fine_tuned", "first_layers"),
    "repairs": ("standard", *REPAIRS),
}


def _runs(setting, budget, network):
    linf = {"norm": "linf", "epsilon": setting.linf, "num_steps": PASSES - 1}
    l2 = {"norm": "l2", "epsilon": setting.l2, "num_steps": PASSES - 1}
    # Of the passes one more is for the clean images, and in SCAAT one for the map; at the clean image itself a
    # divergence has no gradient, hence the noise.
    trades = {**linf, "num_steps": PASSES - 2, "start": "gaussian"}
    scaat = {**trades, "num_steps": PASSES - 3, "epsilon": 2 * setting.linf}
    fgsm = {"name": "fgsm", "norm": "linf", "epsilon": setting.linf}
    unimportant = {"divergence_weight": 3.0, "quantile": 0.5}
    more, stronger = {**unimportant, "quantile": 0.8}, {**scaat, "epsilon": 4 * setting.linf}

    def run(label, description, passes, *objective, **train):
        return _run(label, description, budget // passes, *objective, **train)

    def tuned(label, description, learning_rate=LEARNING_RATE / 10, **train):
        return _after_robust(label, description, linf, budget - PASSES * ROBUST_EPOCHS, learning_rate, **train)

    return (
        _standard(budget),
        run("linf", "Adversarial training in linf.", PASSES, "adversarial", linf),
        run("l2", "Adversarial training in L2.", PASSES, "adversarial", l2),
        run("trades", "Clean images, and agreement with the worst around them.", PASSES, "trades", trades),
        run("fgsm_rs", "Fast adversarial training: one step, random start.", 2, "fgsm_rs", linf, guard_drop=0.2),
        run("saliency_guided", "What the map calls unimportant is replaced by noise.", 3, "saliency_guided"),
        run("gradient_penalty", "A penalty on the gradient of the loss in the pixels.", 2, "gradient_penalty"),
        run("scaat", "The adversary changes the less important half.", PASSES, "scaat", scaat, unimportant),
        run("consistent", "Clean and attacked images shall have like activations.", 3, "consistent", fgsm),
        tuned("fine_tuned", "A robust network, then clean images at a small learning rate."),
        tuned(
            "first_layers",
            "The same, but the first two blocks stay as they are.",
            trainable=regimes.LATER_LAYERS[network],
        ),
        run("scaat_wide", "The adversary changes all but the most important fifth.", PASSES, "scaat", scaat, more),
        run("scaat_strong", "SCAAT with twice its epsilon.", PASSES, "scaat", stronger, unimportant),
        tuned("fine_tuned_gently", "As fine_tuned, at a tenth of its learning rate.", LEARNING_RATE / 100),
    )


def _standard(budget):
    """The start, which every run shares, and then its own budget."""
    on = common.phase("on", init_step="last", train=_train(budget), optimizer=_optimizer())
    return common.run("standard", "Trained on clean images.", phases=(common.phase("start"), on))


def _run(label, description, epochs, objective, attack=None, fields=(), **train):
    return common.run(
        label,
        description,
        init_from={"workdir": START, "step": "last"},
        objective={"name": objective, **({"attack": attack} if attack else {}), **dict(fields)},
        optimizer=_optimizer(),
        schedules=regimes.ramp(attack),
        train=_train(epochs) | train,
    )


def _after_robust(label, description, attack, epochs, learning_rate, **train):
    """Adversarial training, then ``epochs`` of clean images."""
    robust = common.phase(
        "robust",
        objective={"name": "adversarial", "attack": attack},
        schedules=regimes.ramp(attack),
        optimizer=_optimizer(),
        train=_train(ROBUST_EPOCHS),
    )
    tuned = common.phase(
        "tuned",
        init_step="last",
        optimizer=_optimizer(learning_rate),
        train=_train(epochs) | train,
    )
    return common.run(label, description, init_from={"workdir": START, "step": "last"}, phases=(robust, tuned))


def _optimizer(learning_rate=LEARNING_RATE):
    return {"schedule": "cosine", "learning_rate": learning_rate}


def _train(epochs):
    return {"epochs": epochs, "validate_every": 1, "checkpoint_every": 1}
