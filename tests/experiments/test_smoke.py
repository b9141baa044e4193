"""The paper's four settings: each plans at full size, and its smoke runs all stages on one CPU with the same code."""

import json
from pathlib import Path

import pytest
from shared_data import shared

from experiments import run, smoke
from experiments.graph import plan
from experiments.settings import UsageError, load_config
from synthrl_jax import policy as policies
from synthrl_jax.policy.templates import prompt_ids

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("gsm8k_llama2_7b", "gsm8k_deepseek_math_7b", "math_llama2_7b", "math_deepseek_math_7b")


@pytest.mark.parametrize("name", NAMES)
def test_the_smoke_has_the_stages_and_methods_of_the_setting(name):
    path = str(CONFIGS / f"{name}.py")
    full, small = load_config(path), load_config(path, {"smoke": "True"})
    assert small.name == f"{name}_smoke" and set(small.methods) == set(full.methods)
    stages = [{node.stage for node in plan(config)} for config in (full, small)]
    assert stages[0] == stages[1]
    for field in ("prompt", "delimiters", "grading", "credit"):
        assert small[field] == full[field]
    assert max(full.sft_sizes) >= 16 * min(full.sizes)
    policy = policies.load_pretrained(small.base.pretrained)
    assert len(list(Path(small.base.pretrained).glob("*.safetensors"))) > 1
    problem = smoke.problems("train", form=small.problems.settings.form, count=3)[0]
    ids = [*prompt_ids(policy.tokenizer, small.prompt, problem.question), *policy.tokenizer.encode(problem.solution)]
    assert ids[0] == policy.tokenizer.bos_id and max(ids) < policy.config.vocab_size and len(ids) < 256
    assert problem.question in policy.tokenizer.decode(ids)


def test_the_first_rows_of_the_real_file_are_taken_where_it_is_given():
    path = shared("data/gsm8k")
    rows = [json.loads(line)["question"] for line in (path / "train.jsonl").open()]
    found = [p.question for p in smoke.problems("train", form="gsm8k", path=str(path), count=5)]
    assert [rows.index(question) for question in found] == sorted(rows.index(question) for question in found)
    assert rows.index(found[-1]) < 100
    with pytest.raises(FileNotFoundError, match="no such file"):
        smoke.problems("train", form="gsm8k", path="/none")


def test_a_parameter_of_get_config_is_a_flag_with_a_type(tmp_path):
    path = str(CONFIGS / "math_llama2_7b.py")
    assert load_config(path, {"smoke": "False"}).name == "math_llama2_7b"
    with pytest.raises(UsageError, match="smoke=perhaps: true or false"):
        load_config(path, {"smoke": "perhaps"})
    left = {"smoke": "1", "sizes": "3"}
    load_config(path, left)
    assert left == {"sizes": "3"}


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_smoke_runs_from_end_to_end(name, tmp_path):
    flags = [f"--config={CONFIGS / name}.py", "--config.smoke=True", f"--workdir={tmp_path / 'run'}"]
    if name.startswith("gsm8k"):
        flags.append(f"--config.problems.path={shared('data/gsm8k')}")
    assert run.main([*flags, "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["method"] for row in rows} >= {"base", "sft", "rft", "dpo_per_step", "advantage_filtered"}
    cells = {p.name for p in (tmp_path / "run" / "cells").iterdir()}
    graded = next(p for p in cells if p.startswith("grade"))
    (summary,) = [json.loads(line) for line in (tmp_path / "run" / "cells" / graded / "summary.jsonl").open()]
    assert summary["correct"] and summary["wrong"] + summary["no_answer"] and not summary["grader_error"]
