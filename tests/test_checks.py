import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import checks


def images(low=0.0, high=1.0):
    return np.linspace(low, high, 2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)


def test_one_of_returns_a_known_name():
    assert checks.one_of("norm", "l2", ("linf", "l2")) == "l2"


def test_one_of_names_the_near_match_and_the_choices_in_order():
    with pytest.raises(ValueError, match=r"^Unknown norm 'linff'\. Did you mean 'linf'\? Choices: l2, linf\.$"):
        checks.one_of("norm", "linff", ("linf", "l2"))


def test_one_of_offers_no_match_where_none_is_near():
    with pytest.raises(ValueError, match=r"^Unknown norm 'zzz'\. Choices: l2, linf\.$"):
        checks.one_of("norm", "zzz", ("linf", "l2"))


@pytest.mark.parametrize("name", [None, 2, ("linf",)])
def test_one_of_survives_a_name_that_is_no_string(name):
    with pytest.raises(ValueError, match="Unknown norm"):
        checks.one_of("norm", name, ("linf", "l2"))


def test_lookup():
    assert checks.lookup("attack", "pgd", {"pgd": 7}) == 7
    with pytest.raises(ValueError, match=r"Unknown attack 'pdg'\. Did you mean 'pgd'"):
        checks.lookup("attack", "pdg", {"pgd": 7})


def test_rank():
    checks.rank("images", images(), 4)
    with pytest.raises(ValueError, match=r"images must have 4 axes, got shape \(3, 2\)"):
        checks.rank("images", np.zeros((3, 2)), 4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floating_dtypes_pass(dtype):
    checks.floating("images", jnp.zeros(2, dtype))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_other_dtypes_do_not_pass(dtype):
    with pytest.raises(ValueError, match=f"images must be floating point in .* got dtype {dtype}; divide"):
        checks.floating("images", jnp.zeros(2, dtype))


def test_same_batch():
    checks.same_batch(logits=np.zeros((2, 3)), labels=np.zeros(2))
    with pytest.raises(ValueError, match="Batch sizes differ: logits 2, labels 3"):
        checks.same_batch(logits=np.zeros((2, 3)), labels=np.zeros(3))


@pytest.mark.parametrize(
    "good",
    [images(), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.float32), images().astype(np.float64)],
)
def test_good_images(good):
    checks.check_images(good, "here")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (images(0, 255), r"found the range \[0, 255\].*divided by 255; normalisation belongs in the model"),
        (images(12, 255), r"found the range \[12, 255\]"),
        (images(-2.1, -0.5), r"found the range \[-2\.1, -0\.5\]"),
        (images(0, 1.0001), r"found the range \[0, 1\.0001\]"),
        (images()[0], r"must be \[N, height, width, channels\], got shape \(4, 4, 3\)"),
        (images().astype(np.int64), "8-bit or floating point, got dtype int64"),
        (np.where(images() > 0.9, np.nan, images()), "NaN or infinity"),
        (np.where(images() > 0.9, np.inf, images()), "NaN or infinity"),
    ],
)
def test_bad_images(bad, message):
    with pytest.raises(ValueError, match=f"here: .*{message}"):
        checks.check_images(bad, "here")


def test_good_labels():
    checks.check_labels(np.array([0, 1, 2]), 3, "here")
    checks.check_labels(np.array([], np.int32), 2, "here")


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (np.array([0, 3]), 3, r"must lie in 0\.\.2, found 0\.\.3"),
        (np.array([-1, 1]), 3, r"must lie in 0\.\.2, found -1\.\.1"),
        (np.array([0, 0]), 1, "at least two classes are needed, found 1"),
        (np.array([0.0, 1.0]), 2, r"integers \[N\], got float64 of shape \(2,\)"),
        (np.array([[0, 1]]), 2, r"integers \[N\], got int64 of shape \(1, 2\)"),
        (np.array([True, False]), 2, r"integers \[N\], got bool"),
    ],
)
def test_bad_labels(labels, classes, message):
    with pytest.raises(ValueError, match=f"here: .*{message}"):
        checks.check_labels(labels, classes, "here")


def test_known_binary():
    checks.known_binary("masks", np.array([[0, 1], [1, 1]], bool))
    checks.known_binary("masks", np.array([0.0, 1.0]))
    jax.jit(lambda masks: checks.known_binary("masks", masks))(np.array([0.0, 2.0]))
    with pytest.raises(ValueError, match=r"^masks must be 0 or 1 everywhere, found 255 among 2 other values\.$"):
        checks.known_binary("masks", np.array([0, 255, 1, 255], np.uint8))
    with pytest.raises(ValueError, match=r"found nan among 1 other values"):
        checks.known_binary("masks", np.array([0.0, np.nan]))
