"""Which maps reveal a shortcut, and which training hides it: a ruler lies on 95 % of the melanomas and on nothing else.

    python launch.py --config=configs/study_shortcut.py --workdir=runs/shortcut
    python launch.py --config=configs/study_shortcut.py:small --workdir=runs/shortcut_small

Planted lesions, so it is known where the ruler is. 'reliance' is the truth, the probability of the class that is lost
when the ruler is filled in from the skin around it; the mass of a map on the ruler, over that of maps that have not
seen the network, is what a reader of maps would see. ':small' trains standard and linf alone, with one seed.
Expected: docs/shortcuts.md.
"""

from configs import common, data_sets, regimes

METHODS = {
    "gradient": {},
    "input_x_gradient": {"baseline": {"kind": "mean"}},
    "integrated_gradients": {"num_steps": 16, "baseline": {"kind": "mean"}},
    "smoothgrad": {"num_samples": 8, "sigma": 0.15},
    "contrast": {},
    "guided_backprop": {},
    "grad_cam": {"layer": "conv3"},
    "occlusion": {},
    "rise": {},
}


def get_config(size="full"):
    common.check_size(size)
    config, setting = data_sets.begin("planted_lesions")
    config.title = "Planted lesions with a ruler on the melanomas"
    config.description = "Can one see in a map that a network has learnt the ruler?"
    config.data.planted.shortcut = "ruler"
    config.data.planted.shortcut_class = 1
    config.data.planted.shortcut_rate = 0.95
    config.evaluation.maps = {name: common.saliency(name, **fields) for name, fields in METHODS.items()}
    config.evaluation.metrics = {
        "reliance": common.metric("mask_reliance", mask="ruler"),
        "ruler_mass": common.metric("relevance_mass", mask="ruler"),
        "ruler_auc": common.metric("mask_auc", mask="ruler"),
        "ruler_pointing": common.metric("pointing_game", mask="ruler"),
        "lesion_mass": common.metric("relevance_mass", mask="lesion"),
        "gini": common.metric("gini"),
    }
    runs = [
        common.run("standard", "Trained on clean images."),
        _regime("linf", "Trained on the worst images within a box.", setting, "adversarial"),
    ]
    if size == "full":
        config.study.seeds = 3
        l2 = {"norm": "l2", "epsilon": setting.l2}
        runs += [
            _regime("l2", "Trained on the worst images within a distance.", setting, "adversarial", **l2),
            _regime("trades", "Clean images, and agreement with the worst.", setting, "trades", start="gaussian"),
            _regime("scaat", "Attacked where the map calls the image unimportant.", setting, "scaat", start="gaussian"),
        ]
    config.study.runs = tuple(runs)
    return config


def _regime(label: str, description: str, setting, objective: str, **attack):
    """A run from standard weights, under its regime for as long as adversarial training of this data set."""
    changes = regimes.phase(setting, "", {"name": objective, "attack": regimes.linf(setting, **attack)}).overrides
    return common.run(label, description, **changes.to_dict(), init_from={"workdir": "../standard"})
