"""The contract that every registered metric keeps, and the defects of other libraries that it must not have."""

import collections
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics, randomness, saliency
from robust_saliency.baselines import Baseline
from robust_saliency.metrics import METRICS

BATCH, SIDE = 6, 5
every_metric = pytest.mark.parametrize("name", METRICS)
map_metrics = pytest.mark.parametrize("name", [name for name, (*_, needs) in METRICS.items() if "maps" in needs])
perturbing = ("deletion_auc", "insertion_auc")
# A sum of these is held against a change of the score: the sign counts, and for some the unit.
signed = ("completeness", "faithfulness_correlation", "infidelity")
in_units_of_the_score = ("completeness", "infidelity")
# Divided by the smallest of ten differences of logits, of which float32 keeps three digits or four.
ill_conditioned = ("relative_output_stability",)
mask_metrics = pytest.mark.parametrize("name", [name for name, (*_, needs) in METRICS.items() if "masks" in needs])


def logits_fn(images):
    red = jnp.sum(images[..., 0] * jnp.linspace(-1.0, 1.0, SIDE, dtype=images.dtype)[None, None], axis=(1, 2))
    return jnp.stack([red, -0.5 * red, jnp.mean(images, axis=(1, 2, 3))], axis=-1)


def arguments(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    lesion = np.zeros((BATCH, SIDE, SIDE), dtype)
    evidence = np.zeros_like(lesion)
    lesion[:, 1:4, 1:4], evidence[:, 1:2, 1:4] = 1.0, 1.0
    return {
        "key": randomness.per_example_keys(jax.random.key(seed), jnp.arange(BATCH)),
        "images": rng.uniform(size=(BATCH, SIDE, SIDE, 3)).astype(dtype),
        "labels": rng.integers(0, 3, BATCH).astype(np.int32),
        "maps": rng.normal(size=(BATCH, SIDE, SIDE)).astype(dtype),
        "masks": {"lesion": lesion, "evidence": evidence},
    }


def saliency_fn(key, images, labels):
    """The gradient of the squared logit, so that it depends on the image."""

    def total(images):
        return jnp.sum(jnp.take_along_axis(logits_fn(images) ** 2, labels[:, None], axis=1))

    return jax.grad(total)(images)[..., 0] + jnp.mean(images, axis=-1)


traces = collections.Counter()


@functools.cache
def compiled(name, **options):
    spec = METRICS[name][0](**options)

    def traced(spec, available, scale):
        traces[name] += 1

        def scaled(*arguments):
            return scale * saliency_fn(*arguments)

        def attacked(attack):
            return jnp.flip(available["images"], 1)

        fns = {"logits_fn": logits_fn, "saliency_fn": scaled, "attacked_fn": attacked}
        return metrics.run(spec, **fns, map_key=available["key"], **available)

    return functools.partial(jax.jit(traced), spec, scale=np.float32(1))


def taken(available, index):
    return jax.tree.map(lambda array: array[index], available)


@every_metric
def test_one_number_an_example_inside_the_stated_range(name):
    values = np.asarray(compiled(name)(arguments()))
    low, high = METRICS[name][0].range
    assert values.shape == (BATCH,) and values.dtype == np.float32
    assert np.isfinite(values).all() and (values >= low).all() and (values <= high).all()
    assert len(np.unique(values)) > 1


@every_metric
def test_float64_in_float64_out(name):
    run = compiled(name)
    with jax.enable_x64(True):
        available = arguments(dtype=np.float64)
        assert run.func.eval_shape(*run.args, available, **run.keywords).dtype == jnp.float64
        if name in perturbing + ill_conditioned:
            return
        wide = run(available)
    np.testing.assert_allclose(wide, run(arguments()), rtol=1e-4, atol=1e-5)


@every_metric
def test_an_example_is_free_of_its_neighbours_the_order_and_the_batch_size(name):
    """Elsewhere maps are divided by the maximum of the whole batch, so a score depends on its neighbours."""
    dtype = np.float64 if name in ill_conditioned else np.float32
    with jax.enable_x64(dtype is np.float64):
        run, available = compiled(name), arguments(dtype=dtype)
        available["maps"] = available["maps"].round(0) * dtype([1, 100, 1, 1e-4, 1, 7])[:, None, None]
        whole = np.asarray(run(available))
        order = np.array([5, 0, 3, 1, 4, 2])
        np.testing.assert_allclose(run(taken(available, order)), whole[order], rtol=1e-6)
        np.testing.assert_allclose(run(taken(available, slice(2, 3))), whole[2:3], rtol=1e-6)


@every_metric
def test_three_devices_give_what_one_gives_and_do_not_talk(name):
    dtype = np.float64 if name in ill_conditioned else np.float32
    mesh = jax.make_mesh((3,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.enable_x64(dtype is np.float64):
        run, available = compiled(name), arguments(dtype=dtype)
        placed = jax.device_put(available, jax.NamedSharding(mesh, jax.P("batch")))
        program = run.func.lower(*run.args, placed, **run.keywords).compile({"xla_backend_optimization_level": 0})
        assert not re.search(r"all-(gather|reduce|to-all)|collective-permute", program.as_text())
        values = program(*run.args, placed, **run.keywords)
        assert len(values.sharding.device_set) == 3
        np.testing.assert_allclose(values, run(available), rtol=1e-5, atol=1e-6)


@every_metric
def test_one_trace_when_only_the_data_change(name):
    run = compiled(name)
    first, before = run(arguments(0)), traces[name]
    assert not np.array_equal(first, run(arguments(1)))
    assert traces[name] == before > 0


@map_metrics
@pytest.mark.parametrize("exponent", [-8, 8])
def test_the_scale_of_a_map_does_not_matter(name, exponent):
    if name in in_units_of_the_score:
        pytest.skip("the map is held against the score in its own unit")
    run, available, scale = compiled(name), arguments(), np.float32(10.0**exponent)
    scaled = available | {"maps": available["maps"] * scale}
    # atol: a correlation may be near zero.
    np.testing.assert_allclose(run(scaled, scale=scale), run(available), rtol=1e-5, atol=1e-7)


@map_metrics
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_meaningless_maps_are_nan_and_counted(name, bad):
    available = arguments()
    available["maps"][1] = bad
    values = compiled(name)(available)
    np.testing.assert_array_equal(np.isnan(values), np.arange(BATCH) == 1)
    assert metrics.count_nan(values) == 1


@mask_metrics
def test_empty_masks_are_nan(name):
    """Elsewhere an empty mask counts as a hit."""
    available = arguments()
    for mask in available["masks"].values():
        mask[2] = 0.0
    np.testing.assert_array_equal(np.isnan(compiled(name)(available)), np.arange(BATCH) == 2)


@mask_metrics
def test_masks_may_be_boolean(name):
    run, available = compiled(name), arguments()
    masks = {mask: array.astype(bool) for mask, array in available["masks"].items()}
    np.testing.assert_array_equal(run(available | {"masks": masks}), run(available))


@map_metrics
def test_the_default_sign_policy_is_the_absolute_value_where_a_sign_has_no_meaning(name):
    run, available = compiled(name), arguments()
    if name in signed:
        assert METRICS[name][0]().sign == "raw"
        return
    assert METRICS[name][0]().sign == "abs"
    np.testing.assert_array_equal(run(available | {"maps": np.abs(available["maps"])}), run(available))


@pytest.mark.parametrize("name", ["gini", "total_variation", "pointing_game", "rank_accuracy"])
def test_negative_relevance_is_the_positive_relevance_of_the_opposite_map(name):
    available = arguments()
    opposite = available | {"maps": -available["maps"]}
    np.testing.assert_array_equal(compiled(name, sign="negative")(available), compiled(name, sign="positive")(opposite))


@every_metric
def test_specs_carry_the_facts_of_a_table(name):
    spec, function, needs = METRICS[name]
    assert spec.title and spec.direction in ("higher", "lower", "none") and spec.range[0] < spec.range[1]
    assert inspect.getdoc(spec).splitlines()[0].endswith(".")
    assert not {"title", "direction", "range"} & set(inspect.signature(spec).parameters)
    assert list(needs) == [name for name in metrics.ARGUMENTS if name in needs]
    assert list(inspect.signature(function).parameters) == [*needs, "spec"]


def test_titles_and_specs_are_unique():
    specs = [spec for spec, *_ in METRICS.values()]
    assert len(set(specs)) == len({spec.title for spec in specs}) == len(METRICS)


def test_the_baseline_may_change_without_a_new_trace():
    run, available = compiled("deletion_auc", baseline=Baseline(kind="constant", value=0.5)), arguments()
    grey, before = run(available), traces["deletion_auc"]
    light = run.func(metrics.Deletion(baseline=Baseline(kind="constant", value=0.9)), available, **run.keywords)
    assert traces["deletion_auc"] == before
    assert not np.array_equal(grey, light)


def test_run_names_what_is_missing_unknown_or_misspelt():
    maps = jnp.ones((1, 2, 2))
    with pytest.raises(ValueError, match="Metric 'pointing_game' needs masks; given: maps, masks"):
        metrics.run(metrics.PointingGame(), maps=maps, masks=None)
    with pytest.raises(ValueError, match=r"Unknown metric argument 'map'. Did you mean 'maps'"):
        metrics.run(metrics.Gini(), map=maps)
    with pytest.raises(ValueError, match=r"No metric has the spec dict. Choices: accuracy, "):
        metrics.run({}, maps=maps)


# Wrong maps, masks and labels


def answer(name, **changes):
    """What the metric says to wrong arguments; their values can be seen, for they are constants of the program."""
    available = arguments() | changes

    def run(key):
        def saliency_fn(key, images, labels):
            return saliency.gradient(logits_fn, key, images, labels, saliency.Gradient())

        given = available | {"key": key}
        attacked = {"attacked_fn": lambda attack: available["images"], "map_key": available["key"]}
        return metrics.run(METRICS[name][0](), logits_fn=logits_fn, saliency_fn=saliency_fn, **attacked, **given)

    with pytest.raises(ValueError) as caught:
        jax.eval_shape(run, available["key"])
    (sentence,) = str(caught.value).splitlines()
    assert sentence.endswith(".")
    return sentence


WRONG_MAPS = {
    "without columns": lambda maps: maps[..., 0],
    "with channels": lambda maps: maps[..., None],
    "one for all": lambda maps: maps[:1],
    "smaller": lambda maps: maps[:, 1:],
}


@map_metrics
@pytest.mark.parametrize("wrong", WRONG_MAPS)
def test_maps_that_are_not_those_of_the_images_are_one_sentence(name, wrong):
    """One map for all would be broadcast, and a score of images that it does not explain."""
    if METRICS[name][2] == ("maps",) and wrong in ("one for all", "smaller"):
        pytest.skip("this metric is given nothing but maps")
    maps = WRONG_MAPS[wrong](arguments()["maps"])
    assert str(maps.shape) in answer(name, maps=maps)


@mask_metrics
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask[:, 1:], r"Masks must have the shape of the maps: got \(6, 4, 5\), expected \(6, 5, 5\)"),
        (lambda mask: mask[:1], r"Masks must have the shape of the maps: got \(1, 5, 5\), expected \(6, 5, 5\)"),
        (lambda mask: 255 * mask, "masks must be 0 or 1 everywhere, found 255 among"),
        (lambda mask: 0.7 * mask, r"masks must be 0 or 1 everywhere, found 0\.7 among"),
        (lambda mask: np.nan * mask, "masks must be 0 or 1 everywhere, found nan among"),
    ],
    ids=["smaller", "one for all", "8 bits", "soft", "nan"],
)
def test_masks_of_another_size_or_not_binary_are_one_sentence(name, change, message):
    masks = {mask: change(array) for mask, array in arguments()["masks"].items()}
    assert re.match(message, answer(name, masks=masks))


