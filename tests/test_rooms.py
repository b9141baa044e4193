"""The rooms: imports go one way, and importing one costs little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("problems", "policy", "rollouts", "grading", "credit", "learning", "analysis")


def imported(path):
    """The modules that a file imports, also inside of its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_itself_and_rooms_before_it(room):
    files = list((ROOT / "synthrl_jax" / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            assert not name.startswith(("experiments", "configs", "tests")), f"{path}: {name}"
            parts = name.split(".")
            if parts[0] == "synthrl_jax" and len(parts) > 1 and parts[1] in ROOMS:
                assert ROOMS.index(parts[1]) <= ROOMS.index(room), f"{path}: {name} lies to the right of {room}"


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_leaves_the_heavy_libraries_out(room):
    heavy = {"tensorflow", "torch", "transformers", "sympy", "tensorflow_datasets", "matplotlib"}
    code = f"import sys, synthrl_jax.{room}; print(*({heavy!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
