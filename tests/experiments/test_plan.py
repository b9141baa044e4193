"""The plan: counted FLOPs against arithmetic, what fits, what is said, and (with libtpu) what the TPU compiler says."""

import json

import jax
import jax.numpy as jnp
import pytest

from experiments import plan, plan_arithmetic, plan_chips, plan_compile, plan_count, plan_hlo, plan_programs
from experiments.settings import UsageError, load_config
from synthrl_jax.policy.decoder import DecoderConfig

SEVEN = {"vocab_size": 32000, "width": 4096, "layers": 32, "heads": 32, "mlp_width": 11008, "scan": True}
CONFIG = """
from configs import base

def get_config():
    c = base.get_config()
    c.name = "planned"
    c.base.pretrained = None
    c.base.decoder = {decoder!r}
    c.sizes, c.seeds = (8000,), (0,)
    c.train.update({train!r})
    c.sample.max_tokens = 256
    c.methods = {{"rft": {{"epochs": 2.0}}, "dpo_per_step": {{"epochs": 1.0, "loss_args": {{"beta": 0.1}}}}}}
    return c
"""
COMPUTE = ("remat", "attention", "vocab_chunk")  # how training computes: fields of `train`, not of the decoder
needs_compiler = pytest.mark.skipif(not plan_compile.available(), reason=plan_compile.INSTALL)


def config_file(directory, batch=64, **changes):
    path = directory / "planned.py"
    train = {"batch": batch, "remat": "full"} | {name: changes.pop(name) for name in COMPUTE if name in changes}
    path.write_text(CONFIG.format(decoder={**SEVEN, **changes}, train=train))
    return path


def planned(directory, topology, *flags, batch=64, **changes):
    """The command's rows: (programs by name, stages by name)."""
    path = config_file(directory, batch, **changes)
    assert (
        plan.main([f"--config={path}", f"--topology={topology}", "--json", str(directory / "rows.json"), *flags]) == 0
    )
    rows = json.loads((directory / "rows.json").read_text())
    return {r["program"]: r for r in rows if "program" in r}, {r["stage"]: r for r in rows if "stage" in r}


def test_the_llama_2_7b_arithmetic_is_that_of_its_paper():
    """6,738,415,616 parameters: the number of the published checkpoint."""
    assert plan_arithmetic.parameters(DecoderConfig(**SEVEN)) == 6_738_415_616


@pytest.mark.parametrize("remat, vocab_chunk", [("none", 0), ("full", 0), ("dots", 8000), ("full", 8000)])
def test_counted_flops_are_those_by_hand(tmp_path, remat, vocab_chunk):
    """2 a multiply-add: matrices of every token, all scores, unembedding; backward twice that, and what is computed again."""
    flags = ("--no-compile", "--programs=train,score")
    programs, _ = planned(tmp_path, "v5e:4x4", *flags, remat=remat, vocab_chunk=vocab_chunk)
    D, L, M, V, B, T = 4096, 32, 11008, 32000, 64, 512
    layer = 2 * (4 * D * D + 3 * D * M) + 4 * T * D
    layers, head = B * T * L * layer, 2 * B * (T - 1) * D * V
    again = {"none": 0, "full": layers - B * T * L * 2 * D * M, "dots": B * T * L * 4 * T * D}[remat]
    expected = 3 * layers + again + (4 if vocab_chunk else 3) * head
    assert programs["train sft 64"]["counted_flops"] == pytest.approx(expected, rel=0.01)
    assert programs["train dpo 64"]["counted_flops"] == pytest.approx(2 * expected, rel=0.01)  # two rows a pair
    B, T = programs["score"]["rows"], programs["score"]["length"]
    assert (B, T) == (8, 1024)  # a pair in a row
    scoring = B * T * (L * (2 * (4 * D * D + 3 * D * M) + 4 * T * D) + 2 * D * V)
    assert programs["score"]["counted_flops"] == pytest.approx(scoring, rel=0.01)
    for row in programs.values():
        assert row["flops"] == pytest.approx(row["counted_flops"], rel=0.01)


