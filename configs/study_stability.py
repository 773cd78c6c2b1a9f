"""Do the maps of robust networks stand still: under a little noise, and under an attack on the explanation itself?

    python launch.py --config=configs/study_stability.py --workdir=runs/stability

The three networks of the quickstart, three seeds. How alike a map is to that of the noisy image, and to that of an
image within 4/255 a pixel that is made to change the gradient map while its prediction stays (Ghorbani et al. 2019), by
two similarities; how far maps move with noise, and as a share of how far the logits move; beside them, for a map that
never changes is perfectly stable, how much of it lies on the evidence. Expected scores: docs/results.md.
"""

from configs import common, quickstart

SIMILARITIES = ("spearman", "top_k_intersection")


def get_config():
    config = quickstart.get_config()
    config.title = "Planted lesions: maps under noise and under attack"
    config.description = "Do the maps of robust networks stand still?"
    config.study.seeds = 3
    stable = {
        f"{kind}_{similarity}": common.metric(f"{kind}_stability", similarity=similarity)
        for kind in ("noise", "attack")
        for similarity in SIMILARITIES
    }
    config.evaluation.metrics = stable | {
        "sensitivity": common.metric("average_sensitivity"),
        "relative_output_stability": common.metric("relative_output_stability"),
        "evidence_given_lesion": common.metric("evidence_given_lesion", mask="evidence", within="lesion"),
    }
    return config
