"""A training run that ends in the middle, as a kill would end it: what was saved is on disk, nothing else is."""

import contextlib

import pytest

from robust_saliency import train


@contextlib.contextmanager
def killed_at(step: int, run: str | None = None, look=lambda state: None):
    """What trains inside ends after the epoch that ends with ``step``, of the run whose folder is named ``run``.

    look(state): called just before.
    """

    class Killed(Exception):
        pass

    end_of_epoch = train._Training._end_of_epoch

    def patched(self, state, done):
        why = end_of_epoch(self, state, done)
        if done == step and run in (None, self.name):
            look(state)
            self.checkpointer.wait()
            raise Killed
        return why

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train._Training, "_end_of_epoch", patched)
        yield
