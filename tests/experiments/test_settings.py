"""Flags and configs: every shipped config plans, and wrong use ends at once with one clear line."""

import importlib
import types
from pathlib import Path

import pytest

from experiments import methods, run
from experiments.graph import plan
from experiments.settings import UsageError, load_config, merged, override
from experiments.stages.sampling import sampler_settings

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
        (
            "--config.problems.settings.stile=.5",
            "the source 'arithmetic' has got an unexpected keyword argument 'stile'",
        ),
        ("--config.problems.settings.difficulty={'stepz':8}", "unknown difficulty setting ['stepz']"),
        ("--config.problems.settings.difficulty=8", "the source arithmetic, arithmetic.py:"),
        ("--config.train.batch=0", "train.batch=0: at least 1"),
        ("--config.train.loss_args.bta=1", "not ['bta']"),
        ("--config.mesh.data=0", "sizes of at least 1"),
        ("--config.mesh.fsdp=4", "does not fit 8 devices"),
        ("--workers=0", "--workers=0: at least 1"),
        ("--config.sizes=('a',)", "'a' is no whole number of at least 1"),
        ("--config.sizes=()", "give at least one of each"),
        ("--config.seeds=()", "give at least one of each"),
        ("--config.evaluate.k=0", "evaluate.k=0: at least 1"),
        ("--config.grading=gsm8k", "unknown kind of answer 'gsm8k'"),
        ("--config.sample.sampler=fast", "sampler must be one of static, grouped"),
        ("--config.credit.pit_rule=nosuch:thing", "pit rule 'nosuch:thing' cannot be imported"),
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


@pytest.mark.parametrize(
    "line,says",
    [
        ("c.test_problem = 3", "has no field test_problem; it has base, "),
        ("c.sampel = {'n': 4}", "has no field sampel"),
        ("c.train.epoch = 2", "train has no field epoch"),
        ("c.sample.nn = 2", "sample has no field nn"),
        ("c.base.decoder.widht = 2", "base.decoder has no field widht"),
        ("c.sft.credit = {}", "sft has no field credit"),
        ("c.methods.rft.lora = {'rnk': 2}", "methods.rft.lora has no field rnk"),
        ("c.sizes, c.sft_sizes = (), (48,)", "sizes is empty"),
        ("c.methods.rft.monte_carlo = {'rollout': 6}", "methods.rft.monte_carlo has no field rollout"),
        ("c.methods.rft.batch = '8'", "config.py:6: TypeError"),
        ("c.methods = {'rft': {'batch': '8'}}", "methods.rft.batch='8': expected a int"),
        ("c.methods = {'rft': {'updates': 0, 'epochs': 0.0}}", "nothing would be trained"),
        ("c.methods.rft.loss = 'nosuch'", "unknown loss 'nosuch'"),
        ("c.methods.rft.loss_args = {'bta': 1.0}", "not ['bta']"),
        ("c.methods.dpo_outcome.loss_args = {'nll': 0.1}", "loss dpo needs loss_args for beta"),
        ("c.methods.rft.method = 'nosuch:thing'", "examples function 'nosuch:thing' cannot be imported"),
        ("c.methods.rft.rounds = {'count': 2, 'problems': 8, 'sample': {'m': 6}}", "rounds.sample has no field m"),
        ("c.methods.epochs = 1.0", "methods.epochs=1.0: a group of fields"),
        (
            "c.problems.source, c.problems.settings, c.drift = 'gsm8k', {}, 5",
            "drift: for problems whose graph is known",
        ),
        ("c.nosuch.field = 2", "config.py:6: AttributeError"),
        ("c.sizes = = 3", "config.py:6: SyntaxError: invalid syntax"),
        ("import nosuch", "config.py:6: ModuleNotFoundError: No module named 'nosuch'"),
        ("return 3", "get_config() returns a int, not a ConfigDict"),
    ],
)
def test_a_wrong_config_file_is_one_clear_line(capsys, tmp_path, line, says):
    text = f"from configs import tiny\n\n\ndef get_config():\n    c = tiny.get_config()\n    {line}\n    return c\n"
    (tmp_path / "config.py").write_text(text)
    code, lines = errors(capsys, tmp_path, config=tmp_path / "config")
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0], lines


def test_fields_that_only_some_stages_know_are_no_mistake():
    config = load_config(str(CONFIGS / "tiny.py"))
    override(config, "results", "None")
    with config.unlocked():
        config.sample.top_p, config.monte_carlo.temperature, config.base.shape = (
            0.9,
            0.7,
            {"vocab_size": 99, "width": 8},
        )
        config.methods.mine = {"method": "own_parts:shortest_positives", "options": {"count": 5}}
    nodes = {node.label: node for node in plan(config)}
    assert nodes["sample N=48 seed=0"].settings["top_p"] == 0.9

    assert nodes["values N=48 seed=0"].settings["temperature"] == 0.7
    settings = nodes["mine N=48 seed=0"].settings
    entry, options = methods.find("mine", settings)
    assert entry.examples == "own_parts:shortest_positives" and entry.loss == "sft" and options == {"count": 5}


def test_data_of_every_size_comes_before_anything_is_made_of_it():
    config = load_config(str(CONFIGS / "quickstart.py"))
    stages = [node.stage for node in plan(config)]
    assert stages.count("data") == 5 and set(stages[: stages.index("evaluate")]) == {"data", "base"}


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
    override(config, "problems.settings.difficulty.steps", "(8, 8)")
    override(config, "problems.settings.needless", ".5")
    override(config, "train.loss_args.beta", ".3")
    found = {"style": 0.5, "difficulty": {"steps": (8, 8)}, "needless": 0.5}
    assert config.problems.settings.to_dict() == found and config.train.loss_args.to_dict() == {"beta": 0.3}
    override(config, "problems.settings", "{'style': .1}")
    assert config.problems.settings.to_dict() == {"style": 0.1}
    with pytest.raises(UsageError):
        override(config, "sample.n", "2.5")


def test_merging_goes_field_by_field_and_leaves_its_parts_alone():
    first = {"a": 1, "b": {"c": 2, "d": 3}}
    assert merged(first, {"b": {"c": 9}}, {"e": 4}) == {"a": 1, "b": {"c": 9, "d": 3}, "e": 4}
    assert first == {"a": 1, "b": {"c": 2, "d": 3}}


def test_the_sampler_gets_the_settings_of_drawing_from_a_config():
    policy = types.SimpleNamespace(tokenizer=types.SimpleNamespace(eos_id=2))
    config = load_config(str(CONFIGS / "tiny.py"))
    with config.unlocked():
        config.sample.stop_strings, config.sample.top_k = ("A:", "Q:"), 7
    settings = next(node.settings for node in plan(config) if node.stage == "sample")
    found = sampler_settings(policy, settings)
    assert (found.stop_strings, found.top_k, found.stop_ids) == (("A:", "Q:"), 7, (2,))
    for node in plan(config):
        if node.stage == "evaluate" or "validation" in node.settings:
            drawing = node.settings if node.stage == "evaluate" else node.settings["validation"]
            assert drawing["stop_strings"] == ("A:", "Q:") and "top_k" not in drawing
    with config.unlocked():
        config.evaluate.stop_strings = ("Z:",)
    assert {n.settings["stop_strings"] for n in plan(config) if n.stage == "evaluate"} == {("Z:",)}
    config.sample.stop_strings = ("",)
    with pytest.raises(UsageError, match="sample: stop_strings must be strings of at least one character"):
        plan(config)
