"""A run so small that each of its modes takes about a second: one map, one score, one attack."""

from configs import common, quickstart


def get_config():
    config = quickstart.get_config()
    config.data.num_train, config.data.num_validation, config.data.num_test = 64, 24, 24
    config.data.batch_size, config.model.width = 16, 4
    config.train.epochs, config.train.validate_every, config.train.checkpoint_every = 3, 1, 1
    config.train.keep_last = 3
    config.evaluation.batch_size, config.evaluation.num_pictures = 8, 6
    config.evaluation.maps = {"gradient": common.saliency("gradient")}
    config.evaluation.metrics = {"gini": common.metric("gini")}
    config.evaluation.attacks = {"linf": common.evaluated_attack(num_steps=2)}
    config.evaluation.randomisation.orders = ()
    return config
