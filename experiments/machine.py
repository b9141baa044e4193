"""What a run works on, in a few words."""

import os
import platform
import sys
from pathlib import Path


def machine() -> str:
    """This machine: its accelerators where jax is in use, processor, cores and Python."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    jax = sys.modules.get("jax")
    devices = sorted({d.device_kind for d in jax.devices() if d.platform != "cpu"}) if jax else []
    return ", ".join([*devices, name, f"{os.cpu_count()} cores", f"Python {platform.python_version()}"])
