"""The grid of cells that a config asks for."""

import pytest

from configs import tiny
from experiments.graph import plan
from experiments.settings import UsageError

RATES = {"optimizer": {"learning_rate": (1e-3, 2e-3)}}


def config(**methods):
    """The tiny config with these methods; DPO has the beta that it needs."""
    c = tiny.get_config()
    beta = lambda name, entry: {"loss_args": {"beta": 0.1}} if "dpo" in entry.get("method", name) else {}  # noqa: E731
    c.methods = {name: beta(name, entry) | entry for name, entry in methods.items()}
    return c


def by_label(c):
    nodes = plan(c)
    assert len({node.label for node in nodes}) == len(nodes)
    done = set()
    for node in nodes:
        assert set(node.inputs.values()) <= done, f"{node.label} comes before what it reads"
        done.add(node.label)
    return {node.label: node for node in nodes}


def test_a_grid_is_trained_on_the_tuning_seeds_and_its_best_point_on_all():
    c = config(dpo_outcome={"loss_args": {"beta": 0.1}, "grid": {"loss_args": {"beta": (0.1, 1.0)}, **RATES}})
    c.seeds, c.tune_seeds = (0, 1), (5, 6)
    nodes = by_label(c)
    points = [label for label in nodes if label.startswith("dpo_outcome [")]
    assert len(points) == 2 * 2 * 2 and all(label.endswith(("seed=5", "seed=6")) for label in points)
    rates = {nodes[label].settings["train"]["optimizer"]["learning_rate"] for label in points}
    assert rates == {1e-3, 2e-3}
    assert set(nodes["choose dpo_outcome N=48"].inputs.values()) == set(points)
    for seed in (0, 1):
        assert nodes[f"dpo_outcome N=48 seed={seed}"].inputs["choice"] == "choose dpo_outcome N=48"
        assert f"evaluate dpo_outcome N=48 seed={seed}" in nodes
    assert not [label for label in nodes if label.startswith("evaluate") and label.endswith(("seed=5", "seed=6"))]


def test_sft_has_a_grid_of_its_own_at_every_size():
    c = config()
    c.sft_sizes, c.tune_seeds, c.sft.grid = (96, 192), (0,), RATES
    nodes = by_label(c)
    for size in (48, 96, 192):
        assert nodes[f"sft N={size} seed=0"].inputs["choice"] == f"choose sft N={size}"
        assert len(nodes[f"choose sft N={size}"].inputs) == 2


def test_sft_may_differ_by_size_and_the_others_stay():
    c = config(rft={}, sft_continued={})
    c.sft_sizes, c.tune_seeds, c.seeds, c.sft.grid = (96, 192, 384), (0,), (0, 1), RATES
    c.sft.epochs = 5.0
    before = by_label(c)
    c.sft_by_size = {
        "192": {"grid": {}, "epochs": 3.0, "optimizer": {"learning_rate": 7e-4}},
        "384": {"grid": {"epochs": (1.0, 2.0)}},
        "768": {"epochs": 9.0},  # of a size that is not asked for
    }
    nodes = by_label(c)
    fixed = nodes["sft N=192 seed=1"]
    assert "choice" not in fixed.inputs and "choose sft N=192" not in nodes
    assert fixed.settings["train"]["epochs"] == 3.0
    assert fixed.settings["train"]["optimizer"] == before["sft N=96 seed=0"].settings["train"]["optimizer"] | {
        "learning_rate": 7e-4
    }
    assert nodes["choose sft N=384"].settings["points"] == [{"epochs": 1.0}, {"epochs": 2.0}]
    assert nodes["sft N=384 seed=1"].inputs["choice"] == "choose sft N=384"
    for label, node in before.items():
        assert "N=192" in label or "N=384" in label or nodes[label] == node
    for size, entry in (("many", {"epochs": 1.0}), ("96", 3), ("96", {"epoch": 1.0})):
        c.sft_by_size = {size: entry}
        with pytest.raises(UsageError, match=r"sft_by_size|epoch"):
            plan(c)