@mask_metrics
def test_a_mask_that_is_not_there_is_one_sentence(name):
    masks = {"lession": np.ones((BATCH, SIDE, SIDE))}
    assert re.match(r"Unknown mask '\w+'\..* Choices: lession\.", answer(name, masks=masks))


@pytest.mark.parametrize("name", [name for name, (*_, needs) in METRICS.items() if "labels" in needs])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:1], r"Batch sizes differ: .*labels 1"),
        (lambda labels: labels + 1, r"labels must lie in 0\.\.2, found 1\.\.3"),
        (lambda labels: labels - 1, r"labels must lie in 0\.\.2, found -1\.\.1"),
        (lambda labels: labels.astype(np.float32), "labels must be integers"),
    ],
    ids=["one for all", "above", "below", "floats"],
)
def test_labels_that_are_no_classes_of_the_images_are_one_sentence(name, change, message):
    """pytorch-grad-cam lets one target stand for a batch; an index of -1 would be the last class."""
    labels = np.array([0, 1, 2, 1, 0, 2], np.int32)
    assert re.match(message, answer(name, labels=change(labels)))


@pytest.mark.parametrize("name", [name for name, (*_, needs) in METRICS.items() if "images" in needs])
def test_images_of_eight_bits_or_another_rank_are_one_sentence(name):
    images = arguments()["images"]
    assert "divide 8-bit images by 255" in answer(name, images=(255 * images).astype(np.uint8))
    assert "images must have 4 axes, got shape (6, 5, 5)" in answer(name, images=images[..., 0])


def test_count_nan_counts_examples_not_points():
    assert metrics.count_nan(jnp.array([[jnp.nan, jnp.nan], [1.0, jnp.nan], [1.0, 2.0]])) == 2
    assert metrics.count_nan(jnp.array([jnp.nan, 0.0])) == 1
