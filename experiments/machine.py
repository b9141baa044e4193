"""What a run works on, in a few words."""

import os
import platform
import sys
from pathlib import Path

# Without huge pages a third of a small training step goes into fresh pages for XLA's buffers. Read when a process starts.
HUGE_PAGES = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def restart_with_huge_pages() -> None:
    """Begin this process anew with them, unless its environment says something of that kind already."""
    if HUGE_PAGES[0] not in os.environ:
        os.execve(sys.executable, sys.orig_argv, os.environ | dict([HUGE_PAGES]))


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
