"""Attacking a data set in one always full batch finds what attacking each example alone finds, for fewer passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, losses, sharding, survivors, threat
from robust_saliency.attacks import stages
from robust_saliency.randomness import per_example_keys
from robust_saliency.threat import Threat

SHAPE, CLASSES, NUM = (4, 3, 1), 5, 23
MODEL = Threat(norm="linf", epsilon=0.06)


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(1)
    return {"w": rng.normal(size=(12, 8)).astype(np.float32), "v": rng.normal(size=(8, CLASSES)).astype(np.float32)}


def logits_of(variables):
    return lambda x: jnp.tanh((x - 0.5).reshape(len(x), -1) @ variables["w"]) @ variables["v"]


@pytest.fixture(scope="module")
def rows(weights):
    rng = np.random.default_rng(2)
    images = rng.uniform(0.2, 0.8, (NUM, *SHAPE)).astype(np.float32)
    labels = np.array(jnp.argmax(logits_of(weights)(images), -1), np.int32)
    labels[3] = (labels[3] + 1) % CLASSES  # wrong from the start
    return {"image": images, "label": labels, "id": np.arange(NUM, dtype=np.int32)}


SPEC = attacks.AutoAttack(threat=MODEL, steps=20, num_queries=40, num_targets=3)


def attack(weights, rows, spec=SPEC, batch_size=4, num_devices=2, **more):
    mesh = sharding.make_mesh(num_devices, batch_size, "batch_size")
    return survivors.attack(
        logits_of, sharding.put_replicated(weights, mesh), lambda at: {k: v[at] for k, v in rows.items()},
        np.arange(NUM), stages.stages(spec, CLASSES), key=jax.random.key(0), mesh=mesh, batch_size=batch_size,
        title="test", **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(weights, rows):
    return attack(weights, rows)


def test_the_plan_of_autoattack():
    names = [stage.name for stage in stages.stages(SPEC, CLASSES)]
    targets = [f"target {rank}" for rank in (1, 2, 3)]
    assert names == ["apgd-ce", *(f"apgd-t {t}" for t in targets), *(f"fab-t {t}" for t in targets), "square"]
    fast = attacks.AutoAttack(version="fast")
    assert [stage.name for stage in stages.stages(fast, 2)] == ["apgd-ce", "apgd-t target 1"]
    assert len(stages.stages(attacks.AutoAttack(), 10)) == 1 + 9 + 9 + 1
    assert stages.stages(attacks.Untargeted(attack=attacks.FGSM()), 3) == ()
    assert stages.stages(attacks.Untargeted(attack=attacks.PGD(num_steps=0)), 3) == ()
    assert stages.stages(attacks.FAB(num_restarts=2), 3) == ()


def test_what_is_returned_is_inside_the_threat_model_and_judged_on_itself(found, weights, rows):
    size = threat.distance(jnp.asarray(found.images), rows["image"], MODEL)
    assert float(jnp.max(size)) <= 0.06 + 1e-6 and found.images.min() >= 0 and found.images.max() <= 1
    margin = losses.margin(logits_of(weights)(found.images), rows["label"])
    np.testing.assert_allclose(found.margin, margin, atol=1e-5)
    np.testing.assert_array_equal(found.robust, found.margin < 0)
    assert 3 <= found.robust.sum() <= NUM - 6, "the test shows nothing if none or all are robust"


def test_an_example_that_was_wrong_before_is_left_alone(found, rows):
    assert found.fooled_by[3] == -1 and found.stages_done[3] == 0
    np.testing.assert_array_equal(found.images[3], rows["image"][3])
    assert (found.forwards[3], found.backwards[3]) == (1, 0)


def test_robust_examples_went_through_everything_and_the_fooled_were_spared(found):
    plan = stages.stages(SPEC, CLASSES)
    assert (found.stages_done[found.robust] == len(plan)).all()
    assert (found.backwards[found.robust] == sum(stage.num_steps * stage.backwards for stage in plan)).all()
    early = found.fooled_by == 0
    assert early.any() and (found.backwards[early] <= 20).all() and (found.backwards[early] >= 10).all()


@pytest.mark.parametrize(("batch_size", "num_devices"), [(NUM, 1), (1, 1), (8, 4)])
def test_batch_size_and_devices_change_nothing(found, weights, rows, batch_size, num_devices):
    again = attack(weights, rows, batch_size=batch_size, num_devices=num_devices)
    np.testing.assert_array_equal(again.fooled_by, found.fooled_by)
    np.testing.assert_array_equal(again.forwards, found.forwards)
    np.testing.assert_allclose(again.images, found.images, atol=1e-5)


def test_agrees_with_the_pure_function_on_who_is_robust(found, weights, rows):
    keys = per_example_keys(jax.random.key(0), rows["id"])
    result = jax.jit(lambda k, x, y: attacks.autoattack(logits_of(weights), k, x, y, SPEC))(
        keys, rows["image"], rows["label"]
    )
    np.testing.assert_array_equal(~np.asarray(result.success), found.robust)


def test_a_single_stage_equals_its_decision(weights, rows):
    spec = attacks.Untargeted(attack=attacks.APGD(threat=MODEL, num_steps=7, start="none", unroll=False), loss="dlr")
    found = attack(weights, rows, spec=spec)
    decide = jax.jit(lambda x, y: attacks.untargeted(logits_of(weights), jax.random.key(0), x, y, spec))
    result = decide(rows["image"], rows["label"])
    np.testing.assert_array_equal(found.robust, ~np.asarray(result.success))
    robust = found.robust
    np.testing.assert_allclose(found.margin[robust], np.asarray(result.margin)[robust], atol=1e-5)


class Killed(Exception):
    pass


def test_a_killed_attack_goes_on_where_it_was_saved(found, weights, rows, tmp_path, monkeypatch):
    path = str(tmp_path / "attack.npz")
    monkeypatch.setattr(survivors, "_SECONDS_BETWEEN_SAVES", 0.0)
    saves = []
    save = survivors._Work.save

    def save_and_die(self, found):
        save(self, found)
        saves.append(int((found.stages_done > 0).sum()))
        if len(saves) == 9:
            raise Killed

    monkeypatch.setattr(survivors._Work, "save", save_and_die)
    with pytest.raises(Killed):
        attack(weights, rows, path=path, identity="a")
    assert 0 < saves[-1] < NUM
    monkeypatch.setattr(survivors._Work, "save", save)
    taken = []
    taken_up = survivors._Work.taken_up
    monkeypatch.setattr(survivors._Work, "taken_up", lambda self: taken.append(taken_up(self)) or taken[-1])
    again = attack(weights, rows, path=path, identity="a")
    assert (taken[0].stages_done > 0).sum() == saves[-1]
    np.testing.assert_array_equal(again.fooled_by, found.fooled_by)
    np.testing.assert_allclose(again.margin, found.margin, atol=1e-5)
    attack(weights, rows, path=path, identity="other weights")
    assert taken[1] is None, "what another network left is not taken up"


def test_an_attack_is_one_program_however_its_state_begins(weights, rows):
    """APGD's first state holds constants, which XLA lays out otherwise than what a step returns."""
    spec = attacks.Untargeted(attack=attacks.APGD(threat=MODEL, num_steps=6))
    attack(weights, rows, spec)
    programs = survivors._programs(logits_of, spec)
    assert [each._cache_size() for each in (programs.start, programs.advance, programs.look)] == [1, 1, 1]


