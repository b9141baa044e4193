"""Checkpoints in a bucket, as Orbax writes them there: in place, whole once a marker is written, beside refused requests."""

import os
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from bucket import Bucket, install

from synthrl_jax import remote
from synthrl_jax.learning.checkpoints import Checkpoints


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The double, and what Orbax has beside etils: Google's client, which tells of the bucket, and TensorStore's own driver."""
    from orbax.checkpoint._src.path import gcs_utils

    asked = []

    def get_bucket(name):
        asked.append(name)
        return types.SimpleNamespace(hierarchical_namespace_enabled=False)

    def kvstore(path):
        return {"driver": "file", "path": os.environ["BUCKETS"] + "/" + path.removeprefix("gs://")}

    monkeypatch.setattr(gcs_utils, "get_bucket", get_bucket)
    monkeypatch.setattr(gcs_utils, "get_kvstore_for_gcs", kvstore)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    (tmp_path / "b").mkdir()
    install(tmp_path)
    yield tmp_path / "b"
    assert Bucket.refused and set(asked) == {"b"}


def state(step):
    return {"w": jnp.arange(6.0).reshape(2, 3) + step, "n": jnp.int32(step)}


@pytest.mark.parametrize("background", [False, True])
def test_the_last_checkpoints_of_a_bucket_are_kept_and_restored(bucket: Path, background):
    saved = Checkpoints("gs://b/run/checkpoints", keep=1, background=background)
    for step in (2, 4, 6):
        saved.save(step, state(step), {"seed": step})
    saved.close()
    assert not (bucket / "run/checkpoints/2").exists() and (bucket / "run/checkpoints/6/commit_success.txt").exists()
    again = Checkpoints("gs://b/run/checkpoints", keep=1)
    arrays, extra = again.restore(state(0))
    again.close()
    assert extra["seed"] == 6
    for name, array in state(6).items():
        np.testing.assert_array_equal(arrays[name], array)


def test_a_checkpoint_whose_marker_is_missing_does_not_count(bucket: Path):
    """What a kill in the middle of writing leaves."""
    saved = Checkpoints("gs://b/run/checkpoints", keep=2)
    for step in (2, 4):
        saved.save(step, state(step), {"seed": step})
    saved.close()
    (bucket / "run/checkpoints/4/commit_success.txt").unlink()
    again = Checkpoints("gs://b/run/checkpoints", keep=2)
    assert again.restore(state(0))[1]["seed"] == 2
    again.close()
