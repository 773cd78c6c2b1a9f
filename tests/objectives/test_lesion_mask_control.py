"""The control that uses the true mask: where it may go, by hand, and what data it refuses."""

import jax
import numpy as np
import pytest
from scipy import special

from robust_saliency import attacks, data, train
from robust_saliency.objectives import OBJECTIVES, LesionMaskControl, lesion_mask_control
from robust_saliency.threat import Threat
from tests import tiny
from tests.keys import fast_key
from tests.objectives import nets
from tests.objectives.nets import LINEAR, batch_of

SHAPE, LABELS = (4, 3, 4, 2), np.array([0, 1, 2, 0])


@pytest.fixture
def case(rng):
    """A linear network, images, and masks, one of them empty and one full."""
    w = rng.normal(size=(24, 3)).astype(np.float32)
    images = rng.uniform(0.3, 0.7, SHAPE).astype(np.float32)
    masks = (rng.random(SHAPE[:3]) < 0.5).astype(np.float32)
    masks[2], masks[3] = 0, 1
    return w, images, masks


@pytest.mark.parametrize(("attacked", "inside"), [("inside", 1), ("outside", 0)])
def test_the_adversary_is_the_worst_image_of_the_pixels_that_the_mask_leaves(case, attacked, inside):
    w, images, masks = case
    spec = LesionMaskControl(attack=attacks.FGSM(threat=Threat(epsilon=0.1)), raises="cross_entropy", attacked=attacked)
    batch = batch_of(images, LABELS, lesion_mask=masks)
    variables = nets.variables(w=w, b=np.zeros(3, np.float32))
    made = jax.jit(lesion_mask_control.perturb, static_argnums=0)(LINEAR, variables, fast_key(0), batch, spec)
    slope = (special.softmax(images.reshape(4, -1) @ w, -1) - np.eye(3)[LABELS]) @ w.T
    free = masks == inside
    expected = images + 0.1 * np.sign(slope).reshape(SHAPE) * free[..., None]
    np.testing.assert_allclose(made["adversarial"], expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(made["adversarial"])[~free], images[~free])
    np.testing.assert_array_equal(made["changeable"], free)
    value, (_, metrics) = lesion_mask_control.loss(LINEAR, variables, (), fast_key(0), made, spec)
    np.testing.assert_allclose(metrics["changeable_share"], free.mean(), rtol=1e-6)
    p, q = (special.softmax(x.reshape(4, -1).astype(np.float64) @ w, -1) for x in (images, expected))
    by_hand = -np.log(p[np.arange(4), LABELS]).mean() + special.rel_entr(p, q).sum(-1).mean()
    np.testing.assert_allclose(value, by_hand, rtol=1e-4)


def test_it_alone_reads_the_mask_and_says_so():
    assert lesion_mask_control.reads == ("lesion_mask",)
    assert [name for name, (_, objective) in OBJECTIVES.items() if "lesion_mask" in objective.reads] == [
        "lesion_mask_control"
    ]
    with pytest.raises(ValueError, match=r"Unknown attacked 'lesion'.*inside, outside"):
        LesionMaskControl(attacked="lesion")


def test_data_without_masks_are_refused_in_one_sentence_and_with_them_the_mask_joins_the_batch(rng, tmp_path):
    experiment = tiny.experiment(objective={"name": "lesion_mask_control"}, data={"batch_size": 8})
    arrays = {
        "image": rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8),
        "label": np.arange(16, dtype=np.int32) % 3,
        "id": np.arange(16, dtype=np.int32),
    }
    masked = data.MemorySplit({**arrays, "lesion_mask": rng.integers(0, 2, (16, 16, 16), dtype=np.uint8)})
    splits = dict.fromkeys(("train", "validation", "test"), masked)
    held = data.Data(**splits, class_names=("a", "b", "c"), image_shape=(16, 16, 3), concept_names=(), description="")
    batch = next(train._Training(experiment, str(tmp_path), held)._make_batches())
    np.testing.assert_array_equal(batch["lesion_mask"], masked.arrays["lesion_mask"][batch["id"]])
    with pytest.raises(ValueError, match=r"'lesion_mask_control' reads lesion_mask, which.*config.data.mask_field"):
        train.train(experiment, str(tmp_path), held._replace(train=data.MemorySplit(arrays)))