def test_each_round_samples_from_the_one_before_and_refers_to_what_it_says():
    rounds = {"count": 3, "problems": 10, "sample": {"n": 9}}
    c = config(
        fork={"method": "dpo_per_step", "rounds": rounds},
        still={"method": "dpo_per_step", "rounds": rounds | {"reference": "sft"}},
    )
    nodes = by_label(c)
    for name in ("fork", "still"):
        before = "sft N=48 seed=0"
        for number in (1, 2, 3):
            sample = nodes[f"sample {name} round {number} N=48 seed=0"]
            train = nodes[f"{name} round {number} N=48 seed=0"]
            assert sample.settings["n"] == 9 and sample.inputs["sft"] == before == train.inputs["sft"]
            assert train.inputs["reference"] == (before if name == "fork" else "sft N=48 seed=0")
            before = train.label
        assert list(nodes[f"{name} N=48 seed=0"].inputs.values()) == [
            f"{name} round {i} N=48 seed=0" for i in (1, 2, 3)
        ]
    seeds = [nodes[f"sample fork round {number} N=48 seed=0"].seed for number in (1, 2, 3)]
    assert len(set(seeds)) == 3, "the rounds would draw the same samples"


def test_rounds_of_methods_that_need_no_values_draw_no_rollouts():
    entry = {"rounds": {"count": 2, "problems": 10}, "loss_args": {"beta": 0.1}}
    pairs = {name: {**entry, "method": name} for name in ("dpo_outcome", "dpo_edit_distance", "dpo_per_step")}
    pairs["dpo_outcome"]["monte_carlo"] = {"negatives": 7}
    c = config(**pairs, rft={**entry, "method": "rft", "loss_args": {}})
    c.methods.offline = {"method": "dpo_outcome", "loss_args": {"beta": 0.1}}
    nodes = by_label(c)
    for name, drawn in (("dpo_outcome", 0), ("dpo_edit_distance", 0), ("dpo_per_step", c.monte_carlo.rollouts)):
        for number in (1, 2):
            values = nodes[f"values {name} round {number} N=48 seed=0"]
            assert values.settings["rollouts"] == drawn
            assert values.settings["negatives"] == (7 if name == "dpo_outcome" else c.monte_carlo.negatives)
            assert nodes[f"credit {name} round {number} N=48 seed=0"].inputs["values"] == values.label
    assert "values rft round 1 N=48 seed=0" not in nodes
    assert nodes["values N=48 seed=0"].settings["rollouts"] == c.monte_carlo.rollouts, "which other methods use too"


def test_updates_and_slices_of_rounds_grow_with_the_problems():
    rounds = {"count": 2, "problems": 10}
    methods = {"fork": {"method": "dpo_per_step", "updates": 30, "rounds": rounds}, "rft": {"epochs": 2.0}}
    c = config(**methods, sft_continued={"updates": 30, "grid": {"updates": (30, 60)}})
    c.sizes, c.tune_seeds = (24, 48, 96), (0,)
    fixed = by_label(c)
    c.updates_at = 48
    nodes = by_label(c)
    of = lambda label: nodes[label].settings["train"]["updates"]  # noqa: E731
    for size, updates in ((24, 15), (48, 30), (96, 60)):
        assert of(f"fork round 2 N={size} seed=0") == of(f"sft_continued N={size} seed=0") == updates
        assert of(f"sft_continued [60] N={size} seed=0") == 2 * updates
        assert of(f"rft N={size} seed=0") == 0, "by epochs: they grow by themselves"
    assert nodes["slice 2 of 20 N=96 seed=0"].settings == {"number": 1, "count": 20}
    assert nodes["sample fork round 2 N=24 seed=0"].inputs["data"] == "slice 2 of 5 N=24 seed=0"
    usual = [label for label in fixed if "N=48" in label]
    assert usual and all(nodes[label] == fixed[label] for label in usual), "at that size nothing changes"


def test_own_rollouts_share_the_samples_and_only_values_and_credit_are_made_anew():
    c = config(dpo_per_step={}, few={"method": "dpo_per_step", "monte_carlo": {"rollouts": 6}})
    nodes = by_label(c)
    few = nodes["few N=48 seed=0"].inputs
    assert few["grade"] == "grade N=48 seed=0" and few["values"] == "values few N=48 seed=0"
    assert nodes["values few N=48 seed=0"].settings["rollouts"] == 6
    assert nodes[few["credit"]].inputs["values"] == few["values"] != nodes["dpo_per_step N=48 seed=0"].inputs["values"]