SHIPPED = ("gsm8k_llama2_7b", "math_llama2_7b", "gsm8k_deepseek_math_7b", "math_deepseek_math_7b")
SMALL_SLICES = ("v5e:4x4", "v6e:4x4", "v5e:4x4", "v5p:2x2x2")
LARGE_SLICES = ("v5e:8x8", "v5p:4x4x4", "v6e:8x8", "v5e:8x8")


@pytest.mark.parametrize("name", SHIPPED)
def test_counted_flops_of_the_shipped_7b_configs_are_those_by_hand(tmp_path, name):
    """They train with splash, whose backward kernels (dq: scores, dp, dq; dkv: scores, dv, dp, dk) do seven products of T x T,
    and with whole chunks of the vocabulary: 4 x 8,192 for 32,000, 13 x 8,192 for 102,400."""
    flags = [f"--config=configs/{name}.py", "--topology=v5e:8x8", "--no-compile", "--programs=sft,score"]
    assert plan.main([*flags, "--json", str(tmp_path / "rows.json")]) == 0
    train, score = json.loads((tmp_path / "rows.json").read_text())
    llama, math = "llama" in name, name.startswith("math")
    D, M, L, V = 4096, 11008, 32 if llama else 30, 8192 * (4 if llama else 13)
    B, T = 128, 1024 if math else 640
    matrices, product, head = 2 * L * (4 * D * D + 3 * D * M), 2 * L * T * D, 2 * D * V * (T - 1) / T
    expected = 4 * matrices - 2 * L * D * M + (2 + 2 + 7) * product + 4 * head
    assert (train["rows"], train["length"], train["remat"], train["attention"]) == (B, T, "full", "splash")
    assert train["counted_flops"] == pytest.approx(B * T * expected, rel=0.001)
    assert train["flops"] == pytest.approx(train["counted_flops"], rel=0.001)
    B, T = score["rows"], score["length"]
    expected = matrices + 4 * L * T * D + 2 * D * V
    assert score["counted_flops"] == pytest.approx(B * T * expected, rel=0.001)
    assert score["flops"] == pytest.approx(score["counted_flops"], rel=0.001)


def test_counted_flops_of_sampling_are_those_by_hand(tmp_path):
    """32 steps of every row: matrices, the unembedding, and every key that is held against every query."""
    programs, _ = planned(tmp_path, "v5e:4x4", "--no-compile", "--programs=prefill,decode chunk", layers=2)
    D, L, M, V, rows = 4096, 2, 11008, 32000, 128
    made = plan_programs.programs(load_config(str(config_file(tmp_path))).to_dict(), plan_programs.Lengths())
    shape = plan_programs.sampler_shape(next(p for p in made if p.name == "decode chunk"))
    keys = shape.slots * shape.prefix + shape.suffix / 2 * (1 + 1 / 4)  # half of a suffix a row, a spill ring for four
    step = rows * (L * (2 * (4 * D * D + 3 * D * M) + 4 * keys * D) + 2 * D * V)
    assert programs["decode chunk"]["counted_flops"] == pytest.approx(32 * step, rel=0.01)
    tokens = shape.jobs * shape.prefix
    prefill = tokens * L * (2 * (4 * D * D + 3 * D * M) + 4 * shape.prefix * D)
    assert programs["prefill"]["counted_flops"] == pytest.approx(prefill, rel=0.01)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_counted_flops_of_adapters_are_those_by_hand(tmp_path, remat):
    """A frozen matrix needs no gradient of its own: two products, not three; scores and adapters need all three."""
    flags = ("--no-compile", "--programs=sft", "--config.train.lora.rank=16")
    row = planned(tmp_path, "v5e:4x4", *flags, remat=remat)[0]["train sft 64 LoRA 16"]
    D, L, M, V, B, T, r = 4096, 32, 11008, 32000, 64, 512, 16
    matrices, scores, head = 2 * L * (4 * D * D + 3 * D * M), 4 * L * T * D, 2 * D * V * (T - 1) / T
    adapters = 2 * L * r * (4 * 2 * D + 3 * (D + M))
    again = {"none": 0, "full": matrices + scores + adapters - 2 * L * D * M}[remat]
    expected = B * T * (2 * (matrices + head) + 3 * (scores + adapters) + again)
    assert row["counted_flops"] == pytest.approx(expected, rel=0.01)
    assert row["flops"] == pytest.approx(row["counted_flops"], rel=0.01)


