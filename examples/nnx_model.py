"""A trained NNX network: its accuracy at every epsilon by one program, and maps of gradients and of activations.

    python examples/nnx_model.py

The class is the direction of a few stripes somewhere in noise, so that it is known where a map should look.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from robust_saliency import attacks, losses, metrics, models, saliency
from robust_saliency.threat import Threat

SIDE, STRIPES = 24, 9


def draw(key, label):
    """An image ``[24, 24, 1]`` with 9 x 9 pixels of stripes, turned by 45 degrees a class, and their mask."""
    place, phase, noise = jax.random.split(key, 3)
    y, x = jnp.meshgrid(jnp.arange(SIDE), jnp.arange(SIDE), indexing="ij")
    row, column = jax.random.randint(place, (2,), 0, SIDE - STRIPES + 1)
    mask = (y >= row) & (y < row + STRIPES) & (x >= column) & (x < column + STRIPES)
    across = x * jnp.cos(label * jnp.pi / 4) + y * jnp.sin(label * jnp.pi / 4)
    wave = jnp.sin(1.6 * across + jax.random.uniform(phase, maxval=2 * jnp.pi))
    image = 0.5 + jnp.where(mask, 0.3 * wave, 0) + 0.08 * jax.random.normal(noise, (SIDE, SIDE))
    return {"image": image.clip(0, 1)[..., None], "label": label, "mask": mask.astype(jnp.float32)}


draw_batch = jax.jit(lambda key, labels: jax.vmap(draw)(jax.random.split(key, len(labels)), labels))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 16, (5, 5), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.conv3 = nnx.Conv(32, 32, (3, 3), rngs=rngs)
        self.head = nnx.Linear(32, 4, rngs=rngs)

    def __call__(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = nnx.relu(conv(x))
        return self.head(x.mean((1, 2)))


def train(model, num_steps=300):
    """Your own training: nothing of the library is in it."""
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)

    def loss(model, batch):
        return optax.softmax_cross_entropy_with_integer_labels(model(batch["image"]), batch["label"]).mean()

    @nnx.jit
    def step(model, optimizer, batch):
        optimizer.update(model, nnx.grad(loss)(model, batch))

    for index in range(num_steps):
        step(model, optimizer, draw_batch(jax.random.key(index), jnp.arange(64) % 4))


def main():
    model = Net(nnx.Rngs(0))
    train(model)
    classifier = models.from_nnx(lambda rngs: model, (SIDE, SIDE, 1))  # the trained module; init gives its weights
    variables, test = classifier.init(jax.random.key(0)), draw_batch(jax.random.key(10**6), jnp.arange(200) % 4)
    compiled = []

    @jax.jit
    def robust_accuracies(variables, key, test, epsilons):
        compiled.append("this line runs where the program is traced, not when it runs")
        images, labels, logits_fn = test["image"], test["label"], classifier.logits_fn(variables)

        def robust_accuracy(epsilon):  # a spec is a pytree, and epsilon a number in it
            spec = attacks.PGD(threat=Threat(epsilon=epsilon), step_size=epsilon / 4, num_steps=10)
            attacked = attacks.pgd(lambda x: losses.cross_entropy(logits_fn(x), labels), key, images, spec)
            return metrics.correct(logits_fn(attacked), labels).mean()

        return jax.vmap(robust_accuracy)(epsilons)

    epsilons = jnp.linspace(0, 0.1, 6)
    for _ in range(2):
        accuracies = robust_accuracies(variables, jax.random.key(1), test, epsilons)
        print("epsilon        ", *(f"{epsilon:.3f}" for epsilon in epsilons))
        print("robust accuracy", *(f"{accuracy:.3f}" for accuracy in accuracies))
        below = jnp.argmax(accuracies < 0.5)  # then a closer look at where the curve goes through one half
        epsilons = jnp.linspace(epsilons[below - 1], epsilons[below], 6)
    print(f"12 attacks, {len(compiled)} compilation\n\n{'':14}  mask AUC  deletion AUC (lower is better)")

    @jax.jit
    def scores(variables, key, test, spec):
        """``spec`` is that of a saliency method, or maps."""
        images, labels, logits_fn = test["image"], test["label"], classifier.logits_fn(variables)
        maps = spec if isinstance(spec, jax.Array) else saliency.run(logits_fn, key, images, labels, spec)
        given = {"logits_fn": logits_fn, "key": key, "images": images, "labels": labels, "masks": test["mask"]}
        return [metrics.run(each, **given, maps=maps).mean() for each in (metrics.MaskAUC(), metrics.Deletion())]

    rows = {
        "gradient": saliency.Gradient(),
        "smoothgrad": saliency.SmoothGrad(num_samples=16),
        "grad_cam": saliency.GradCAM(layer="conv3"),
        "blind: random": metrics.blind.random_map(jax.random.key(2), test["mask"].shape),
        "blind: edges": metrics.blind.sobel(test["image"]),
    }
    for name, row in rows.items():
        print(f"{name:14}  {{:8.2f}}  {{:12.2f}}".format(*scores(variables, jax.random.key(3), test, row)))


if __name__ == "__main__":
    main()