@pytest.mark.parametrize(
    "entry, word",
    [
        ({"rounds": {"count": 2}}, "problems"),
        ({"rounds": {"count": 2, "problems": 4, "turns": 1}}, "turns"),
        ({"grid": {"losses": (1, 2)}}, "losses"),
        ({"grid": {"optimizer": {"rate": (1e-3,)}}}, "rate"),
        ({"monte_carlo": {"rollouts": 3}}, "rollouts"),
        ({"credit": {"pit": "first"}}, "pit"),
        ({"credit": {"pits": "all"}}, "pits"),
        ({"credit": {"pair_weight": "q"}}, "pair_weight"),
        ({"credit": {"pits": "significant", "significance": 5}}, "significance"),
        ({"credit": {"pits": "significant", "pit_rule": "random"}}, "pit_rule"),
    ],
)
def test_a_wrong_entry_is_told_before_anything_runs(entry, word):
    c = config(dpo_per_step=entry)
    c.tune_seeds = (0,)
    with pytest.raises(UsageError, match=word):
        plan(c)


def test_a_grid_without_seeds_to_tune_on_is_told():
    with pytest.raises(UsageError, match="tune_seeds"):
        plan(config(dpo_per_step={"grid": RATES}))


def test_methods_on_positives_and_teacher_rows_do_not_wait_for_values():
    rounds = {"count": 2, "problems": 10}
    nodes = by_label(config(rft={}, sft_continued={}, dpo_outcome={}, again={"method": "rft", "rounds": rounds}))
    for name in ("rft", "sft_continued", "again round 1"):
        assert not {"values", "credit"} & set(nodes[f"{name} N=48 seed=0"].inputs)
    assert {"values", "credit"} <= set(nodes["dpo_outcome N=48 seed=0"].inputs)
    assert "values again round 1 N=48 seed=0" not in nodes


def test_what_makes_pits_is_a_setting_of_a_method_and_its_default_names_no_cell():
    nodes = by_label(
        config(
            dpo_per_step={},
            significant={"method": "dpo_per_step", "credit": {"pits": "significant"}},
            oracle={"method": "dpo_per_step", "credit": {"pit_rule": "oracle", "pair_weight": "value_before"}},
        )
    )
    plain = nodes["credit N=48 seed=0"].settings
    assert plain == {
        "k": 5,
        "pit_rule": "first_pit",
        "rejected": "step",
        "limit": 1,
        "per_problem": 4,
        "threshold": 0.0,
    }
    assert nodes["credit significant N=48 seed=0"].settings == plain | {"pits": "significant"}
    bound = {"pit_rule": "oracle", "pair_weight": "value_before"}
    assert nodes["credit oracle N=48 seed=0"].settings == plain | bound


def test_drift_is_measured_of_every_method_where_it_is_asked_for():
    methods = {"rft": {}, "fork": {"method": "dpo_per_step", "rounds": {"count": 2, "problems": 10}}}
    assert not [label for label in by_label(config(**methods)) if label.startswith("drift")]
    c = config(**methods)
    c.drift, c.seeds, c.sft_sizes = 30, (0, 1), (96,)
    nodes = by_label(c)
    found = {label: node for label, node in nodes.items() if node.stage == "drift"}
    assert set(found) == {f"drift {name} N=48 seed={seed}" for name in methods for seed in (0, 1)}
    node = found["drift fork N=48 seed=1"]
    roles = {"policy": "fork", "sft": "sft", "grade": "grade", "data": "data"}
    assert node.inputs == {role: f"{name} N=48 seed=1" for role, name in roles.items()}
    assert node.settings == {"count": 30, "delimiters": ["\n"]}


def test_values_are_drawn_once_for_all_methods_that_want_the_same():
    more = {"method": "dpo_per_step", "monte_carlo": {"rollouts": 12}}
    same = {"method": "dpo_per_step", "monte_carlo": {"rollouts": 5}, "credit": {"k": 2}}
    c = config(dpo_per_step={}, a=more, b={**more, "credit": {"k": 2}}, c={**more, "credit": {"k": 10}}, d=same)
    with c.unlocked():
        c.monte_carlo.rollouts, c.sample.n = 5, 12
    nodes = {node.label: node for node in plan(c)}
    assert [label for label in nodes if label.startswith("values")] == ["values N=48 seed=0", "values a N=48 seed=0"]
    read = {name: nodes[f"credit {name} N=48 seed=0"].inputs["values"] for name in "abcd"}
    assert read == dict.fromkeys("abc", "values a N=48 seed=0") | {"d": "values N=48 seed=0"}
