"""The claims from a made-up results file whose truth is known."""

import json
import re

import numpy as np
import pytest

from configs import tiny
from experiments import claims, comparison, report_data, study, study_table
from experiments.artifacts import write_jsonl
from experiments.graph import plan
from experiments.results_file import ResultsFile, pack
from synthrl_jax.analysis.scaling_law import efficiency_multiple, fit, measured_multiple, measured_ratio, multiple_ratio

PROBLEMS, SLOPE = 400, 0.15
SIZES = (100, 200, 400, 1600)
WORTH = {"rft": 2.0, "rft_1": 1.5, "dpo_outcome": 0.6, "dpo_per_step": 8.0, "advantage_filtered": 3.0}
WRONG_STEPS = {"sft": 0.2, "rft": 0.3, "rft_1": 0.1, "advantage_filtered": 0.1}
TOKENS = {"train_tokens": 1000, "sample_tokens": 500, "rollout_tokens": 250}


def config(path, seeds=(0, 1, 2, 3, 4), split="test"):
    c = tiny.get_config()
    c.drift, c.problems.settings = 10, {"style": 0.1, "difficulty": {"steps": (2, 3)}}
    c.name, c.results, c.sizes, c.sft_sizes = "study", str(path), (100,), SIZES[1:]
    c.seeds, c.tune_seeds, c.evaluate.split = seeds, (0,), split
    grid = {"loss_args": {"beta": (0.1, 0.3)}, "optimizer": {"learning_rate": (1e-4, 1e-3)}}
    c.methods = {name: {"method": "rft"} if name == "rft_1" else {} for name in WORTH}
    c.methods.dpo_outcome = {"loss_args": {"beta": 0.1}}
    c.methods.dpo_per_step = {"loss_args": {"beta": 0.1}, "grid": grid}
    return c


def error(size):
    return 0.9 * (size / 100) ** -SLOPE


def rows_of(method, size, seed):
    """Problems are right up to a hardness that all cells share but for a little luck, so that seeds differ a little."""
    p = 1 - (0.95 if method == "base" else error(size * WORTH.get(method, 1.0)))
    luck = np.random.default_rng([seed, size]).normal(scale=0.01, size=PROBLEMS)
    right = (np.arange(PROBLEMS) + 0.5) / PROBLEMS + luck < p
    wrong = np.arange(PROBLEMS) % 10 < 10 * WRONG_STEPS.get(method, 0.2)
    return [
        {
            "id": f"p{i}",
            "outcome": "correct" if right[i] else "wrong",
            "samples": 10,
            "correct": int(3 * right[i]),
            "greedy": {"needed": 3, "wrong value": 1} if wrong[i] or not right[i] else {"needed": 4},
        }
        for i in range(PROBLEMS)
    ]


