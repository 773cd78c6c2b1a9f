import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from robust_saliency import randomness
from robust_saliency.data import AugmentSpec, augment, to_float
from robust_saliency.data.augment import change, draw_numbers

GEOMETRIC = [
    {"flip": True},
    {"vertical_flip": True},
    {"transpose": True},
    {"crop_padding": 3},
    {"rotate": True, "rotation": 180.0},
    {"flip": True, "vertical_flip": True, "transpose": True, "crop_padding": 2, "rotate": True, "rotation": 30.0},
]
EVERYTHING = {**GEOMETRIC[-1], "colour": True, "brightness": 0.3, "contrast": 0.3, "saturation": 0.5}


draw = jax.jit(lambda key: draw_numbers(key, 600))  # compiled once for all tests, which takes longer than they do
apply = jax.jit(change)


def run(key, batch, **fields):
    numbers = {name: values[: len(batch["image"])] for name, values in draw(key).items()}
    return apply(numbers, batch, AugmentSpec(**fields))


def marked(size=9, num=64, channels=3):
    """Images of which one block of 3 x 3 pixels, off the centre, is 1, and masks of the same block."""
    plane = np.zeros((num, size, size), np.float32)
    plane[:, 1:4, 4:7] = 1
    return {
        "image": jnp.asarray(np.repeat(plane[..., None], channels, -1)),
        "lesion_mask": jnp.asarray(plane),
        "evidence_mask": jnp.asarray(plane),
        "concepts": jnp.asarray(np.repeat(plane[..., None], 6, -1)),
        "label": jnp.arange(num),
    }


def test_to_float_divides_by_255_exactly_and_leaves_the_rest():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    batch = {"image": image, "lesion_mask": (image[..., 0] % 2), "label": np.array([3], np.int32)}
    out = jax.jit(to_float)(batch)
    assert out["image"].dtype == out["lesion_mask"].dtype == jnp.float32
    np.testing.assert_allclose(out["image"], image / 255.0, rtol=1.2e-7)
    assert out["image"].min() == 0.0 and out["image"].max() == 1.0
    np.testing.assert_array_equal(out["lesion_mask"], image[..., 0] % 2)
    assert out["label"] == 3 and out["label"].dtype == jnp.int32


def test_off_is_the_identity_bit_by_bit(key, rng):
    batch = {**marked(), "image": jnp.asarray(rng.random((64, 9, 9, 3), np.float32))}
    out = run(key, batch)
    assert out.keys() == batch.keys()
    for name in batch:
        np.testing.assert_array_equal(out[name], batch[name])


def test_changes_of_strength_zero_are_the_identity_bit_by_bit(key, rng):
    batch = {**marked(), "image": jnp.asarray(rng.random((64, 9, 9, 3), np.float32))}
    out = run(key, batch, rotate=True, colour=True)
    for name in batch:
        np.testing.assert_array_equal(out[name], batch[name])


@pytest.mark.parametrize("fields", GEOMETRIC)
def test_masks_move_with_the_image(key, fields):
    batch = marked()
    out = run(key, batch, **fields)
    moved = np.any(np.asarray(out["lesion_mask"] != batch["lesion_mask"]), axis=(1, 2))
    assert 0.2 < moved.mean() <= 1.0
    for name in ("lesion_mask", "evidence_mask", "concepts"):
        assert set(np.unique(out[name])) <= {0.0, 1.0}
    np.testing.assert_array_equal(out["evidence_mask"], out["lesion_mask"])
    np.testing.assert_array_equal(out["concepts"], np.repeat(np.asarray(out["lesion_mask"])[..., None], 6, -1))
    grey = np.asarray(out["image"][..., 0])
    mask = np.asarray(out["lesion_mask"])
    if "rotation" not in fields:
        np.testing.assert_array_equal(grey, mask)
    else:
        # a pixel nearest to the block is at least a quarter covered by it (half in each direction), and conversely
        assert grey[mask == 1].min() >= 0.25 - 1e-5 and grey[mask == 0].max() <= 0.75 + 1e-5
    np.testing.assert_array_equal(out["label"], batch["label"])


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("flip", lambda x: x[:, :, ::-1]),
        ("vertical_flip", lambda x: x[:, ::-1]),
        ("transpose", lambda x: np.swapaxes(x, 1, 2)),
    ],
)
def test_half_of_the_examples_are_flipped_and_the_flip_is_its_own_inverse(key, rng, field, change):
    image = rng.random((400, 4, 4, 3)).astype(np.float32)
    out = np.asarray(run(key, {"image": image}, **{field: True})["image"])
    changed = np.all(out == change(image), axis=(1, 2, 3))
    same = np.all(out == image, axis=(1, 2, 3))
    assert np.all(changed ^ same)
    assert 0.4 < changed.mean() < 0.6
    np.testing.assert_array_equal(run(key, {"image": out}, **{field: True})["image"], image)