def test_adapters_and_factored_moments_need_less_memory(tmp_path):
    """Bytes a parameter: 16 of AdamW's step and 6 kept beside it; a frozen one 2 and 2."""
    P, chips = plan_arithmetic.parameters(DecoderConfig(**SEVEN)), 16
    flags = ("--no-compile", "--programs=sft")
    whole = planned(tmp_path, "v5e:4x4", *flags)[0]["train sft 64"]
    inputs = 2.0 * 32 * 64 * 512 * 4096 / chips  # what each layer starts from
    assert whole["resident_bytes"] == pytest.approx(16 * P / chips + inputs, rel=0.01)
    assert whole["held_bytes"] == pytest.approx(6 * P / chips, rel=0.01)
    factored = planned(tmp_path, "v5e:4x4", *flags, "--config.train.optimizer.name=adafactor")[0]
    assert factored["train sft 64 adafactor"]["resident_bytes"] == pytest.approx(8 * P / chips + inputs, rel=0.01)
    flags = (*flags, "--config.train.lora.rank=8", "--config.sample.rows=16")
    adapted = planned(tmp_path, "v5e:2x2", *flags)[0]["train sft 64 LoRA 8"]
    assert 2 * P / 4 < adapted["resident_bytes"] - 4 * inputs < 2.2 * P / 4 and adapted["fits"] is None


def test_accumulated_micro_batches_count_as_one_batch(tmp_path):
    flags = ("--no-compile", "--programs=train")
    whole = planned(tmp_path, "v5e:4x4", *flags)[0]["train sft 64"]
    parts = planned(tmp_path, "v5e:4x4", *flags, "--config.train.micro=16")[0]["train sft 64"]
    assert parts["micro_batches"] == 4 and parts["counted_flops"] == pytest.approx(whole["counted_flops"], rel=1e-6)


def test_loops_are_multiplied_out():
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    product = 2 * 8**3

    def scanned(x):
        return jax.lax.scan(
            lambda c, _: (jax.lax.cond(c[0, 0] > 0, lambda c: c @ c, lambda c: c, c), None), x, None, 5
        )[0]

    def looped(x):
        return jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ c, x)

    assert plan_count.flops(scanned, x) == 5 * product
    assert plan_count.flops(looped, x, trips=7) == 7 * product
    assert plan_count.flops(jax.grad(lambda x: (x @ x).sum()), x) == 3 * product


def test_the_experiment_s_numbers_follow_from_the_config(tmp_path):
    flags = ("--no-compile", "--steps=5", "--mean-response=100")
    _, stages = planned(tmp_path, "v5e:4x4", *flags, "--price=2", "--efficiency=0.5", layers=2)
    c = load_config(str(config_file(tmp_path)))
    assert stages["sample"]["rollouts"] == 8000 * c.sample.n
    valued = 8000 * (c.monte_carlo.negatives + c.monte_carlo.positives)
    assert stages["values"]["rollouts"] == valued * 4 * c.monte_carlo.rollouts
    assert stages["sample"]["tokens_generated"] == 100 * stages["sample"]["rollouts"]
    assert stages["sft"]["updates"] == 8000 * c.sft.epochs / 64
    total = stages["total"]
    assert total["chip_hours"] == pytest.approx(16 * total["hours"]) and total["cost"] == pytest.approx(
        2 * total["chip_hours"]
    )
    assert total["checkpoint_bytes"] == pytest.approx(
        12 * plan_arithmetic.parameters(DecoderConfig(**{**SEVEN, "layers": 2})), rel=1e-6
    )
    _, whole = planned(tmp_path, "v5e:4x4", *flags, layers=2)
    assert whole["total"]["hours"] == pytest.approx(total["hours"] / 2) and whole["total"]["cost"] is None


