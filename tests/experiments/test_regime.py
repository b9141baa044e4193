"""The quickstart's setting is one in which the paper's claims can show."""

import json

import pytest

from experiments import run

CONFIG = """
from configs import quickstart

def get_config():
    c = quickstart.get_config()
    c.sizes, c.sft_sizes, c.methods = (), (250, 1000), {}
    return c
"""


@pytest.mark.long
def test_sft_lies_above_the_base_below_saturation_and_rises_with_problems(tmp_path):
    (tmp_path / "regime.py").write_text(CONFIG)
    flags = [f"--config={tmp_path / 'regime.py'}", f"--workdir={tmp_path / 'run'}", "--workers=2"]
    assert run.main([*flags, "--json", str(tmp_path / "rows.json")]) == 0
    rows = {(row["method"], row["size"]): row for row in json.loads((tmp_path / "rows.json").read_text())}
    base, few, many = rows["base", 0], rows["sft", 250], rows["sft", 1000]
    assert base["accuracy"] < few["accuracy"] < many["accuracy"]
    assert 0.10 <= many["accuracy"] <= 0.65
    assert base["pass_at_k"] > 2 * base["accuracy"], "the skill is there, the habit is not"