def write(tmp_path, c, leave=lambda label: False, rows=rows_of):
    """The results file of a config with a row for each evaluation and choice."""
    nodes = plan(c)
    results, made, cell = ResultsFile(c.results, nodes), [], tmp_path / "cell"
    cell.mkdir(exist_ok=True)
    for node in nodes:
        row = {"label": node.label, "stage": node.stage, "key": results.keys[node.label], "hardware": "one core"}
        row |= {"date": "2025-03-04T05:06:07+00:00", "commit": "abc1234"}
        if leave(node.label):
            continue
        if node.stage == "evaluate":
            method, _, at = node.label.removeprefix("evaluate ").partition(" N=")
            size, seed = (int(x) for x in at.split(" seed=")) if at else (0, 0)
            write_jsonl(cell / "problems.jsonl", rows(method, size, seed))
            write_jsonl(
                cell / "row.jsonl", [{"problems": PROBLEMS, "k": 5, "accuracy": 0, "accuracy_lo": 0, "accuracy_hi": 0}]
            )
            row |= TOKENS if method not in ("base", "sft") else dict.fromkeys(TOKENS, 0) | {"train_tokens": 700}
        elif node.stage == "choose":
            points = [
                {"point": p, "validation_accuracy": 0.1 + 0.01 * i} for i, p in enumerate(node.settings["points"])
            ]
            write_jsonl(cell / "grid.jsonl", points)
            write_jsonl(cell / "choice.jsonl", points[-1:])
        elif node.stage == "credit":
            row["usable_pit_is_first_wrong"] = 0.6 + 0.1 * node.seed
            made.append(row)
            continue
        elif node.stage == "drift" and node.label.startswith("drift dpo_per_step"):
            write_jsonl(cell / "summary.jsonl", [{"responses": 10, "needed_lost": 0.1 * node.seed}])
        else:
            continue
        made.append(row | {"files": pack(cell)})
        for path in cell.iterdir():
            path.unlink()
    tmp_path.joinpath("study.json").write_text(json.dumps(made))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(report_data, "RESAMPLES", 300)
    monkeypatch.setattr(claims, "RESAMPLES", 300)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The directory and config of a study with everything finished."""
    tmp_path = tmp_path_factory.mktemp("full")
    c = config(tmp_path / "study.json")
    write(tmp_path, c)
    return tmp_path, c


def by_claim(c):
    return {row["claim"]: row for row in claims.claims(study.read(c), "0123456789ab")}


def test_every_claim_has_one_row_with_exactly_the_agreed_fields(full, tmp_path):
    directory, c = full
    found, rows, _ = claims.write(c, tmp_path / "results")
    assert rows == json.loads((tmp_path / "results" / "claims.json").read_text())
    assert [row["claim"] for row in rows] == ["C1", "C2", "C4", "C5", "C6", "C8"]
    fields = "claim metric value lo hi verdict paper_size_reached study config_hash seeds hardware date".split()
    for row in rows:
        assert list(row) == fields
        assert (
            row["study"] == "study"
            and row["seeds"] == 5
            and row["hardware"] == "one core"
            and row["date"] == "2025-03-04"
        )
        assert row["lo"] <= row["value"] <= row["hi"]
    pngs = sorted(path.name for path in (tmp_path / "results" / "study").iterdir())
    assert pngs == ["error.png", "heat_maps.png", "multiples.png"]
    assert not found.missing


def test_the_numbers_are_those_of_the_rows(full):
    rows = by_claim(full[1])
    accuracy = lambda method, size: np.mean(  # noqa: E731
        [[row["outcome"] == "correct" for row in rows_of(method, size, seed)] for seed in range(5)]
    )
    law = fit(SIZES, [1 - accuracy("sft", size) for size in SIZES])
    assert rows["C1"]["value"] == pytest.approx(law.b, abs=1e-6) == pytest.approx(SLOPE, abs=0.02)
    for claim, method in (("C2", "rft"), ("C6", "dpo_per_step")):
        multiple = efficiency_multiple(law, 100, 1 - accuracy(method, 100))
        assert rows[claim]["value"] == pytest.approx(multiple, rel=1e-5) == pytest.approx(WORTH[method], rel=0.25)
    sft = [1 - accuracy("sft", size) for size in SIZES]
    measured = measured_multiple(SIZES, sft, 100, 1 - accuracy("dpo_per_step", 100))
    ratio = multiple_ratio(law, 100, 1 - accuracy("dpo_per_step", 100), 1 - accuracy("dpo_outcome", 100), 1600)
    assert f"off SFT's measured errors {measured:.3g} [" in rows["C6"]["metric"] and measured == pytest.approx(
        8, rel=0.3
    )
    assert f"over dpo_outcome's: {ratio:.3g} [" in rows["C6"]["metric"] and ratio == pytest.approx(8 / 0.6, rel=0.3)
    errors = [1 - accuracy(method, 100) for method in ("dpo_per_step", "dpo_outcome")]
    assert f"times, as measured {measured_ratio(SIZES, sft, 100, *errors):.3g} [" in rows["C6"]["metric"]
    difference = accuracy("dpo_outcome", 100) - accuracy("sft", 100)
    assert rows["C5"]["value"] == pytest.approx(difference, abs=1e-6) and difference < 0
    assert rows["C4"]["value"] == pytest.approx(0.2, abs=0.05) and rows["C8"]["value"] == pytest.approx(-0.2, abs=0.05)
    assert {row["verdict"] for row in rows.values()} == {"holds"}
    assert rows["C2"]["paper_size_reached"] == (rows["C2"]["value"] >= 2)


def test_what_goes_the_other_way_fails(tmp_path):
    c = config(tmp_path / "study.json")
    turned = {"rft": "dpo_outcome", "dpo_outcome": "dpo_per_step", "dpo_per_step": "dpo_outcome"}
    turned |= {"advantage_filtered": "rft", "rft_1": "rft"}

    def rows(method, size, seed):
        out = rows_of(turned.get(method, method), size, seed)
        return [row | {"greedy": {"needed": 4}} for row in out] if method == "rft" else out

    write(tmp_path, c, rows=rows)
    found = by_claim(c)
    assert {name: row["verdict"] for name, row in found.items() if name != "C1"} == dict.fromkeys(
        ("C2", "C4", "C5", "C6", "C8"), "fails"
    )
    assert not any(row["paper_size_reached"] for name, row in found.items() if name != "C1")


@pytest.mark.parametrize("change, word", [({"seeds": (0, 1, 2)}, ""), ({"split": "validation"}, "read on validation")])
def test_few_seeds_and_validation_decide_nothing(tmp_path, change, word):
    c = config(tmp_path / "study.json", **change)
    write(tmp_path, c)
    for row in by_claim(c).values():
        assert row["verdict"] == "undecided" and row["value"] is not None and word in row["metric"]
        assert row["seeds"] == len(c.seeds)


def test_what_is_missing_is_said_and_has_no_value(tmp_path):
    c = config(tmp_path / "study.json")
    gone = ("evaluate dpo_per_step ", "evaluate rft_1 ", "evaluate sft N=1600")
    write(tmp_path, c, leave=lambda label: label.startswith(gone))
    rows = by_claim(c)
    for claim, name in (
        ("C6", "dpo_per_step N=100"),
        ("C5", "dpo_per_step N=100"),
        ("C4", "rft_1 N=100"),
        ("C1", "sft N=1600"),
    ):
        assert rows[claim]["value"] is rows[claim]["lo"] is rows[claim]["hi"] is None
        assert rows[claim]["verdict"] == "undecided" and f"missing: {name}" in rows[claim]["metric"]
    assert rows["C2"]["value"] is not None and "without sft N=1600" in rows["C2"]["metric"]
    assert "16 x are wanted" in rows["C2"]["metric"] and rows["C2"]["verdict"] == "undecided"
    assert len(study.read(c).missing) == 15


def test_a_multiple_beyond_the_largest_size_is_a_lower_bound(tmp_path):
    c = config(tmp_path / "study.json")

    def rows(method, size, seed):
        return rows_of("sft", 40_000, seed) if method == "dpo_per_step" else rows_of(method, size, seed)

    write(tmp_path, c, rows=rows)
    row = by_claim(c)["C6"]
    assert (
        row["value"] == row["hi"] == 16 and "value and lo and hi >= 16" in row["metric"] and row["verdict"] == "holds"
    )
    (setting,) = [r for r in claims.by_setting(study.read(c), "x") if r["method"] == "dpo_per_step"]
    assert setting["multiple"] == setting["multiple_measured"] == 16 and setting["multiple_at_least"]
    assert "off SFT's measured errors >= 16 [>= 16, >= 16]" in row["metric"] and setting["multiple_measured_at_least"]
    ratio = study.read(c).multiple_ratio("dpo_per_step", "dpo_outcome", 100)
    assert ratio.value == pytest.approx(16 / 0.6, rel=0.3)  # and not 400 / 0.6
    found = study.read(c)
    assert comparison.compare(found, "dpo_per_step", "rft", 100)["capped"] == ["law", "measured"]
    assert comparison.text(found, ["dpo_per_step", "rft"]).count("each at most SFT's largest size") == 2


def test_below_the_smallest_size_a_measured_multiple_is_an_upper_bound(tmp_path):
    c = config(tmp_path / "study.json")
    smallest = SIZES[0] / 100

    def rows(method, size, seed):
        return rows_of("sft", 10, seed) if method == "rft" else rows_of(method, size, seed)

    write(tmp_path, c, rows=rows)
    settings = {r["method"]: r for r in claims.by_setting(study.read(c), "x") if r["method"] != "sft"}
    assert settings["rft"]["multiple_measured"] == smallest and settings["rft"]["multiple_measured_at_most"]
    assert not settings["dpo_per_step"]["multiple_measured_at_most"]
    assert (
        f"off SFT's measured errors <= {smallest:g} [<= {smallest:g}, <= {smallest:g}]" in by_claim(c)["C2"]["metric"]
    )
    table = study_table.markdown(list(claims.by_setting(study.read(c), "x")), {})
    assert f"| <= {smallest:g} [<= {smallest:g}, <= {smallest:g}] |" in table


def test_a_curve_that_bends_is_told_from_a_line(tmp_path):
    c = config(tmp_path / "study.json")
    bend = SIZES[len(SIZES) // 2]

    def rows(method, size, seed):
        return rows_of(method, max(size, bend), seed) if method == "sft" else rows_of(method, size, seed)

    def halves(c):
        lower, upper = by_claim(c)["C1"]["metric"].split("; ", 1)[1].split(f" up to {bend:,}, ")
        return [[float(number) for number in re.findall(r"-?[\d.]+(?:e-\d+)?", half)[:3]] for half in (lower, upper)]

    write(tmp_path, c)
    (_, lo, hi), (_, low, high) = halves(c)
    assert lo < high and low < hi, "a line: both halves have one exponent"
    (tmp_path / "study.json").unlink()
    write(tmp_path, c, rows=rows)
    (_, lo, hi), (_, low, high) = halves(c)
    assert lo < 0.05 and hi < low, "flat, then steep"


def test_settings_have_a_row_for_every_method_and_size_and_a_multiple_per_compute(full):
    found = study.read(full[1])
    rows = {(row["method"], row["size"]): row for row in claims.by_setting(found, "x")}
    assert set(rows) == {("base", 0), *(("sft", size) for size in SIZES), *((name, 100) for name in WORTH)}
    row = rows["dpo_per_step", 100]
    assert row["tokens"] == 1750 and row["compute"] == 2.5
    assert row["drift_needed_lost"] == pytest.approx(0.2) and "drift_needed_lost" not in rows["rft", 100]
    assert row["pit_is_first_wrong"] == pytest.approx(np.mean([0.6, 0.7, 0.8, 0.9, 1.0]))
    assert rows["dpo_outcome", 100]["pit_is_first_wrong"] is None, "its pairs do not fork at pits"
    assert row["multiple_per_compute"] == pytest.approx(row["multiple"] / 2.5, rel=1e-4)
    assert row["multiple_measured_lo"] <= row["multiple_measured"] <= row["multiple_measured_hi"] <= 16
    assert rows["sft", 400]["multiple_measured"] is None
    assert row["pass_at_5_lo"] <= row["pass_at_5"] <= row["pass_at_5_hi"]
    assert rows["rft", 100]["right_with_wrong_step"] == pytest.approx(0.3, abs=0.04)
    assert (
        row["problems_difficulty_steps"] == [2, 3]
        and row["problems_style"] == 0.1
        and row["split"] == "test"
        and row["seeds"] == 5
    )
    assert rows["sft", 400]["multiple"] is None and rows["base", 0]["multiple_per_compute"] is None


def test_a_rows_gaps_are_those_of_its_responses(full):
    found = study.read(full[1])
    for seed in range(5):
        for i, row in enumerate(found.problems["rft", 100, seed]):
            row["greedy"] = {"needed": 2, "leap": 1} if i % 4 == 0 else {"needed": 3}
    gaps = found.gaps("rft", 100)
    right = [
        row["outcome"] == "correct"
        for s in range(5)
        for row in found.problems["rft", 100, s]
        if "leap" not in row["greedy"]
    ]
    assert gaps["with_gap"] == (0.25, pytest.approx(0.25, abs=0.06), pytest.approx(0.25, abs=0.06))
    assert gaps["right_without_gap"].value == pytest.approx(np.mean(right))
    row = next(r for r in claims.by_setting(found, "x") if (r["method"], r["size"]) == ("rft", 100))
    assert row["with_gap"] == 0.25 and row["right_without_gap"] == pytest.approx(np.mean(right), abs=1e-6)
    del found.problems["rft", 100, 0][0]["greedy"]
    assert found.gaps("rft", 100) == {}


def test_the_share_of_right_pits_is_that_of_the_pits_that_are_used(tmp_path):
    c = config(tmp_path / "study.json", seeds=(0,))
    step = {"method": "dpo_per_step", "loss_args": {"beta": 0.1}}
    c.methods = {
        "rounds": step | {"rounds": {"count": 2, "problems": 10}},
        "oracle": step | {"credit": {"pit_rule": "oracle"}},
        "chosen": step | {"credit": {"least_value": 0.8}},
        "several": step | {"credit": {"pits": "significant"}},
    }
    write(tmp_path, c)
    found = study.read(c)
    rounds = np.mean([0.6 + 0.1 * (1000 * number) for number in (1, 2)])  # the seed of a round's credit has its number
    assert found.right_pits("rounds", 100) == pytest.approx(rounds)
    assert found.right_pits("oracle", 100) == pytest.approx(0.6)
    assert found.right_pits("chosen", 100) is None and found.right_pits("several", 100) is None


def test_rows_of_other_settings_stay(full, tmp_path):
    out = tmp_path / "results"
    out.mkdir()
    stale = {
        "study": "study",
        "split": "test",
        "problems_style": 0.1,
        "problems_difficulty_steps": [2, 3],
        "method": "gone",
    }
    stale["sample_temperature"] = full[1].sample.temperature
    others = [
        stale | change
        for change in ({"problems_style": 0.5}, {"problems_difficulty_steps": [4, 5]}, {"sample_temperature": 0.1})
    ]
    (out / "claims_by_setting.json").write_text(json.dumps([*others, stale]))
    claims.write(full[1], out, only_settings=True)
    rows = json.loads((out / "claims_by_setting.json").read_text())
    assert all(other in rows for other in others) and stale not in rows and len(rows) == 3 + 1 + len(SIZES) + len(WORTH)
    assert not (out / "claims.json").exists()


def test_the_command(full, tmp_path, capsys):
    path = str(full[0] / "study.json")
    text = f"import test_claims\n\n\ndef get_config():\n    return test_claims.config({path!r})\n"
    (tmp_path / "mine.py").write_text(text)
    flags = [f"--config={tmp_path / 'mine.py'}", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "rows.json")]
    assert claims.main(flags) == 0
    assert json.loads((tmp_path / "rows.json").read_text()) == json.loads(
        (tmp_path / "out" / "claims.json").read_text()
    )
    assert "C6  holds" in capsys.readouterr().out
    assert claims.main([*flags, f"--config.results={tmp_path / 'nothing.json'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_main_size_is_the_largest_that_the_curve_exceeds_16_times(full):
    found = study.read(full[1])
    assert found.main_size == 100
    found.config |= {"sizes": (50, 100, 200), "sft_sizes": (1600,)}
    assert found.main_size == 100
    found.config["sft_sizes"] = (400,)
    assert found.main_size == 50
    found.config["main_size"] = 200
    assert found.main_size == 200