def test_every_row_says_what_it_was_made_with(tmp_path):
    flags = ("--no-compile", "--price=2", "--steps=5", "--prompt", "128", "--config.sample.rows", "32", "--remat=none")
    for found in planned(tmp_path, "v5e:4x4", *flags, "--config.train.micro=16", layers=2):
        for row in found.values():
            assert (row["price"], row["steps"], row["prompt"], row["mean_response"]) == (2, 5, 128, 150)
            assert row["overrides"] == "--config.sample.rows=32 --remat=none --config.train.micro=16"
            assert row["compile"] is False and row["config"].endswith("planned.py")


def test_what_cannot_fit_is_told_without_compiling(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_compile, "compile_program", lambda *_: pytest.fail("compiled"))
    programs, _ = planned(tmp_path, "v5e:2x2", "--programs=train")
    row = programs["train sft 64"]
    assert row["fits"] is False and row["peak_bytes"] > row["chip_bytes"] and "fsdp x tensor" in row["advice"]


def test_what_is_kept_beside_a_step_counts(tmp_path, monkeypatch):
    """14 GiB compile for a v5e chip of 15.75; beside the best parameters and the first policy they do not fit."""
    found = {"compiled": True, "peak_bytes": 14 * 2**30, "memory_traffic": 1e9}
    monkeypatch.setattr(plan_compile, "compile_program", lambda *_: dict(found))
    monkeypatch.setattr(plan_compile, "available", lambda: True)
    for chips, fits in (("4x4", False), ("8x8", True)):
        row = planned(tmp_path, f"v5e:{chips}", "--programs=sft")[0]["train sft 64"]
        assert row["fits"] is fits and ("kept beside" in row["note"]) is not fits and ("advice" in row) is not fits


def test_a_look_at_validation_that_does_not_fit_is_told(tmp_path):
    flags = ("--no-compile", "--programs=sft", "--config.sample.rows=2048")
    row = planned(tmp_path, "v5e:4x4", *flags, "--config.sample.max_tokens=1024", batch=16)[0]["train sft 16"]
    assert row["fits"] is False and "a look at validation takes" in row["note"] and "sample.rows" in row["advice"]


@pytest.mark.parametrize(
    "changes, batch, advice", [({"remat": "none"}, 512, "remat"), ({}, 512, "micro"), ({}, 60, "multiple of 16")]
)
def test_advice_names_what_to_change(tmp_path, monkeypatch, changes, batch, advice):
    out_of_memory = {"compiled": False, "peak_bytes": 30 * 2**30, "error": "Used 30.0G of 15.75G hbm."}
    monkeypatch.setattr(plan_compile, "compile_program", lambda *_: dict(out_of_memory))
    monkeypatch.setattr(plan_compile, "available", lambda: True)
    row = planned(tmp_path, "v5e:4x4", "--programs=train", batch=batch, **changes)[0][f"train sft {batch}"]
    assert row["fits"] is False and advice in row["advice"]


@pytest.mark.parametrize(
    "topology, slices, flags, mesh, said",
    [
        ("v5e:4x4", 1, ("--config.mesh.data=-1",), "16x1x1", ""),
        ("v5e:4x4", 1, ("--config.mesh.data=2", "--config.mesh.fsdp=4", "--config.mesh.tensor=2"), "2x4x2", ""),
        ("v6e:4x4", 1, ("--config.mesh.fsdp=8",), "1x16x1", "--config.mesh.fsdp=16"),
        ("v5p:2x2x4", 1, ("--config.mesh.fsdp=64", "--config.mesh.tensor=4"), "1x4x4", "--config.mesh.fsdp=4"),
        ("v4:2x2x2", 2, ("--config.mesh.fsdp=16",), "2x8x1", "--config.mesh.data=2 --config.mesh.fsdp=8"),
        ("v5e:4x4", 2, ("--config.mesh.data=2", "--config.mesh.fsdp=16"), "2x16x1", ""),
    ],
)
def test_the_mesh_is_the_config_s_where_it_fits_and_told_where_not(
    tmp_path, capsys, topology, slices, flags, mesh, said
):
    flags = ("--no-compile", "--programs=sft", f"--slices={slices}", *flags)
    assert planned(tmp_path, topology, *flags, layers=2)[0]["train sft 64"]["mesh"] == mesh
    out = capsys.readouterr().out
    assert (said in out) if said else "to be run" not in out


