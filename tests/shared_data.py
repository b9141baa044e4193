"""Where the optional shared data sets are, and a skip with a reason where they are not."""

import os
from pathlib import Path

import pytest


def shared(path: str) -> Path:
    root = Path(os.environ.get("SYNTHRL_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    found = root / path
    if not found.exists():
        pytest.skip(f"shared data not present: {path}")
    return found
