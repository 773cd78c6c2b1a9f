"""A network that is a plain function of arrays, and a saliency method of your own beside those of the library.

    python examples/plain_function.py

Discs, squares and crosses lie on a rough ground. Which pixels an adversary may change is a mask of its threat model.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from robust_saliency import attacks, losses, metrics, models, saliency
from robust_saliency.threat import Threat

SIDE = 24


def draw(key, label):
    """An image ``[24, 24, 1]`` with a disc (0), square (1) or cross (2) somewhere, and its mask."""
    place, ground, light = jax.random.split(key, 3)
    row, column = jax.random.randint(place, (2,), 6, SIDE - 6)
    y, x = abs(jnp.arange(SIDE)[:, None] - row), abs(jnp.arange(SIDE)[None, :] - column)
    cross = ((x <= 1) | (y <= 1)) & (x <= 5) & (y <= 5)
    mask = jnp.stack([x**2 + y**2 <= 20, (x <= 3) & (y <= 3), cross])[label].astype(jnp.float32)
    light = jax.random.uniform(light, minval=0.2, maxval=0.35)
    image = 0.35 + light * mask + 0.12 * jax.random.normal(ground, (SIDE, SIDE))
    return {"image": image.clip(0, 1)[..., None], "label": label, "mask": mask}


draw_batch = jax.jit(lambda key, labels: jax.vmap(draw)(jax.random.split(key, len(labels)), labels))


def init(key):
    keys, sizes = jax.random.split(key, 3), [(5, 5, 1, 16), (3, 3, 16, 32), (3, 3, 32, 32)]
    kernels = [jax.nn.initializers.he_normal()(k, size) for k, size in zip(keys, sizes, strict=True)]
    return {"kernels": kernels, "biases": [jnp.zeros(size[-1]) for size in sizes], "head": jnp.zeros((32, 3))}


def network(params, images):
    x, axes = images - 0.5, ("NHWC", "HWIO", "NHWC")
    for kernel, bias, stride in zip(params["kernels"], params["biases"], (2, 2, 1), strict=True):
        # In the place of jax.lax.conv_general_dilated: its gradient is fast in a compiled loop on CPU too.
        x = models.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=axes)
        x = jax.nn.relu(x + bias)
    return x.mean((1, 2)) @ params["head"]


def train(params, num_steps=300):
    optimiser = optax.adam(optax.cosine_decay_schedule(5e-3, num_steps))

    def loss(params, batch):
        return losses.cross_entropy(network(params, batch["image"]), batch["label"]).mean()

    @jax.jit
    def step(params, opt_state, batch):
        updates, opt_state = optimiser.update(jax.grad(loss)(params, batch), opt_state)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimiser.init(params)
    for index in range(num_steps):
        params, opt_state = step(params, opt_state, draw_batch(jax.random.key(index), jnp.arange(64) % 3))
    return params


def main():
    params, key = train(init(jax.random.key(0))), jax.random.key(1)
    test = draw_batch(jax.random.key(10**6), jnp.arange(150) % 3)
    images, labels, shapes = test["image"], test["label"], test["mask"]
    logits_fn = functools.partial(network, params)

    @jax.jit
    def accuracy_under_attack(key, mask):
        threat = Threat(epsilon=0.05, mask=mask[..., None])  # 1 where a pixel may change
        spec = attacks.PGD(threat=threat, step_size=0.01, num_steps=20)
        attacked = attacks.pgd(lambda x: losses.cross_entropy(logits_fn(x), labels), key, images, spec)
        return metrics.correct(logits_fn(attacked), labels).mean()

    print(f"accuracy: {metrics.correct(logits_fn(images), labels).mean():.2f}")
    for name, mask in {"shape": shapes, "ground": 1 - shapes, "image": jnp.ones_like(shapes)}.items():
        print(f"accuracy where PGD may change the {name}: {accuracy_under_attack(key, mask):.2f}")

    def yours(key, images, labels):
        """A method of your own: the gradient, times how far a pixel is from the mean of its image."""
        signed = jax.grad(lambda x: jnp.take_along_axis(logits_fn(x), labels[:, None], 1).sum())(images)
        return jnp.abs(signed * (images - images.mean((1, 2), keepdims=True))).sum(-1)

    def method(spec):
        return lambda key, images, labels: saliency.run(logits_fn, key, images, labels, spec)

    methods = {
        "gradient": method(saliency.Gradient()),
        "integrated gradients": method(saliency.IntegratedGradients(num_steps=16)),
        "yours": yours,
        "blind: random": lambda key, images, labels: metrics.blind.random_map(key, images.shape[:3]),
        "blind: edges": lambda key, images, labels: metrics.blind.sobel(images),
    }
    specs = {"mass": metrics.RelevanceMass(), "gini": metrics.Gini(), "road": metrics.Road()}

    @jax.jit
    def measure(maps, key, test):
        given = {"key": key, "images": test["image"], "labels": test["label"], "masks": test["mask"]}
        values, _ = metrics.measure(specs, logits_fn=logits_fn, maps=maps, **given)  # and the curves of those with one
        return {name: jnp.nanmean(value) for name, value in values.items()}

    print(f"\n{'':20}  mass in the shape  Gini  ROAD (lower is better)")
    for name, explain in methods.items():
        means = measure(jax.jit(explain)(key, images, labels), key, test)
        print(f"{name:20}  {means['mass']:17.2f}  {means['gini']:4.2f}  {means['road']:22.2f}")


if __name__ == "__main__":
    main()
