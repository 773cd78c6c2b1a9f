"""A Linen network and a training loop of your own: are the maps truer after adversarial training?

    python examples/linen_model.py

It learns to tell drawn skin lesions apart, of which it is known where the evidence of the class lies; then an objective
of the library goes on with it, in the same loop. Its gradient maps are judged beside maps that never saw the network.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from robust_saliency import attacks, data, losses, metrics, models, objectives, saliency
from robust_saliency.threat import Threat

THREAT = Threat(norm="linf", epsilon=4 / 255)


class Net(nn.Module):
    """As you would write it: it knows nothing of attacks and maps."""

    @nn.compact
    def __call__(self, x, train=False):
        for features in (32, 64, 64):
            x = nn.Conv(features, (3, 3), 2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(3)(x.mean((1, 2)))


@jax.jit
def draw(key, labels):
    """A batch: image, lesion_mask, evidence_mask, ...; objectives read the label, and which examples are valid."""
    keys, spec = jax.random.split(key, len(labels)), data.PlantedLesions()
    drawn = jax.vmap(lambda key, label: data.planted_lesions.render(key, label, spec))(keys, labels)
    return {**drawn, "label": labels, "valid": jnp.ones(len(labels), bool)}


def train(classifier, variables, key, num_steps, objective, spec):
    """A step of any objective: perturb the batch, then descend along the gradient of its loss."""
    optimiser = optax.adam(optax.cosine_decay_schedule(4e-3, num_steps))

    @jax.jit
    def step(variables, opt_state, key, batch):
        batch = objective.perturb(classifier, variables, key, batch, spec)

        def loss(params):
            return objective.loss(classifier, {**variables, "params": params}, (), key, batch, spec)

        gradient, (state, _) = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimiser.update(gradient, opt_state)
        return {"params": optax.apply_updates(variables["params"], updates), "state": state}, opt_state

    opt_state, labels = optimiser.init(variables["params"]), jnp.arange(64) % 3
    for index in range(num_steps):
        now = jax.random.fold_in(key, index)
        variables, opt_state = step(variables, opt_state, now, draw(now, labels))
    return variables


def judge(maps, masks):
    """Share of a map inside the evidence, and how often its maximum is there: means of one value an image."""
    scores = [metric(maps, masks) for metric in (metrics.relevance_mass, metrics.pointing_game)]
    return [jnp.nanmean(score) for score in scores]  # NaN has no meaning there: an empty map or mask


def main():
    classifier = models.from_linen(Net(), (32, 32, 3))

    @jax.jit
    def scores(variables, key, test):
        images, labels, logits_fn = test["image"], test["label"], classifier.logits_fn(variables)
        attack = attacks.PGD(threat=THREAT, step_size=THREAT.epsilon / 4, num_steps=10)
        attacked = attacks.pgd(lambda x: losses.cross_entropy(logits_fn(x), labels), key, images, attack)
        maps = saliency.gradient(logits_fn, key, images, labels, saliency.Gradient())
        accuracies = [(logits_fn(x).argmax(-1) == labels).mean() for x in (images, attacked)]
        return *accuracies, *judge(maps, test["evidence_mask"])

    key = jax.random.key(0)
    start = jax.jit(classifier.init)(key)
    standard = train(classifier, start, key, 250, objectives.standard, objectives.Standard())
    adversary = attacks.PGD(threat=THREAT, step_size=THREAT.epsilon / 2, num_steps=3)
    spec = objectives.Adversarial(attack=adversary)
    robust = train(classifier, standard, jax.random.key(1), 150, objectives.adversarial, spec)

    test = draw(jax.random.key(2), jnp.arange(192) % 3)
    print(f"{'':14}  accuracy  under PGD  evidence mass  pointing game")
    for name, variables in {"standard": standard, "adversarial": robust}.items():
        print(f"{name:14}  {{:8.2f}}  {{:9.2f}}  {{:13.2f}}  {{:13.2f}}".format(*scores(variables, key, test)))
    shape = test["lesion_mask"].shape
    floors = {"centre": metrics.blind.centre_gaussian(shape), "edges": metrics.blind.sobel(test["image"])}
    for name, maps in floors.items():
        print(f"{'blind: ' + name:35}  {{:13.2f}}  {{:13.2f}}".format(*judge(maps, test["evidence_mask"])))


if __name__ == "__main__":
    main()