def test_a_crop_is_a_uniform_shift_with_the_edge_repeated(key, rng):
    image = rng.random((600, 5, 6, 1)).astype(np.float32)
    out = np.asarray(run(key, {"image": image}, crop_padding=2)["image"])
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    counts = np.zeros((5, 5), int)
    for k in range(len(image)):
        fits = [(y, x) for y in range(5) for x in range(5) if np.array_equal(out[k], padded[k, y : y + 5, x : x + 6])]
        assert len(fits) == 1
        counts[fits[0]] += 1
    assert counts.min() > 5 and counts.max() < 50  # 24 expected, standard deviation 4.8


def test_angles_are_uniform_up_to_the_largest(key):
    image = np.zeros((500, 41, 41, 1), np.float32)
    image[:, 20, 36] = 1  # 16 pixels to the right of the centre
    turned = np.asarray(run(key, {"image": image}, rotate=True, rotation=40.0)["image"])[..., 0]
    mass = turned / turned.sum((1, 2), keepdims=True)
    place = np.arange(41) - 20
    y, x = mass.sum(2) @ place, mass.sum(1) @ place
    angles = np.rad2deg(np.arctan2(y, x))
    assert 36 < np.abs(angles).max() < 41.5 and abs(angles.mean()) < 4
    np.testing.assert_allclose(angles.std(), 40 / np.sqrt(3), rtol=0.1)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_rotation_agrees_with_scipy(seed):
    image = np.random.default_rng(seed).random((3, 9, 8, 2)).astype(np.float32)
    masks = (image[..., 0] < 0.4).astype(np.float32)
    batch = {"image": image, "lesion_mask": masks}
    out = run(jax.random.key(seed), batch, rotate=True, rotation=90.0)
    numbers = np.asarray(draw(jax.random.key(seed))["angle"])[:3]
    y, x = np.mgrid[:9, :8].astype(float) - np.array([4.0, 3.5])[:, None, None]
    for k, angle in enumerate(np.deg2rad(90) * (2 * numbers - 1)):
        cos, sin = np.cos(angle), np.sin(angle)
        at = [cos * y - sin * x + 4.0, sin * y + cos * x + 3.5]
        for c in range(2):
            expected = map_coordinates(image[k, ..., c], at, order=1, mode="nearest")
            np.testing.assert_allclose(out["image"][k, ..., c], expected, atol=2e-5)
        nearest = map_coordinates(masks[k], at, order=0, mode="nearest")
        np.testing.assert_array_equal(out["lesion_mask"][k], nearest)


def test_colour_keeps_the_masks_and_the_range(key, rng):
    batch = {**marked(num=32), "image": jnp.asarray(rng.random((32, 9, 9, 3), np.float32))}
    out = run(key, batch, colour=True, brightness=0.9, contrast=0.9, saturation=0.9)
    assert out["image"].min() >= 0 and out["image"].max() <= 1
    assert float(jnp.abs(out["image"] - batch["image"]).max()) > 0.3
    for name in ("lesion_mask", "evidence_mask", "concepts", "label"):
        np.testing.assert_array_equal(out[name], batch[name])


