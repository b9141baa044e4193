"""Flags and configs: every shipped config plans, and wrong use ends at once with one clear line."""

import importlib
from pathlib import Path

import pytest

from experiments import run
from experiments.graph import plan
from experiments.settings import UsageError, load_config, merged, override

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RUNNABLE = sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in ("__init__", "arithmetic_base"))


def errors(capsys, tmp_path, *flags, config="tiny"):
    """Exit code and the lines on stderr of a run with these flags."""
    code = run.main([f"--config={CONFIGS / config}.py", f"--workdir={tmp_path / 'run'}", *flags])
    return code, capsys.readouterr().err.strip().split("\n")


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_shipped_config_plans_with_inputs_before_their_readers(name):
    seen = set()
    for node in plan(load_config(str(CONFIGS / f"{name}.py"))):
        assert set(node.inputs.values()) <= seen and node.label not in seen
        seen.add(node.label)
    assert importlib.import_module(f"configs.{name}").__doc__


@pytest.mark.parametrize(
    "flag,says",
    [
        ("--config.sizez=3", "sizez: no such field; config has"),
        ("--config.sample.m=3", "config.sample has max_tokens"),
        ("--config.sample.n=many", "expected a int"),
        ("--config.sample=3", "a group of fields"),
        ("--config.sft.optimizer.learning_rat=1", "no such field"),
        ("--confg.sizes=3", "unknown argument"),
        ("--config.sample.n", "no value given"),
        ("--config.prompt=hello", "does not hold {question}"),
        ("--config.mesh.data=7", "does not divide over the mesh"),
        ("--config.monte_carlo.rollouts=3", "at least credit.k=5"),
        ("--config.evaluate.n=2", "too few for pass@5"),
        ("--config.train.optimizer.schedule=square", "schedule 'square'"),
        ("--config.base.pretrained=/no/such/model", "/no/such/model"),
        ("--config.problems.source=gsm9k", "unknown problem source"),
    ],
)
def test_wrong_use_is_one_clear_line(capsys, tmp_path, flag, says):
    code, lines = errors(capsys, tmp_path, flag)
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0], lines


def test_missing_files_and_bad_rows_are_named(capsys, tmp_path):
    assert run.main(["--config=/no/config.py", f"--workdir={tmp_path}"]) == 2
    assert "no such file" in capsys.readouterr().err
    code, lines = errors(capsys, tmp_path, f"--config.problems.path={tmp_path}/gsm8k", config="gsm8k_small")
    assert code == 2 and "gsm8k" in lines[0] and "no such file" in lines[0] and len(lines) == 1
    (tmp_path / "rows.jsonl").write_text('{"question": "a?", "answer": "#### 1"}\n{"question": "b?"}\n')
    code, lines = errors(capsys, tmp_path, f"--config.problems.path={tmp_path}/rows.jsonl", config="gsm8k_small")
    assert code == 2 and "rows.jsonl:2: no text in field 'answer'" in lines[0] and len(lines) == 1
    (tmp_path / "empty").mkdir()
    code, lines = errors(capsys, tmp_path, f"--config.base.pretrained={tmp_path}/empty")
    assert code == 2 and "empty" in lines[0] and len(lines) == 1


def test_a_second_run_in_the_same_place_is_refused(capsys, tmp_path):
    from experiments.cells import Lock

    held = Lock(tmp_path / "run")
    code, lines = errors(capsys, tmp_path)
    assert code == 2 and "another run works there" in lines[0]
    del held


def test_overrides_keep_the_type_of_the_field():
    config = load_config(str(CONFIGS / "quickstart.py"))
    override(config, "sizes", "[10, 20]")
    override(config, "sft.epochs", "3")
    override(config, "base.pretrained", "None")
    override(config, "problems.settings.style", ".5")
    assert config.sizes == (10, 20) and config.sft.epochs == 3.0 and config.base.pretrained is None
    assert config.problems.settings.style == 0.5
    with pytest.raises(UsageError):
        override(config, "sample.n", "2.5")


def test_merging_goes_field_by_field_and_leaves_its_parts_alone():
    first = {"a": 1, "b": {"c": 2, "d": 3}}
    assert merged(first, {"b": {"c": 9}}, {"e": 4}) == {"a": 1, "b": {"c": 9, "d": 3}, "e": 4}
    assert first == {"a": 1, "b": {"c": 2, "d": 3}}
