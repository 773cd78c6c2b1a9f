"""Each example as a user runs it, in a process of its own; what it prints is read as numbers."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from configs import folder
from robust_saliency import config, config_sections, initialise, models
from tests.models import torchvision_weights

ROOT = Path(__file__).parents[1]
EDGES = {"configs", "grain", "launch", "ml_collections", "orbax", "tensorflow_datasets"}
PURE = ("linen_model", "nnx_model", "equinox_model", "plain_function")


def run(name, *arguments, before="", status=0):
    """What an example prints, and afterwards the names of all modules that it has loaded."""
    code = f"""
import runpy, sys
{before}
sys.argv[1:] = {list(map(str, arguments))!r}
runpy.run_path({str(ROOT / "examples" / f"{name}.py")!r}, run_name="__main__")
print("loaded:", *sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    if status:
        return done.stderr
    printed, _, loaded = done.stdout.partition("loaded: ")
    if name in PURE:
        assert EDGES.isdisjoint(loaded.split())
    return printed


def numbers(printed, label):
    """Those of the one line that begins with ``label``."""
    (line,) = [line for line in printed.splitlines() if line.startswith(label)]
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line.removeprefix(label))]


def test_linen_model_is_more_robust_and_its_maps_are_truer_after_adversarial_training():
    printed = run("linen_model")
    standard, adversarial = numbers(printed, "standard"), numbers(printed, "adversarial")
    centre, edges = numbers(printed, "blind: centre"), numbers(printed, "blind: edges")
    assert standard[0] > 0.8 and standard[1] < 0.1 and adversarial[1] > standard[1] + 0.2
    assert adversarial[2] > standard[2] + 0.05 and adversarial[2] > edges[0] + 0.1 > centre[0] + 0.1


def test_nnx_model_sweeps_epsilon_with_one_program():
    printed = run("nnx_model")
    sweeps = [line.split()[2:] for line in printed.splitlines() if line.startswith("robust accuracy")]
    coarse, fine = np.array(sweeps, float)
    assert coarse[0] > 0.9 and coarse[-1] < 0.1 and np.all(np.diff(coarse) <= 0)
    assert fine[0] >= 0.5 > fine[-1] and fine[0] in coarse and fine[-1] in coarse
    assert "12 attacks, 1 compilation\n" in printed
    assert (
        numbers(printed, "grad_cam")[0] > numbers(printed, "gradient")[0] > numbers(printed, "blind: random")[0] + 0.05
    )
    assert numbers(printed, "grad_cam")[1] < numbers(printed, "blind: random")[1]


def test_equinox_model_is_fooled_and_its_gradient_shows_the_ruler():
    printed = run("equinox_model")
    assert numbers(printed, "accuracy: ")[0] > numbers(printed, "accuracy under APGD, L2 0.25: ")[0] + 0.1
    assert 0.05 < numbers(printed, "median distance of DeepFool's adversaries: ")[0] < 2
    assert numbers(printed, "probability of melanoma lost without the ruler: ")[0] > 0.3
    assert numbers(printed, "gradient")[1] > numbers(printed, "blind: edges")[1] + 0.3
    assert len(re.findall(r"10 steps, 32 images, [\w.]+: \d+ ms", printed)) == 2


def test_plain_function_is_attacked_where_the_mask_says_and_explained_by_a_method_of_its_own():
    printed = run("plain_function")
    clean = numbers(printed, "accuracy: ")[0]
    shape, ground, image = (numbers(printed, f"accuracy where PGD may change the {part}: ")[0] for part in PARTS)
    assert clean > max(shape, ground) + 0.2 and min(shape, ground) >= image
    mass, _, road = zip(*(numbers(printed, name) for name in ("yours", "blind: random")), strict=True)
    assert mass[0] > 2 * mass[1] and road[0] < road[1]


PARTS = ("shape", "ground", "image")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({name: np.asarray(array) for name, array in torchvision_weights.state_dict(18, 8).items()}, path)
    return path


def test_pretrained_explains_images_and_leaves_a_run_to_begin_with(weights, tmp_path):
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 80, 3), np.uint8)
    for name, image in zip("ab", pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "names").write_text("\n".join(f"thing{i}" for i in range(10)))
    printed = run(
        "pretrained", f"--weights={weights}", f"--images={tmp_path / 'images'}", f"--names={tmp_path / 'names'}",
        "--side=48", f"--out={tmp_path / 'maps.png'}", f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    assert "ResNet18 of 10 classes" in printed
    shares = numbers(printed, "b.png: ")
    assert len(shares) == 5 and shares == sorted(shares, reverse=True) and "thing" in printed
    with Image.open(tmp_path / "maps.png") as picture:
        assert min(picture.size) > 200

    classifier = models.make(models.ResNet18(stem="imagenet", width=8), (32, 32, 3), 3)
    fresh = jax.eval_shape(classifier.init, jax.random.key(0))
    init_from = config_sections.InitFrom(workdir="../run", exclude="logits")
    taken = initialise.from_run(fresh, init_from, str(tmp_path / "tuned"))
    kernel = torchvision_weights.state_dict(18, 8)["layer4.1.conv2.weight"]
    np.testing.assert_array_equal(taken["params"]["block4_2"]["conv2"]["conv"]["kernel"], kernel.transpose(2, 3, 1, 0))
    assert taken["params"]["logits"] == fresh["params"]["logits"]


def test_pretrained_names_the_config_of_the_network_that_it_has_made():
    text = ast.get_docstring(ast.parse((ROOT / "examples" / "pretrained.py").read_text()))
    flags = re.findall(r"--config\.(model\S+|init_from\S+)=(\S+)", text)
    changes = {
        name: ast.literal_eval(value.strip('"')) if value[0] in '"0123456789' else value for name, value in flags
    }
    chosen = folder.get_config()
    chosen.update_from_flattened_dict(changes)
    experiment = config.parse(config.to_plain(chosen))
    assert experiment.model.spec == models.torchvision_spec(torchvision_weights.state_dict(50))[0]
    assert experiment.init_from == config_sections.InitFrom(workdir="DIR", exclude="logits")


def test_pretrained_says_what_it_cannot_read(weights, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    absent = "sys.modules['torch'] = None"
    said = run("pretrained", f"--weights={tmp_path / 'weights.pth'}", before=absent, status=2)
    assert "can only be read by PyTorch: pip install torch, or give .safetensors." in said
    said = run("pretrained", f"--weights={weights}", f"--images={tmp_path / 'none'}", status=2)
    assert "Cannot read the image" in said