def test_brightness_contrast_and_saturation_are_what_they_say(key, rng):
    image = (0.4 + 0.2 * rng.random((50, 4, 4, 3))).astype(np.float32)
    luma = image @ np.array([0.299, 0.587, 0.114], np.float32)
    bright = np.asarray(run(key, {"image": image}, colour=True, brightness=0.3)["image"]) / image
    np.testing.assert_allclose(bright, np.broadcast_to(bright[:, :1, :1, :1], bright.shape), rtol=1e-5)
    assert 0.7 <= bright.min() < 0.8 and 1.2 < bright.max() <= 1.3 + 1e-5
    contrast = np.asarray(run(key, {"image": image}, colour=True, contrast=0.5)["image"])
    mean = luma.mean((1, 2))[:, None, None, None]
    factor = (contrast - mean) / (image - mean)
    np.testing.assert_allclose(np.std(factor[np.abs(image - mean) > 0.02]), factor[:, 0, 0, 0].std(), rtol=0.2)
    np.testing.assert_allclose((contrast @ np.array([0.299, 0.587, 0.114])).mean((1, 2)), luma.mean((1, 2)), rtol=1e-5)
    saturated = np.asarray(run(key, {"image": image}, colour=True, saturation=0.5)["image"])
    np.testing.assert_allclose(saturated @ np.array([0.299, 0.587, 0.114]), luma, rtol=1e-5)
    grey = np.repeat(luma[..., None], 3, -1).astype(np.float32)
    np.testing.assert_allclose(run(key, {"image": grey}, colour=True, saturation=0.9)["image"], grey, atol=1e-6)
    one_channel = image[..., :1]
    np.testing.assert_array_equal(run(key, {"image": one_channel}, colour=True, saturation=0.9)["image"], one_channel)


def test_with_a_key_an_example_the_change_does_not_depend_on_the_batch(key, rng):
    whole_program = jax.jit(augment)
    spec = AugmentSpec(**EVERYTHING)
    ids = np.arange(16)
    batch = {**marked(num=16), "image": jnp.asarray(rng.random((16, 9, 9, 3), np.float32))}
    whole = whole_program(randomness.per_example_keys(key, ids), batch, spec)
    order = rng.permutation(16)[:5]
    part = {name: array[order] for name, array in batch.items()}
    few = whole_program(randomness.per_example_keys(key, ids[order]), part, spec)
    for name in ("lesion_mask", "evidence_mask", "concepts"):
        np.testing.assert_array_equal(few[name], whole[name][order])
    np.testing.assert_allclose(few["image"], whole["image"][order], atol=1e-6)
    other = whole_program(randomness.per_example_keys(key, ids[order] + 100), part, spec)
    assert float(jnp.abs(other["image"] - few["image"]).max()) > 0.1


def test_a_sweep_over_strengths_does_not_recompile(key, rng):
    traces = []
    numbers = {name: values[:4] for name, values in draw(key).items()}

    @jax.jit
    def step(batch, spec):
        traces.append(1)
        return change(numbers, batch, spec)["image"]

    batch = {"image": rng.random((4, 5, 5, 3)).astype(np.float32)}
    outs = [
        step(batch, AugmentSpec(rotate=True, rotation=angle, colour=True, brightness=angle / 100))
        for angle in (0.0, 10.0, 20.0)
    ]
    assert len(traces) == 1
    np.testing.assert_array_equal(outs[0], batch["image"])
    assert not np.array_equal(outs[1], outs[2])


def test_off_leaves_a_jitted_step_without_a_random_number(key):
    batch = {"image": jnp.zeros((2, 4, 4, 3))}
    assert "threefry" not in jax.jit(augment).lower(key, batch, AugmentSpec()).compile().as_text()


def test_wrong_input_says_what_is_needed(key):
    with pytest.raises(ValueError, match="floating point"):
        augment(key, {"image": np.zeros((2, 4, 4, 3), np.uint8)}, AugmentSpec())
    with pytest.raises(ValueError, match=r"transpose needs square images, got 4 x 5"):
        augment(key, {"image": np.zeros((2, 4, 5, 3), np.float32)}, AugmentSpec(transpose=True))
    with pytest.raises(ValueError, match="crop_padding must be at least 0"):
        AugmentSpec(crop_padding=-1)


@pytest.mark.parametrize(
    ("field", "value", "switch"),
    [("rotation", 10, "rotate"), *((field, 0.2, "colour") for field in ("brightness", "contrast", "saturation"))],
)
def test_a_strength_whose_switch_is_off_is_refused(field, value, switch):
    expected = f"augment.{field} is {value}, which does nothing while augment.{switch} is False: set augment.{switch}"
    with pytest.raises(ValueError, match=expected):
        AugmentSpec(**{field: value})
    assert getattr(AugmentSpec(**{field: value, switch: True}), field) == value
    traced = jax.jit(lambda value: getattr(AugmentSpec(**{field: value}), field))  # nothing is known of a traced value
    assert traced(value) == jnp.float32(value)