def test_a_replica_samples_on_the_chips_of_its_host(tmp_path):
    """As `sharding.sampling_mesh` lays it out: weights over the host's chips; of one chip on one."""
    flags = ("--no-compile", "--programs=decode")
    for topology, mesh in [("v5p:2x2x2", "1x1x4"), ("v5e:2x4", "1x1x8"), ("v6e:1x1", "1x1x1")]:
        assert planned(tmp_path, topology, *flags, layers=2)[0]["decode chunk"]["mesh"] == mesh
    row = planned(tmp_path, "v5e:4x4", *flags, "--sampling-tensor=2", layers=2)[0]["decode chunk"]
    assert row["mesh"] == "1x1x2" and row["chips"] == 2


def test_search_says_when_nothing_holds_the_step(tmp_path, capsys):
    planned(tmp_path, "v5e:2x2", "--no-compile", "--search", "--programs=sft")
    assert "search: no mesh and micro-batch" in capsys.readouterr().out


@pytest.mark.parametrize("name", SHIPPED)
def test_search_finds_what_holds_a_shipped_config(tmp_path, name):
    flags = [
        f"--config=configs/{name}.py",
        f"--topology={SMALL_SLICES[SHIPPED.index(name)]}",
        "--no-compile",
        "--search",
    ]
    assert plan.main([*flags, "--programs=train sft", "--json", str(tmp_path / "rows.json")]) == 0
    found = [
        row for row in json.loads((tmp_path / "rows.json").read_text()) if row.get("program", "").startswith("search")
    ]
    assert found and all(row["fits"] is not False for row in found)


def test_stages_whose_programs_do_not_fit_say_so(tmp_path, capsys):
    flags = ["--config=configs/gsm8k_llama2_7b.py", "--topology=v5e:2x2", "--no-compile", "--price=1.2"]
    assert plan.main([*flags, "--json", str(tmp_path / "rows.json")]) == 0
    rows = {row["stage"]: row for row in json.loads((tmp_path / "rows.json").read_text()) if "stage" in row}
    assert rows["sft"]["fits"] is False and rows["total"]["fits"] is False and rows["sample"]["fits"] is not False
    assert "hours and cost are of programs that do not fit" in capsys.readouterr().out


def test_a_checkpoint_is_as_large_as_what_is_trained(tmp_path):
    def checkpoint(*flags):
        plan.main(
            [
                "--config=configs/gsm8k_llama2_7b.py",
                "--topology=v5e:4x4",
                "--no-compile",
                *flags,
                "--json",
                str(tmp_path / "r.json"),
            ]
        )
        return json.loads((tmp_path / "r.json").read_text())[-1]["checkpoint_bytes"]

    full = checkpoint()
    assert full == pytest.approx(12 * 6.738e9, rel=0.01)
    assert checkpoint("--config.train.lora.rank=16") < 0.02 * full
    assert 4 * 6.738e9 < checkpoint("--config.train.optimizer.name=adafactor") < 0.5 * full


def test_search_keeps_meshes_that_divide_and_ranks_them(tmp_path):
    programs, _ = planned(tmp_path, "v5p:2x2x4", "--no-compile", "--search", "--programs=train")
    found = [row for name, row in programs.items() if name.startswith("search")]
    assert found
    for row in found:
        data, fsdp, tensor = map(int, row["mesh"].split("x"))
        assert data * fsdp * tensor == 16 and row["rows"] // row["micro_batches"] % (data * fsdp) == 0


