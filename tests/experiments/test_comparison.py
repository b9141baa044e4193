"""One method against another, on the made-up study whose truth is known."""

import numpy as np
import pytest
import test_claims

from experiments import claims, comparison, report_data, study
from experiments.settings import UsageError


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(report_data, "RESAMPLES", 300)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    directory = tmp_path_factory.mktemp("comparison")
    c = test_claims.config(directory / "study.json")
    test_claims.write(directory, c)
    return study.read(c)


def truth(method, seed):
    return [row["outcome"] == "correct" for row in test_claims.rows_of(method, 100, seed)]


def flawed(method):
    right = [row for s in range(5) for row in test_claims.rows_of(method, 100, s) if row["outcome"] == "correct"]
    return np.mean(["wrong value" in row["greedy"] for row in right])


def test_differences_are_those_of_the_problems_and_ratios_those_of_the_truth(found):
    out = comparison.compare(found, "dpo_per_step", "rft", 100)
    wanted = np.mean([np.mean(truth("dpo_per_step", s)) - np.mean(truth("rft", s)) for s in range(5)])
    assert out["seeds"] == [0, 1, 2, 3, 4] and out["accuracy"].value == pytest.approx(wanted)
    assert 0 < out["accuracy"].lo < wanted < out["accuracy"].hi
    seeds = [np.mean(truth("dpo_per_step", s)) - np.mean(truth("rft", s)) for s in range(5)]
    assert out["by_seed"] == pytest.approx(seeds) and out["capped"] == []
    assert out["law"].lo < test_claims.WORTH["dpo_per_step"] / test_claims.WORTH["rft"] < out["law"].hi
    # pass@5 of 10 samples, 3 of them right where the greedy answer is: 1 - C(7, 5) / C(10, 5)
    assert out["pass_at_k"].value == pytest.approx(wanted * (1 - 21 / 252))
    assert out["right_with_wrong_step"].value == pytest.approx(flawed("dpo_per_step") - flawed("rft"))
    assert out["with_gap"] == (0, 0, 0)  # made-up lines have no gap, so that all of the right ones are without
    assert out["right_without_gap"].value == pytest.approx(wanted)


def test_both_directions_agree_and_sft_has_no_multiple(found):
    there, back = (comparison.compare(found, *pair, 100) for pair in (("rft", "sft"), ("sft", "rft")))
    assert there["accuracy"].value == -back["accuracy"].value > 0
    assert there["law"] is None and there["measured"] is None
    with pytest.raises(KeyError, match="no rows of nothing at N = 100"):
        comparison.compare(found, "rft", "nothing", 100)


def test_the_flag_prints_and_writes_nothing(found, tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"import test_claims\n\n\ndef get_config():\n    return test_claims.config({found.config['results']!r})\n"
    )
    flags = [f"--config={mine}", f"--out={tmp_path / 'out'}"]
    assert claims.main([*flags, "--compare=dpo_per_step,rft,dpo_outcome"]) == 0
    text = capsys.readouterr().out
    by_seed = comparison.compare(found, "dpo_per_step", "rft", 100)["by_seed"]
    assert "; by seed " + ", ".join(f"{100 * one:+.1f}" for one in by_seed) in text and "at most" not in text
    assert text.count("dpo_per_step against") == 2 and "seeds 0, 1, 2, 3, 4" in text and "pass@5" in text
    assert not (tmp_path / "out").exists()
    for wrong in ("rft", "rft,nothing"):
        assert claims.main([*flags, f"--compare={wrong}"]) == 2
        assert capsys.readouterr().err.startswith("error: --compare")
    with pytest.raises(UsageError, match="there are advantage_filtered"):
        comparison.text(found, ["rft", "nothing"])
