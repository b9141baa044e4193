import dataclasses
import json
from html.parser import HTMLParser

import pytest
from made_up_run import arithmetic_problems, word_problems, write_run

from configs import base
from experiments import report, report_page
from experiments.report_credit import pit_facts
from experiments.report_words import verdict


class Page(HTMLParser):
    """Tables as lists of rows of cell texts, the text, and every address that the page names."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.addresses, self.tags, self.text = {}, [], [], ""
        self._table = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.addresses += [
            v for k, v in attrs.items() if k in ("src", "href", "srcset", "data", "action", "xlink:href")
        ]
        if tag == "table":
            self._table = self.tables.setdefault(attrs["id"], [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        self.text += data
        if self._table and self._table[-1]:
            self._table[-1][-1] += data


def small(name, sizes=(1000,), seeds=(0,), methods=("sft_continued", "rft", "dpo_per_step")):
    config = base.get_config()
    config.name, config.sizes, config.seeds, config.test_problems = name, sizes, seeds, 120
    config.methods = {method: {"updates": 150} for method in methods}
    for method in {"dpo_per_step", "dpo_outcome"} & set(methods):
        config.methods[method].loss_args = {"beta": 0.1}
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one size and seed: its cells, its directory and what was printed."""
    workdir = tmp_path_factory.mktemp("one")
    cells = write_run(workdir, small("one"), arithmetic_problems(), docstring="A made-up <run>.")
    return cells, workdir, report.finish(workdir, str(workdir / "out" / "rows.json"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Three sizes, two seeds, and a method that has not finished at one of them."""
    workdir = tmp_path_factory.mktemp("grid")
    config = small("grid", (500, 1000, 8000), (0, 1), ("sft_continued", "rft"))
    cells = write_run(workdir, config, arithmetic_problems(8))
    del cells["evaluate rft N=500 seed=1"]
    return config, cells, report.collect(config.to_dict(), cells)


def jsonl(cell, name):
    return [json.loads(line) for line in (cell.path / name).read_text().splitlines()]


def test_page_holds_every_row_with_the_numbers_of_its_cell(finished):
    cells, workdir, _ = finished
    head, *rows = Page((workdir / "report" / "index.html").read_text()).tables["results"]
    assert [row[0] for row in rows] == ["base (zero-shot)", "sft", "sft_continued", "rft", "dpo_per_step"]
    assert head[1:4] == ["accuracy %", "pass@5 %", "vs sft_continued"]
    for name, row in zip(["base", *(f"{m} N=1000 seed=0" for m in [r[0] for r in rows[1:]])], rows):
        numbers = jsonl(cells[f"evaluate {name}"], "row.jsonl")[0]
        for place, field in ((1, "accuracy"), (2, "pass_at_k")):
            value, lo, hi = (100 * numbers[f"{field}{end}"] for end in ("", "_lo", "_hi"))
            assert row[place] == f"{value:.1f} [{lo:.1f}, {hi:.1f}]"
        problems = jsonl(cells[f"evaluate {name}"], "problems.jsonl")
        lines = sum(sum(p["greedy"].values()) for p in problems)
        leaps = sum(p["greedy"].get("leap", 0) for p in problems)
        assert row[head.index("leaps %")].startswith(f"{100 * leaps / lines:.1f} [")


def test_the_paired_difference_is_to_continued_sft(finished):
    cells, workdir, _ = finished
    rows = {row["method"]: row for row in json.loads((workdir / "out" / "rows.json").read_text())}
    accuracy = {
        m: jsonl(cells[f"evaluate {m} N=1000 seed=0"], "row.jsonl")[0]["accuracy"] for m in ("rft", "sft_continued")
    }
    row = rows["rft"]
    assert row["minus_sft_continued"] == pytest.approx(accuracy["rft"] - accuracy["sft_continued"], abs=1e-6)
    assert row["minus_sft_continued_lo"] <= row["minus_sft_continued"] <= row["minus_sft_continued_hi"]
    assert "minus_sft_continued" not in rows["base"] and "minus_sft_continued" not in rows["sft_continued"]


def test_page_loads_nothing(finished):
    _, workdir, _ = finished
    text = (workdir / "report" / "index.html").read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert page.addresses and all(address.startswith("#") for address in page.addresses)
    assert "http" not in text and "@import" not in text
    assert page.tags.count("svg") == page.tags.count("figure") == 5
    assert sorted(p.stem for p in (workdir / "report" / "figures").iterdir()) == [
        "accuracy",
        "line_kinds",
        "pits",
        "validation",
        "worked_example",
    ]


def test_page_says_what_was_run_and_that_one_seed_decides_nothing(finished):
    _, workdir, _ = finished
    page = Page((workdir / "report" / "index.html").read_text())
    assert "A made-up <run>." in page.text
    assert page.text.count("one seed: undecided") == 2  # rft and dpo_per_step
    stages = {row[0]: row[1:] for row in page.tables["stages"][1:]}
    assert stages["evaluate"][0] == "5" and stages["train"][0] == "3"
    assert "Not finished" not in page.text
    settings = dict(page.tables["settings"])
    assert settings["seeds"] == "0" and "hash 0123456789ab" in settings["config"]


def test_terminal_shows_the_same_table_and_the_four_outcomes(finished):
    cells, workdir, printed = finished
    accuracy = jsonl(cells["evaluate rft N=1000 seed=0"], "row.jsonl")[0]
    line = next(line for line in printed.splitlines() if line.startswith("rft "))
    assert f"{100 * accuracy['accuracy']:.1f} [{100 * accuracy['accuracy_lo']:.1f}," in line
    assert "43.0 % correct, 54.0 % wrong, 29 without an answer, 1 not graded for an error of the grader" in printed
    assert "20 fork, 30 solution, 31 outcome, 32 edit-distance" in printed
    assert printed.endswith(str(workdir / "report" / "index.html"))


def test_json_rows_are_flat_and_carry_the_settings(finished):
    _, workdir, _ = finished
    rows = json.loads((workdir / "out" / "rows.json").read_text())
    assert len(rows) == 5
    for row in rows:
        assert not any(isinstance(value, dict | list) for value in row.values())
        assert row["config"] == "one" and row["config_hash"] == "0123456789ab" and row["problems_style"] == 0.25
    sft = rows[1]
    assert (sft["method"], sft["size"], sft["seed"], sft["updates"]) == ("sft", 1000, 0, 500)
    assert sft["samples_grader_error"] == 1 and sft["pairs_fork"] == 20 and sft["pits"] == 24
    wanted = {"accuracy_lo", "pass_at_k_hi", "wrong_steps", "needless_steps", "leaps", "right_with_wrong_step"}
    assert wanted | {"no_answer", "grader_error", "validation_accuracy"} <= set(sft)


def test_the_example_has_its_pit_where_the_value_falls(finished):
    cells, _, _ = finished
    example = report.collect(small("one").to_dict(), cells).example
    before = [example.prompt_value, *(step.q for step in example.steps)][example.pit]
    assert example.pit >= 1 and before > 0.5 and example.steps[example.pit].q == 0
    assert example.steps[example.pit].wrong and not any(step.wrong for step in example.steps[: example.pit])
    assert example.rescue[-1] == f"#### {example.answer}"


def test_the_page_is_made_again_by_its_command(finished, capsys):
    _, workdir, _ = finished
    page = (workdir / "report" / "index.html").read_text()
    (workdir / "report" / "index.html").unlink()
    assert report.main([f"--workdir={workdir}"]) == 0
    again = (workdir / "report" / "index.html").read_text()
    assert Page(again).tables["results"] == Page(page).tables["results"]
    assert "dpo_per_step" in capsys.readouterr().out


def test_a_directory_without_a_run_is_one_clear_line(tmp_path, capsys):
    assert report.main([f"--workdir={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_cells_are_named_and_the_rest_is_shown(finished, tmp_path):
    cells, _, _ = finished
    gone = ["dpo_per_step N=1000 seed=0", "evaluate dpo_per_step N=1000 seed=0", "credit N=1000 seed=0"]
    found = report.collect(small("one").to_dict(), {k: v for k, v in cells.items() if k not in gone})
    assert sorted(found.missing) == sorted(gone)
    assert [s.method for s in found.scores] == ["base", "sft", "sft_continued", "rft"]
    page = Page(report.render(found, tmp_path).read_text())
    assert all(label in page.text for label in gone)
    assert "credit N=1000 seed=0" in report.table(found)
    assert page.tags.count("svg") == 3  # accuracy, kinds of lines, validation


def test_a_method_without_rows_is_no_method(finished, tmp_path):
    cells, _, _ = finished
    idle = tmp_path / "idle"
    idle.mkdir()
    (idle / "summary.jsonl").write_text('{"best_update": 0, "rows": 0, "tokens": 0, "updates": 0}\n')
    (idle / "looks.jsonl").write_text("")
    (idle / "manifest.json").write_text((cells["rft N=1000 seed=0"].path / "manifest.json").read_text())
    found = report.collect(
        small("idle").to_dict(),
        {**cells, "rft N=1000 seed=0": dataclasses.replace(cells["rft N=1000 seed=0"], path=idle)},
    )
    said = "No rows to learn from, so the policy is the one that the method starts from: rft."
    assert said in report.table(found) and said in report_page.page(found)[0]


def test_nothing_finished_is_told_too(tmp_path):
    found = report.collect(small("none").to_dict(), {})
    assert "no method has been evaluated yet" in report.table(found)
    assert report.rows(found) == [] and len(found.missing) == 18
    assert "No method has been evaluated yet" in report.render(found, tmp_path).read_text()


def test_a_source_without_oracle_has_no_columns_of_steps(tmp_path):
    config = small("words", methods=("sft_continued",))
    config.base.pretrained = None
    config.problems.source, config.problems.settings = "gsm8k", {"max_characters": 600}
    found = report.collect(config.to_dict(), write_run(tmp_path, config, word_problems(8)))
    page = Page(report.render(found, tmp_path / "report").read_text())
    assert page.tables["results"][0] == ["method", "accuracy %", "pass@5 %", "vs sft_continued"]
    assert "oracle" not in page.text and "accuracy will be low" in page.text and "width 128" in page.text
    assert not any("steps" in name or "leaps" in name for row in report.rows(found) for name in row)
    assert "oracle" not in report.table(found) and "gsm8k" in report.table(found)


def test_seeds_are_averaged_and_compared_on_the_seeds_of_both(grid):
    _, cells, found = grid
    rows = {(s.method, s.size): s for s in found.scores}
    each = [jsonl(cells[f"evaluate sft N=1000 seed={seed}"], "row.jsonl")[0]["accuracy"] for seed in (0, 1)]
    assert rows["sft", 1000].accuracy.value == pytest.approx(sum(each) / 2)
    alone = [jsonl(cells[f"evaluate {m} N=500 seed=0"], "row.jsonl")[0]["accuracy"] for m in ("rft", "sft_continued")]
    assert rows["rft", 500].difference.value == pytest.approx(alone[0] - alone[1])
    assert found.missing == ["evaluate rft N=500 seed=1"]
    means = [row for row in report.rows(found) if row["seed"] is None]
    assert {row["seeds"] for row in means} == {2} and len(means) == 8  # all but base and the unfinished one
    assert verdict(rows["rft", 1000]) == "2 seeds: undecided"


def test_multiples_are_read_from_the_law_and_never_beyond_the_largest_size(grid, tmp_path):
    _, _, found = grid
    rows = {
        (row["method"], row["size"]): row for row in report.rows(found) if row["seed"] is None or row["size"] == 500
    }
    errors = {s.size: 1 - s.accuracy.value for s in found.scores if s.method == "sft"}
    law = found.scaling.law
    assert law.b > 0 and sorted(errors) == found.scaling.sizes == [500, 1000, 8000]
    value = rows["sft_continued", 1000]
    expected = (law.error(1.0) / (1 - value["accuracy"])) ** (1 / law.b) / 1000
    assert value["multiple"] == pytest.approx(min(expected, 8), rel=1e-4)
    assert value["multiple_at_least"] == (expected > 8)
    assert max(row.get("multiple_hi", 0) for row in rows.values()) <= 16
    assert "multiple" not in rows["sft_continued", 8000]
    assert "multiple" in report.table(found).splitlines()[2]


def test_pit_facts_by_hand():
    pits = [
        {"pit": 1, "first_wrong": 1, "lost": 2, "value_before": 1.0},
        {"pit": 2, "first_wrong": 1, "lost": 2, "value_before": 0.4},
        {"pit": 0, "first_wrong": 3, "lost": 3, "value_before": 0.0},
        {"pit": 0, "first_wrong": 0, "lost": 0, "value_before": 0.0},
    ]
    facts = pit_facts(pits)
    assert (facts["pits"], facts["pit_is_first_wrong"], facts["pit_is_lost"], facts["pit_is_either"]) == (
        4,
        0.5,
        0.5,
        0.75,
    )
    assert (facts["usable_pits"], facts["usable_pit_is_first_wrong"], facts["usable_pit_is_either"]) == (2, 0.5, 1.0)


def test_the_page_maps_every_point_of_the_grids(tmp_path):
    config = small("tuned", methods=("rft", "dpo_per_step"))
    config.tune_seeds, config.test_problems = (0,), 40
    rates = {"learning_rate": (1e-4, 1e-3)}
    config.methods.dpo_per_step.grid = {"loss_args": {"beta": (0.1, 0.3), "nll": (0.0, 0.2)}, "optimizer": rates}
    config.methods.rft.grid = {"optimizer": rates}
    found = report.collect(config.to_dict(), write_run(tmp_path, config, arithmetic_problems(6)))
    assert {name: len(rows) for name, rows in found.grids[1000].items()} == {"rft": 2, "dpo_per_step": 8}
    text, figures = report_page.page(found)
    assert "Every point of every grid" in text
    panels = [axes.get_title(loc="left") for axes in figures["heat_maps"].axes if axes.get_visible()]
    assert panels == ["rft", "dpo_per_step, NLL 0", "dpo_per_step, NLL 0.2"]
    best = max(score for _, score in found.looks["sft", 1000][0])
    assert f"pi_sft, {100 * best:.1f} %" in figures["heat_maps"].get_suptitle()


def test_drift_is_a_column_where_it_was_measured(finished, tmp_path):
    cells, _, _ = finished
    assert "right steps lost" not in report.table(report.collect(small("one").to_dict(), cells))
    place = tmp_path / "drift"
    place.mkdir()
    numbers = {"responses": 9, "needed_steps": 20, "wrong_steps": 7, "needed_lost": -0.125, "needed_moved": 0.5}
    (place / "summary.jsonl").write_text(json.dumps(numbers | {"wrong_lost": 2.0, "wrong_moved": 2.5}) + "\n")
    (place / "manifest.json").write_text((cells["rft N=1000 seed=0"].path / "manifest.json").read_text())
    label = "drift rft N=1000 seed=0"
    cell = dataclasses.replace(cells["rft N=1000 seed=0"], label=label, path=place)
    found = report.collect(small("one").to_dict(), {**cells, label: cell})
    head, *rows = Page(report_page.page(found)[0]).tables["results"]
    rows = {row[0]: dict(zip(head, row)) for row in rows}
    titles = ("right steps lost", "right steps moved", "wrong steps lost", "wrong steps moved")
    assert [rows["rft"][title] for title in titles] == ["-0.12", "0.50", "2.00", "2.50"]
    assert {rows["sft"][title] for title in titles} == {"–"}
    (row,) = [row for row in report.rows(found) if row["method"] == "rft"]
    assert row["drift_needed_lost"] == -0.125 and row["drift_wrong_steps"] == 7
