"""Test-wide set-up: small helpers importable, compiled programs kept between runs."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "experiments"), str(HERE.parent)]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE.parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

from tests import xla_flags  # noqa: E402

os.environ.setdefault("XLA_FLAGS", xla_flags.devices(8))