def test_chunks_divide_the_steps():
    assert [stages.steps_at_once(n, 10) for n in (1, 7, 20, 97, 100, 5000)] == [1, 7, 10, 1, 10, 10]


def test_a_network_that_gives_nan_is_wrong_before_and_nothing_hangs(weights, rows):
    broken = {**weights, "v": np.full_like(weights["v"], np.nan)}
    assert (attack(broken, rows).fooled_by == -1).all()


def nan_near_the_edge(variables):
    """NaN wherever the first pixel leaves a narrow band around its clean value: no attack may call that robust."""
    inner = logits_of(variables)
    return lambda x: jnp.where(jnp.abs(x[:, 0, 0, :1] - 0.5) > 0.004, jnp.nan, inner(x))


def test_an_adversary_whose_margin_is_nan_fools(weights, rows):
    images = rows["image"].copy()
    images[:, 0, 0, 0] = 0.5
    labels = np.array(jnp.argmax(logits_of(weights)(images), -1), np.int32)
    split, mesh = rows | {"image": images, "label": labels}, sharding.make_mesh(1, 4, "batch_size")
    spec = attacks.Untargeted(attack=attacks.PGD(threat=MODEL, num_steps=1, step_size=0.06, start="none"))
    found = survivors.attack(
        nan_near_the_edge, weights, lambda at: {k: v[at] for k, v in split.items()}, np.arange(NUM),
        stages.stages(spec, CLASSES), key=jax.random.key(0), mesh=mesh, batch_size=4, title="test",
    )  # fmt: skip
    assert (found.fooled_by == 0).all() and np.isposinf(found.margin).all()


