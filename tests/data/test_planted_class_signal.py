"""Planted lesions: the class lies in the cues of the lesion, nowhere else, and not in its colour, area or darkness."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage as ndi
import scipy.optimize
import scipy.special
import scipy.stats

from robust_saliency.data.planted_lesions import (
    KERATOSIS,
    MELANOMA,
    NEVUS,
    PlantedLesions,
    generate,
)
from tests.data.lesion_layout import DOTS, HAIR, PATCH, coordinates

CLASS_PAIRS = ((NEVUS, MELANOMA), (NEVUS, KERATOSIS), (MELANOMA, KERATOSIS))


@pytest.fixture(scope="module")
def held_out():
    return generate(PlantedLesions(), 0, 768, "test")


def lesion_features(data):
    """Colour spread, dot energy and border irregularity, of pixels inside the lesion mask only."""
    x, y = coordinates()
    rows = []
    for image, mask in zip(data["image"][:768] / 255.0, data["lesion_mask"][:768] > 0, strict=True):
        pixels = image[mask]
        grey, hue = pixels.mean(1), pixels[:, 0] - pixels[:, 2]
        filled = np.where(mask, image.mean(2), grey.mean())
        rough = np.abs(ndi.laplace(filled))[ndi.binary_erosion(mask)]
        place = np.stack([x[mask], y[mask]])
        centred = place - place.mean(1, keepdims=True)
        squared = np.einsum("in,ij,jn->n", centred, np.linalg.inv(np.cov(place)), centred)
        rim = mask & ~ndi.binary_erosion(mask)
        spread = [*pixels.std(0), hue.std(), *np.percentile(grey - grey.mean(), [5, 95])]
        border = [(squared > 4).mean(), squared.max(), rim.sum() / np.sqrt(mask.sum())]
        rows.append([*spread, rough.mean(), np.percentile(rough, 90), *border])
    return np.array(rows)


def softmax_regression_accuracy(features, labels, test_features, test_labels):
    mean, std = features.mean(0), features.std(0)

    def prepared(f):
        f = (f - mean) / std
        return np.concatenate([f, f**2, np.ones((len(f), 1))], axis=1)

    a, one_hot = prepared(features), np.eye(3)[labels]

    def loss(w):
        logits = a @ w.reshape(-1, 3)
        log_p = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
        gradient = a.T @ (np.exp(log_p) - one_hot) / len(a) + 2e-3 * w.reshape(-1, 3)
        return -np.mean(np.sum(one_hot * log_p, 1)) + 1e-3 * np.sum(w**2), gradient.ravel()

    w = scipy.optimize.minimize(loss, np.zeros(a.shape[1] * 3), jac=True, method="L-BFGS-B").x
    return np.mean(np.argmax(prepared(test_features) @ w.reshape(-1, 3), 1) == test_labels)


def cnn_logits(params, images):
    x = (images.astype(jnp.float32) / 255 - 0.6) / 0.2
    for kernel, stride in zip(params["conv"], (2, 2), strict=True):
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=layout))
    return jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=1) @ params["head"]


def cnn_accuracies(datasets, epochs=8, batch=64):
    """Held-out accuracy of one two-layer CNN a data set ``(images, labels, test images, test labels)``."""
    num_batches = len(datasets[0][0]) // batch
    optimizer = optax.adam(optax.cosine_onecycle_schedule(epochs * num_batches, 4e-3))

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(cnn_logits(params, images), labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    def accuracy(images, labels, test_images, test_labels):
        init, keys = jax.nn.initializers.he_normal(), jax.random.split(jax.random.key(0))
        shapes = ((5, 5, 3, 16), (3, 3, 16, 32))
        params = {"conv": [init(k, s) for k, s in zip(keys, shapes, strict=True)], "head": jnp.zeros((64, 3))}
        state, rng = optimizer.init(params), np.random.default_rng(0)
        for _ in range(epochs):
            for rows in rng.permutation(len(images))[: num_batches * batch].reshape(num_batches, batch):
                params, state = step(params, state, images[rows], labels[rows])
        return np.mean(np.argmax(cnn_logits(params, test_images), 1) == test_labels)

    return [accuracy(*dataset) for dataset in datasets]


def without_lesions(data, radius=0.75):
    """Images with a disc of one radius for all classes blanked about the lesion."""
    x, y = coordinates()
    mask = data["lesion_mask"].astype(float)
    area = mask.sum((1, 2))
    cx, cy = (mask * x).sum((1, 2)) / area, (mask * y).sum((1, 2)) / area
    disc = np.hypot(x - cx[:, None, None], y - cy[:, None, None]) < radius
    assert not np.any(data["lesion_mask"] & ~disc)
    return np.where(disc[..., None], 128, data["image"]).astype(np.uint8)


def test_a_shallow_classifier_reads_the_class_from_lesion_pixels_alone(planted_train, held_out):
    accuracy = softmax_regression_accuracy(
        lesion_features(planted_train), planted_train["label"][:768], lesion_features(held_out), held_out["label"]
    )
    assert accuracy >= 0.9


def test_a_classifier_that_learns_from_whole_images_is_at_chance_without_the_lesion(planted_train, held_out):
    labels = planted_train["label"], held_out["label"]
    whole, rest = cnn_accuracies(
        [
            (planted_train["image"], labels[0], held_out["image"], labels[1]),
            (without_lesions(planted_train), labels[0], without_lesions(held_out), labels[1]),
        ]
    )
    assert whole > 0.7
    assert abs(rest - 1 / 3) < 3 * np.sqrt(2 / 9 / len(held_out["label"]))


def test_the_class_changes_no_pixel_away_from_the_lesion(planted_triplets):
    touched = np.any(planted_triplets["lesion_mask"] > 0, axis=0)
    away = ~ndi.binary_dilation(touched, np.ones((1, 3, 3)), iterations=2)
    image = planted_triplets["image"]
    np.testing.assert_array_equal(image[MELANOMA][away], image[NEVUS][away])
    np.testing.assert_array_equal(image[KERATOSIS][away], image[NEVUS][away])
    np.testing.assert_array_equal(
        planted_triplets["concepts"][MELANOMA][..., HAIR:], planted_triplets["concepts"][NEVUS][..., HAIR:]
    )


def test_the_cues_stand_well_above_an_attack_of_four_grey_levels(planted_triplets):
    for cls, cue in ((MELANOMA, PATCH), (KERATOSIS, DOTS)):
        change = np.abs(planted_triplets["image"][cls].astype(int) - planted_triplets["image"][NEVUS]).max(-1)
        at_cue = planted_triplets["concepts"][cls][..., cue] > 0
        assert np.median(change[at_cue]) > 5 * 4


def test_mean_colour_of_the_lesion_does_not_depend_on_the_class(planted_triplets):
    """In 8-bit levels."""
    mask = planted_triplets["lesion_mask"]
    colour = np.einsum("cnyxk,cnyx->cnk", planted_triplets["image"].astype(float), mask) / mask.sum((2, 3))[..., None]
    assert np.abs(colour[1:].mean(1) - colour[0].mean(0)).max() < 0.1
    area = mask.sum((2, 3))
    assert np.abs(area[1:].mean(1) / area[0].mean() - 1).max() < 0.01


def test_area_and_darkness_have_one_distribution_for_all_classes(planted_train):
    mask = planted_train["lesion_mask"]
    area = mask.sum((1, 2))
    darkness = (planted_train["image"].mean(-1) * mask).sum((1, 2)) / area
    for values in (area, darkness):
        for first, second in CLASS_PAIRS:
            samples = values[planted_train["label"] == first], values[planted_train["label"] == second]
            assert scipy.stats.ks_2samp(*samples).pvalue > 0.01
