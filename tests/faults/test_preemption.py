"""A scheduler that wants the machine back: what was done is saved, and goes on to the same end."""

import os
import signal
import time

import chex
import jax
import pytest

from robust_saliency import checkpoint, preemption, records, train
from tests import tiny

STEPS_AN_EPOCH = 4


@pytest.fixture(autouse=True)
def listening():
    before = signal.getsignal(signal.SIGTERM)
    preemption.listen()
    yield
    signal.signal(signal.SIGTERM, before)


def ended_at(step, experiment, workdir):
    """Trains until SIGTERM comes as the batch of ``step`` is put on the devices; what was said."""
    put_batch, seen = train.sharding.put_batch, []

    def counting(batch, mesh):
        seen.append(batch)
        if len(seen) == step + 2:  # one batch was for the shapes of the state, one for those of the step
            os.kill(os.getpid(), signal.SIGTERM)
        return put_batch(batch, mesh)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(preemption.Stopped) as stopped:
        patch.setattr(train.sharding, "put_batch", counting)
        train.train(experiment, str(workdir))
    return str(stopped.value)


def validations(workdir):
    return [row for row in records.MetricsLog(workdir).read() if row["split"] == "validation"]


def weights(workdir, step=8):
    return checkpoint.load_variables(workdir / "checkpoints", step=step)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    train.train(tiny.experiment(), str(workdir))
    return workdir


@pytest.mark.parametrize("step", [1, 3])
def test_in_the_middle_of_an_epoch_the_step_is_saved_and_training_ends_bitwise_equal(whole, tmp_path, step):
    said = ended_at(step, tiny.experiment(), tmp_path)
    assert said.endswith(f"ended by SIGTERM after step {step}; step {step} of 8 is saved. The same command goes on.")
    assert checkpoint.steps(tmp_path / "checkpoints") == [step]
    assert train.train(tiny.experiment(), str(tmp_path))["steps"] == 8 - step
    chex.assert_trees_all_equal(weights(tmp_path), weights(whole))
    assert validations(tmp_path) == validations(whole)


def test_twice_in_a_run(whole, tmp_path):
    ended_at(2, tiny.experiment(), tmp_path)
    ended_at(3, tiny.experiment(), tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 5
    train.train(tiny.experiment(), str(tmp_path))
    chex.assert_trees_all_equal(weights(tmp_path), weights(whole))


def test_a_step_that_replays_its_batch_is_not_left_in_the_middle(tmp_path):
    experiment = tiny.experiment(objective={"name": "free", "replays": 3}, train={"epochs": 1})
    ended_at(2, experiment, tmp_path / "ended")
    (kept,) = checkpoint.steps(tmp_path / "ended" / "checkpoints")
    assert kept % 3 == 0
    train.train(experiment, str(tmp_path / "ended"))
    train.train(experiment, str(tmp_path / "whole"))
    ends = [weights(tmp_path / name, step=3 * STEPS_AN_EPOCH) for name in ("ended", "whole")]
    chex.assert_trees_all_equal(*ends)


def test_a_guard_goes_back_to_the_end_of_an_epoch_so_no_step_between_is_saved(tmp_path):
    said = ended_at(2, tiny.experiment(objective={"name": "adversarial"}, train={"guard_drop": 0.5}), tmp_path)
    assert "no step had been saved yet" in said and checkpoint.steps(tmp_path / "checkpoints") == []


def test_where_nothing_waits_for_it_the_program_ends_at_once():
    with pytest.raises(preemption.Stopped, match="The same command goes on"):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # a second one does not end what says so
    preemption.listen()
    with pytest.raises(preemption.Stopped), preemption.deferred() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()


def test_what_comes_during_the_last_step_ends_the_program_after_it(whole, tmp_path):
    """Else a study would go on with what comes next, and be killed there."""
    said = ended_at(8 + 2, tiny.experiment(), tmp_path)  # two batches validated the first epoch
    assert said == "Ended by SIGTERM; nothing on disk is lost. The same command goes on."
    assert (tmp_path / "training.json").exists()
    chex.assert_trees_all_equal(weights(tmp_path), weights(whole))
    assert train.train(tiny.experiment(), str(tmp_path))["steps"] == 0


def test_a_study_ends_with_a_status_of_its_own_and_goes_on(tmp_path):
    words = ["--config=configs/quickstart.py", f"--workdir={tmp_path}", "--mode=train"]
    words += [*tiny.SMALL_FLAGS[:-3], *tiny.flags(train__epochs=40, train__validate_every=1, train__checkpoint_every=1)]
    command = tiny.launch(*words)
    deadline = time.monotonic() + 240
    while not checkpoint.steps(tmp_path / "checkpoints") and time.monotonic() < deadline:
        assert command.poll() is None, command.communicate()
        time.sleep(0.02)
    os.kill(command.pid, signal.SIGTERM)
    _, err = command.communicate()
    assert command.returncode == preemption.EXIT_STATUS, err
    assert "ended by SIGTERM after step" in err and "Traceback" not in err
    assert 0 < checkpoint.steps(tmp_path / "checkpoints")[-1] < 160, "the run had ended: this test shows nothing"
    again = tiny.launch(*words)
    _, err = again.communicate()
    assert again.returncode == 0 and "going on from step" in err, err
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 160
    assert jax.tree.leaves(weights(tmp_path, step=160))