def masked(mask):
    return attacks.Untargeted(attack=attacks.PGD(threat=Threat(epsilon=0.06, mask=mask), num_steps=3, step_size=0.03))


def whole_and_half():
    whole = np.ones((1, *SHAPE), np.float32)
    half = whole.copy()
    half[0, :2] = 0
    return whole, half


def test_a_mask_for_all_examples_is_kept_to(weights, rows):
    _, half = whole_and_half()
    found = attack(weights, rows, spec=masked(half))
    np.testing.assert_array_equal(found.images[:, :2], rows["image"][:, :2])
    assert (found.images[:, 2:] != rows["image"][:, 2:]).any()
    assert survivors._programs(logits_of, masked(half)) is survivors._programs(logits_of, masked(half.copy()))
    each = np.ones((NUM, *SHAPE), np.float32)
    with pytest.raises(
        ValueError, match=r"^Threat.mask of an attack on a data set must be the same .* got shape [^\n]*$"
    ):
        attack(weights, rows, spec=masked(each))
    several = attacks.Untargeted(attack=attacks.PGD(threat=Threat(epsilon=np.full(NUM, 0.1)), num_steps=3))
    with pytest.raises(ValueError, match=r"^Threat.epsilon of an attack on a data set .* got shape \(23,\)\.$"):
        attack(weights, rows, spec=several)


def other_logits_of(variables):
    return lambda x: -logits_of(variables)(x)


def test_what_another_key_mask_or_network_function_left_is_not_taken_up(weights, rows, tmp_path, monkeypatch):
    whole, half = whole_and_half()
    path, taken = str(tmp_path / "attack.npz"), []
    taken_up = survivors._Work.taken_up
    monkeypatch.setattr(survivors._Work, "taken_up", lambda self: taken.append(taken_up(self)) or taken[-1])

    def is_taken(spec=None, key=0, network="as it is", **more):
        mesh = sharding.make_mesh(1, 4, "batch_size")
        survivors.attack(
            logits_of, weights, lambda at: {k: v[at] for k, v in rows.items()}, np.arange(NUM),
            stages.stages(masked(whole) if spec is None else spec, CLASSES), key=jax.random.key(key), mesh=mesh,
            batch_size=4, title="test", path=path, network=network, **more,
        )  # fmt: skip
        return taken[-1] is not None

    assert [is_taken(), is_taken()] == [False, True]
    assert [is_taken(key=1), is_taken(key=1)] == [False, True]
    assert [is_taken(network="through float32"), is_taken(spec=masked(half), network="through float32")] == [False] * 2
    assert [is_taken(spec=masked(half), spare_the_fooled=False)] == [False]
    assert is_taken(spec=masked(half), spare_the_fooled=False)


def test_where_the_fooled_are_not_spared_every_example_does_every_step(weights, rows):
    spec = attacks.Untargeted(attack=attacks.APGD(threat=MODEL, num_steps=20, start="none", unroll=False))
    found = attack(weights, rows, spec=spec, spare_the_fooled=False)
    result = jax.jit(
        lambda x, y: attacks.run(
            lambda q: losses.cross_entropy(logits_of(weights)(q), y), jax.random.key(0), x, spec.attack
        )
    )(rows["image"], rows["label"])
    np.testing.assert_allclose(found.images, result, atol=1e-5)
    assert (found.backwards == 20).all() and (found.stages_done == 1).all()
    assert found.fooled_by[3] == -1, "wrong before, and attacked all the same"
    assert (found.images[3] != rows["image"][3]).any()
