"""What does a ResNet-18 or ResNet-50 trained with PyTorch look at? Its weights in the bundled network, and its maps.

    pip install safetensors
    python examples/pretrained.py --weights=resnet50.safetensors --images=photo.jpg --out=maps.png

The weights are a state_dict as torchvision names it, in a .safetensors file or in one that torch.save wrote. Images are
a file or a folder; without them three lesions are drawn, of which a network of ImageNet knows nothing. Labels of your
own: --names=FILE, one a line. With --workdir=DIR the weights become a run from which a training can begin:

    python launch.py --config=configs/folder.py --workdir=runs/tuned --config.data.data_dir=FOLDER \\
        --config.data.image_size=224 --config.model.name=resnet50 --config.model.width=64 \\
        --config.model.stem=imagenet \\
        --config.model.mean="(0.485,0.456,0.406)" --config.model.std="(0.229,0.224,0.225)" \\
        --config.init_from.workdir=DIR --config.init_from.exclude=logits
"""

import argparse
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageOps

from robust_saliency import data, models, saliency

METHODS = {
    "gradient": saliency.Gradient(),
    "smoothgrad": saliency.SmoothGrad(num_samples=16),
    "integrated_gradients": saliency.IntegratedGradients(num_steps=16),
    "grad_cam": saliency.GradCAM(),
}


def read_weights(path):
    """Name -> array, of a .safetensors file by its own small library, of any other by PyTorch."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read: {error}.") from None
    try:
        import torch
    except ImportError:
        raise ValueError(f"{path} can only be read by PyTorch: pip install torch, or give .safetensors.") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)  # nothing that the file holds is run
    except pickle.UnpicklingError:
        raise ValueError(f"{path} holds more than tensors; save model.state_dict() alone.") from None
    return {name: tensor.float().numpy() for name, tensor in loaded.get("state_dict", loaded).items()}


def read_images(path, side):
    """float32 ``[B, side, side, 3]`` in [0, 1]: the middle 7/8 of each image, as torchvision evaluates; and names."""
    if path is None:
        spec = data.PlantedLesions(size=side)
        render = jax.jit(jax.vmap(lambda key, label: data.planted_lesions.render(key, label, spec)["image"]))
        return render(jax.random.split(jax.random.key(0), 3), jnp.arange(3)), data.planted_lesions.CLASS_NAMES
    files = data.images.image_files(path) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"No image in {path}.")
    images = []
    for file in files:
        image = Image.fromarray(data.images.read(file, size=None, channels=3))
        images.append(np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR, bleed=1 / 16)))
    return jnp.asarray(np.stack(images), jnp.float32) / 255, [file.name for file in files]


def save_picture(path, images, maps, titles):
    figure, axes = plt.subplots(
        len(images), 1 + len(maps), figsize=(2 + 2 * len(maps), 2.2 * len(images)), squeeze=False
    )
    for row, image, title, *shown in zip(axes, images, titles, *maps.values(), strict=True):
        row[0].imshow(image)
        row[0].set_title(title, fontsize=8)
        for cell, name, one in zip(row[1:], maps, shown, strict=True):
            cell.imshow(one, cmap="inferno", vmin=0, vmax=np.quantile(one, 0.99))
            cell.set_title(name, fontsize=8)
    for cell in axes.flat:
        cell.axis("off")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def save_run(workdir, variables):
    """A checkpoint that ``config.init_from`` can read."""
    from robust_saliency import checkpoint, workdirs

    with checkpoint.Checkpointer(workdirs.checkpoints(workdir), asynchronous=False) as checkpoints:
        trainer = {"step": jnp.int32(0)}  # a training that begins here has a fresh one
        checkpoints.save(0, variables=variables, trainer=trainer, position={}, config={}, metrics={})


def main(arguments):
    state_dict = read_weights(arguments.weights)
    spec, num_classes = models.torchvision_spec(state_dict)
    classifier = models.make(spec, (arguments.side, arguments.side, 3), num_classes)
    variables = models.from_torchvision(state_dict, classifier)
    images, titles = read_images(arguments.images, arguments.side)
    names = arguments.names.read_text().splitlines() if arguments.names else [f"class {i}" for i in range(num_classes)]
    if len(names) != num_classes:
        raise ValueError(f"{arguments.names} names {len(names)} classes, but the network has {num_classes}.")

    probabilities = jax.nn.softmax(jax.jit(lambda v, x: classifier.logits_fn(v)(x))(variables, images))
    print(f"{type(spec).__name__} of {num_classes} classes")
    for title, row in zip(titles, probabilities, strict=True):
        top = jnp.argsort(-row)[:5]
        print(f"{title}: " + ", ".join(f"{names[i]} {row[i]:.3f}" for i in top))

    @jax.jit
    def explain(variables, images, labels, spec):
        return saliency.run(classifier.logits_fn(variables), jax.random.key(0), images, labels, spec)

    predicted = probabilities.argmax(-1)
    maps = {name: explain(variables, images, predicted, spec) for name, spec in METHODS.items()}
    save_picture(arguments.out, images, maps, titles)
    print(f"Maps of the predicted classes: {arguments.out}")
    if arguments.workdir:
        save_run(arguments.workdir, variables)
        print(f"A run to begin with: --config.init_from.workdir={arguments.workdir.resolve()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors or .pth")
    parser.add_argument("--images", type=Path, help="an image, or a folder of images")
    parser.add_argument("--names", type=Path, help="names of the classes, one a line")
    parser.add_argument("--side", type=int, default=224, help="pixels of an image's side")
    parser.add_argument("--out", type=Path, default=Path("maps.png"), help="the picture that is written")
    parser.add_argument("--workdir", type=Path, help="a new workdir for config.init_from")
    try:
        main(parser.parse_args())
    except ValueError as error:
        parser.error(str(error))
