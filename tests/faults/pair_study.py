"""The small study with one map and few metrics: two processes compile everything twice."""

from tests.faults import small_study


def get_config():
    config = small_study.get_config()
    config.mesh.num_devices = 2
    config.study.runs = config.study.runs[:1]
    config.evaluation.attacks.linf.num_steps = config.evaluation.attacks.l2.num_steps = 2
    config.evaluation.randomisation.num_examples = 16
    for name in ("deletion", "insertion", "evidence_mass", "evidence_given_lesion", "total_variation"):
        del config.evaluation.metrics[name]
    return config
