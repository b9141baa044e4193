"""The Markdown table of a study, on rows written by hand; and that the README's is the one that the committed results make."""

import json
from pathlib import Path

import pytest

from experiments import study_table

SFT = {"method": "sft", "size": 1000, "accuracy": 0.119, "pass_at_5": 0.2231, "right_with_wrong_step": 0.25}
METHOD = SFT | {"method": "rft", "multiple": 2.34, "multiple_lo": 1.61, "multiple_hi": 16.0, "compute": 2.26}
METHOD["multiple_per_compute"] = 1.04
ROWS = [SFT | {"method": "base", "size": 0}, SFT, METHOD, SFT | {"size": 16_000}]


def test_a_row_for_each_cell_with_sft_first_and_no_multiple_beyond_its_sizes():
    head, line, base, sft, more, rft = study_table.markdown(ROWS, {"rft": "RFT"}).split("\n")
    assert head.startswith("| | accuracy % | pass@5 % | multiple by the law | as measured |") and head.count("|") == 9
    assert line == "|---" * 8 + "|"
    assert base == "| base, zero-shot | 11.9 | 22.3 | | | 25.0 | | |" and more.startswith("| SFT on 16,000 | 11.9 |")
    assert sft == "| SFT on 1,000 | 11.9 | 22.3 | | | 25.0 | | |"
    assert rft == "| RFT | 11.9 | 22.3 | 2.3 [1.6, >= 16] | | 25.0 | 2.3 | 1.0 |"


def test_methods_at_several_sizes_say_which_and_drift_has_columns():
    more = {"pit_is_first_wrong": 0.612, "drift_needed_lost": 0.125, "drift_wrong_lost": -1.0}
    table = study_table.markdown([*ROWS, METHOD | {"size": 2000} | more], {}).split("\n")
    assert "| pits right % | needed steps lost |" in table[0] and table[-2].startswith("| `rft`, N = 1,000 |")
    assert table[-1].startswith("| `rft`, N = 2,000 |") and table[-1].endswith("| 61.2 | 0.12 | -1.00 |")


def test_a_row_of_fewer_seeds_than_the_others_says_so():
    seeds = {"base": 1, "sft": 3, "rft": 2}
    table = study_table.markdown([row | {"seeds": seeds[row["method"]]} for row in ROWS], {}).split("\n")
    assert table[-1].startswith("| `rft` (2 of 3 seeds) | 11.9 |") and table[2].startswith("| base, zero-shot | 11.9 |")
    assert table[3].startswith("| SFT on 1,000 | 11.9 |")


@pytest.mark.parametrize("end", [16_000, 32_000])
def test_an_interval_stops_where_sft_does(end):
    row = {"size": 1000, "multiple": 16.0, "multiple_lo": 9.96, "multiple_hi": 16.0}
    wanted = ">= 16 [10.0, >= 16]" if end == 16_000 else "16.0 [10.0, 16.0]"
    assert study_table.interval(row, "multiple", end) == wanted


def test_the_readme_shows_the_committed_rows():
    root = Path(__file__).parents[2]
    from configs import arithmetic_scaling

    rows = json.loads((root / "experiments/results/claims_by_setting.json").read_text())
    claims = json.loads((root / "experiments/results/claims.json").read_text())
    mine = [row for row in rows if row["config_hash"] == claims[0]["config_hash"]]
    table = study_table.markdown(mine, arithmetic_scaling.get_config().titles.to_dict())
    assert table in (root / "README.md").read_text(), "experiments.claims --config=... --table makes it"
