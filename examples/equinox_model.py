"""An Equinox network that has learnt a shortcut: who is fooled, how fast, and do its maps show the ruler?

    pip install equinox
    python examples/equinox_model.py

Every melanoma of its training images has a ruler beside it, and no other lesion has. Whatever takes images [B, H, W, C]
to logits [B, K] can be attacked and explained; here it is ``jax.vmap`` of a module for one image [C, H, W].
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from robust_saliency import attacks, data, losses, metrics, models, saliency
from robust_saliency.data.planted_lesions import CONCEPTS, MELANOMA
from robust_saliency.threat import Threat

THREAT = Threat(norm="l2", epsilon=0.25)


class FastConv(eqx.nn.Conv2d):
    """The same layer; its gradient is fast in a compiled loop on CPU too, which knows one order of the axes."""

    def __call__(self, x, *, key=None):
        image, kernel, axes = x.transpose(1, 2, 0)[None], self.weight.transpose(2, 3, 1, 0), ("NHWC", "HWIO", "NHWC")
        y = models.conv_general_dilated(image, kernel, self.stride, self.padding, dimension_numbers=axes)
        return y[0].transpose(2, 0, 1) + self.bias


def make_net(Conv, key):
    keys, relu = jax.random.split(key, 4), eqx.nn.Lambda(jax.nn.relu)
    convs = [Conv(3, 16, 3, 2, 1, key=keys[0]), Conv(16, 32, 3, 2, 1, key=keys[1]), Conv(32, 64, 3, 1, 1, key=keys[2])]
    layers = [layer for conv in convs for layer in (conv, relu)]
    normalise, mean = eqx.nn.Lambda(lambda x: (x - 0.5) / 0.25), eqx.nn.Lambda(lambda x: x.mean((1, 2)))
    return eqx.nn.Sequential([normalise, *layers, mean, eqx.nn.Linear(64, 3, key=keys[3])])


def logits_of(net):
    return lambda images: jax.vmap(net)(images.transpose(0, 3, 1, 2))


@jax.jit
def draw(key, labels):
    keys, spec = jax.random.split(key, len(labels)), data.PlantedLesions(shortcut="ruler")
    drawn = jax.vmap(lambda key, label: data.planted_lesions.render(key, label, spec))(keys, labels)
    return {**drawn, "label": labels}


def train(net, num_steps=300):
    optimiser = optax.adam(optax.cosine_decay_schedule(5e-3, num_steps))

    def loss(net, batch):
        return losses.cross_entropy(logits_of(net)(batch["image"]), batch["label"]).mean()

    @eqx.filter_jit
    def step(net, opt_state, batch):
        updates, opt_state = optimiser.update(eqx.filter_grad(loss)(net, batch), opt_state)
        return eqx.apply_updates(net, updates), opt_state

    opt_state = optimiser.init(eqx.filter(net, eqx.is_array))
    for index in range(num_steps):
        net, opt_state = step(net, opt_state, draw(jax.random.key(index), jnp.arange(48) % 3))
    return net


@eqx.filter_jit
def pgd(net, key, images, labels):
    spec = attacks.PGD(threat=THREAT, step_size=0.1, num_steps=10)
    return attacks.pgd(lambda x: losses.cross_entropy(logits_of(net)(x), labels), key, images, spec)


@eqx.filter_jit
def decide(net, key, images, labels, spec):
    return attacks.decide(logits_of(net), key, images, labels, spec)


@eqx.filter_jit
def explain(net, key, images, labels, spec):
    return saliency.run(logits_of(net), key, images, labels, spec)


def main():
    slow = train(make_net(eqx.nn.Conv2d, jax.random.key(0)))
    net = jax.tree.unflatten(jax.tree.structure(make_net(FastConv, jax.random.key(0))), jax.tree.leaves(slow))
    key, test = jax.random.key(1), draw(jax.random.key(10**6), jnp.arange(96) % 3)
    images, labels = test["image"], test["label"]
    for name, model in {"eqx.nn.Conv2d": slow, "models.conv_general_dilated": net}.items():
        pgd(model, key, images[:32], labels[:32]).block_until_ready()  # compiles
        start = time.perf_counter()
        pgd(model, key, images[:32], labels[:32]).block_until_ready()
        print(f"PGD, 10 steps, 32 images, {name}: {1000 * (time.perf_counter() - start):.0f} ms")

    apgd = attacks.Untargeted(attack=attacks.APGD(threat=THREAT, num_steps=20))  # or attacks.AutoAttack(threat=THREAT)
    strongest = decide(net, key, images, labels, apgd)
    nearest = decide(net, key, images, labels, attacks.DeepFool(threat=Threat(norm="l2", epsilon=10.0)))
    print(f"\naccuracy: {metrics.correct(logits_of(net)(images), labels).mean():.2f}")
    print(f"accuracy under APGD, L2 {THREAT.epsilon}: {1 - strongest.success.mean():.2f}")
    print(f"median distance of DeepFool's adversaries: {jnp.median(nearest.distance):.2f}")

    chosen = labels == MELANOMA
    images, labels, ruler = images[chosen], labels[chosen], test["concepts"][chosen, ..., CONCEPTS.index("ruler")]
    reliance = metrics.mask_reliance(logits_of(net), images, labels, ruler)
    print(
        f"probability of melanoma lost without the ruler: {reliance.mean():.2f}\n\n{'':17}  mass in it  maximum in it"
    )
    specs = {"gradient": saliency.Gradient(), "input x gradient": saliency.InputXGradient()}
    maps = {name: explain(net, key, images, labels, spec) for name, spec in specs.items()}
    maps["blind: random"] = metrics.blind.random_map(key, ruler.shape)
    maps["blind: edges"] = metrics.blind.sobel(images)
    for name, each in maps.items():
        scores = [metric(each, ruler).mean() for metric in (metrics.relevance_mass, metrics.pointing_game)]
        print(f"{name:17}  {{:10.2f}}  {{:13.2f}}".format(*scores))


if __name__ == "__main__":
    main()