def test_without_the_compiler_it_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan_compile, "available", lambda: False)
    planned(tmp_path, "v6e:4x4", "--programs=score")
    said = capsys.readouterr().out
    assert "pip install -e '.[plan]'" in said and "TFLOP" in said


WRONG = [
    ("--topology=v9:4x4",),
    ("--topology=v5e:4x4x4",),
    ("--topology=v5e:4x4", "--remat=some"),
    ("--topology=v5e:4x4", "--programs=all"),
    ("--topology=v5e:4x4", "--decoder=nowhere.json"),
    ("--topology=v5e:4x4", "--sampling-tensor=3"),
    ("--topology=v5e:4x4", "--config.mesh.tensor=3"),
    ("--topology=v5e:4x4", "--config.mesh.data=0"),
    ("--topology=v5e:4x4", "--efficiency=0"),
    ("--topology=v5e:4x4", "--steps=0"),
    ("--topology=v5e:4x4", "--slices=0"),
    ("--topology=v5e:4x4", "--config.nothing=1"),
    ("--topology=v5e:4x4", "--json=/nowhere/rows.json"),
    ("--topology=v5e:4x4", "--json=/"),
]


@pytest.mark.parametrize("flags", WRONG)
def test_wrong_use_ends_with_one_line(tmp_path, capsys, monkeypatch, flags):
    monkeypatch.setattr(plan, "row_of", lambda *_: pytest.fail("began to work"))
    assert plan.main([f"--config={config_file(tmp_path)}", *flags]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_slices_know_their_chips():
    where = plan_chips.parse("v5p:4x4x4", slices=2)
    assert where.chips == 128 and where.chip.memory == 95 * 2**30
    with pytest.raises(UsageError):
        plan_chips.parse("v4:8x8")


def test_a_hugging_face_config_gives_the_shape(tmp_path):
    fields = {"architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2}
    fields |= {"num_attention_heads": 4, "intermediate_size": 96}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    c = load_config(str(config_file(tmp_path))).to_dict()
    found = plan_programs.decoder_config(c, str(tmp_path / "config.json"))
    assert (found.width, found.layers, found.dtype) == (64, 2, "bfloat16")


HLO = """
HloModule jit_f

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[], f32[8,4]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%p), index=1
  %ag = f32[32,4]{1,0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %t = (s32[], f32[8,4]) tuple(%i, %x)
}

%cond (p: (s32[], f32[8,4])) -> pred[] {
  %p.1 = (s32[], f32[8,4]) parameter(0)
  %i = s32[] get-tuple-element(%p.1), index=0
  %n = s32[] constant(6)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %w = (s32[], f32[8,4]{1,0}) while(%a), condition=%cond, body=%body
  %ar = f32[8,4]{1,0} all-reduce(%a), replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
  %small = f32[8,4]{1,0:S(1)} negate(%a)
  ROOT %c = f32[8,4]{1,0} copy(%small)
}
"""


def test_collectives_of_hlo_have_their_axis_and_bytes_with_loops_multiplied_out():
    found = plan_hlo.traffic(HLO, {"data": 2, "fsdp": 4, "tensor": 1})
    piece = 8 * 4 * 4
    assert found.collectives[("all-gather", "fsdp")] == [6, 6 * 3 * piece]
    assert found.collectives[("all-reduce", "data")] == [1, piece]  # 2 x (n - 1) / n of it
    # gathered results, the sum, the negation's operand and the copy's result; what lies on the core moves nothing
    assert found.memory == 6 * 4 * piece + piece + piece + piece


BETWEEN = """
HloModule jit_f

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %after = token[] after-all()
  %recv = (f32[8,4]{1,0}, u32[], token[]) recv(%after), channel_id=1, is_host_transfer=true
  %send = (f32[8,4]{1,0}, u32[], token[]) send(%a, %after), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1:4}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %sent = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %done = (f32[8,4]{1,0}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
  ROOT %r = f32[8,4]{1,0} get-tuple-element(%done), index=0
}
"""


def test_sums_over_slices_go_by_the_hosts_and_count_as_the_data_axis():
    found = plan_hlo.traffic(BETWEEN, {"data": 4, "fsdp": 4, "tensor": 1})
    assert found.collectives == {("all-reduce", "data"): [1, 2 * 0.75 * 8 * 4 * 4]}


def test_groups_written_in_three_ways_are_read():
    assert plan_hlo.groups_of("replica_groups=[4,2]<=[2,4]T(1,0)") == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert plan_hlo.groups_of("replica_groups=mesh['a'=2,'b'=4] {'a'}") == [[0, 4]]
    assert plan_hlo.groups_of("source_target_pairs={{0,1},{1,0}}") == [[0, 1]]


def test_a_program_that_compiles_too_long_is_ended(monkeypatch):
    program = plan_programs.Program("score", "score", 8, 128)
    config = DecoderConfig(**{**SEVEN, "layers": 1})
    found = plan_compile.compile_program(program, config, "v5e:2x2", 1, {"data": 1, "fsdp": 4, "tensor": 1}, 0.01)
    assert found == {"compiled": False, "error": "not compiled within 0 s"}


def test_what_the_compiler_says_of_memory_is_read():
    said = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm."
    assert plan_compile.used_bytes(said) == 20.5 * 2**30
    said = "the total memory required for HLO temporaries (18.92G) exceeds available HBM (15.75G)."
    assert plan_compile.used_bytes(said) == pytest.approx(18.92 * 2**30)
    assert plan_compile.used_bytes("INTERNAL: something else") is None


SMALL = {"vocab_size": 512, "width": 256, "layers": 2, "heads": 4, "mlp_width": 512}


@needs_compiler
@pytest.mark.slow
def test_every_program_of_a_small_decoder_compiles_for_a_tpu(tmp_path):
    """For one chip kind; the number of bytes of the arguments is that of the shapes."""
    flags = ("--sampling-rows=16", "--prompt=64", "--config.sample.max_tokens=64", "--sampling-tensor=4")
    programs, _ = planned(tmp_path, "v5e:2x2", *flags, batch=8, **SMALL)
    for name, row in programs.items():
        assert row["compiled"] and row["fits"] and row["peak_bytes"] >= row["argument_bytes"] * 0.99, (
            name,
            row["note"],
        )
    train = programs["train sft 8"]
    shards = plan_arithmetic.parameters(DecoderConfig(**SMALL)) * 12 / 4
    assert shards < train["argument_bytes"] < 1.5 * shards
    assert any("fsdp_bytes" in key for key in train)


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize(
    "topology, slices", [("v5p:2x2x1", 1), ("v6e:2x2", 1), ("v4:2x2x1", 1), ("v5e:1x1", 1), ("v5e:2x2", 2)]
)
def test_other_chips_and_two_slices_compile_or_say_why_not(tmp_path, topology, slices):
    flags = (f"--slices={slices}", "--programs=train", "--prompt=64", "--config.sample.max_tokens=64")
    row = planned(tmp_path, topology, *flags, batch=16, **SMALL)[0]["train sft 16"]
    assert (row["compiled"] and row["fits"]) or "does not take" in row["note"], row["note"]
    if row["compiled"] and slices > 1:
        assert row["mesh"].startswith("2x") and row["network_bytes"] > 0


@needs_compiler
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("words", ["train", "prefill,decode,score"])
@pytest.mark.parametrize(
    "name, topology",
    [*zip(SHIPPED, SMALL_SLICES), *zip(SHIPPED, LARGE_SLICES)],
    ids=lambda text: text.replace(":", "-"),
)
def test_the_programs_of_the_shipped_7b_configs_compile_and_fit(tmp_path, name, topology, words):
    flags = [f"--config=configs/{name}.py", f"--topology={topology}", f"--programs={words}"]
    assert plan.main([*flags, "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["kind"] for row in rows} == set(words.split(","))
    for row in rows:
        assert row["compiled"] and row["fits"], (row["program"], row["note"], row["peak_bytes"])
        assert row["peak_bytes"] + row["held_bytes"] < row["chip_bytes"] and 0.005 < row["mfu"] <= 1
