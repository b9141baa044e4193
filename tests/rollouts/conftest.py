"""What tests of the samplers share."""

import pytest

from synthrl_jax.rollouts import schedule


@pytest.fixture
def spilling(monkeypatch):
    """Short suffixes and small groups have spill rings too."""
    monkeypatch.setattr(schedule, "LEAST_SPILT", 0)
    monkeypatch.setattr(schedule, "LEAST_SPILLS", 1)
