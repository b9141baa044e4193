"""`python -m experiments.convert`: both ways, nothing lost, and wrong use told in one line."""

import json

import jax
import numpy as np
import pytest

from experiments import convert
from synthrl_jax import policy as policies
from synthrl_jax.policy import decoder, hf_weights
from synthrl_jax.policy.tokenizer import train_sentencepiece

TOKENIZER = train_sentencepiece(["one and two are three", "four and five are nine"] * 3, 300)
CONFIG = decoder.DecoderConfig(vocab_size=304, width=32, layers=2, heads=4, kv_heads=2, tied=True)


@pytest.fixture
def source(tmp_path):
    hf_weights.save(tmp_path / "hf", CONFIG, decoder.init(CONFIG, jax.random.key(0)))
    TOKENIZER.save(str(tmp_path / "hf"))
    return tmp_path / "hf"


def test_there_and_back_again_nothing_is_lost(source, tmp_path, capsys):
    there, back = str(tmp_path / "orbax"), str(tmp_path / "back")
    assert convert.main([str(source), there, "--json", str(tmp_path / "row.json")]) == 0
    assert convert.main([there, back]) == 0
    (row,) = json.loads((tmp_path / "row.json").read_text())
    assert (row["from"], row["to"], row["dtype"], row["tokenizer"]) == ("hf", "orbax", "float32", True)
    assert row["checksum"] in capsys.readouterr().out
    assert (source / "model.safetensors").read_bytes() == (tmp_path / "back" / "model.safetensors").read_bytes()
    for place in (there, back):
        policy = policies.load_pretrained(place)
        assert policies.checksum(policy.params) == row["checksum"]
        assert policy.tokenizer.encode("one and six") == TOKENIZER.encode("one and six")


def test_what_comes_back_is_loaded_by_transformers(source, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    assert convert.main([str(source), str(tmp_path / "orbax")]) == 0
    assert convert.main([str(tmp_path / "orbax"), str(tmp_path / "back")]) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    ids = tokenizer("two and three", add_special_tokens=False)["input_ids"]
    assert ids == TOKENIZER.encode("two and three") and model.config.eos_token_id == TOKENIZER.eos_id
    policy = policies.load_pretrained(source)
    with torch.no_grad():
        want = model(torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(decoder.logits(policy.config, policy.params, np.array([ids])), want, atol=1e-4)


def test_the_type_is_kept_or_changed_when_asked(source, tmp_path):
    assert convert.main([str(source), str(tmp_path / "half"), "--dtype", "bfloat16", "--to", "hf"]) == 0
    assert convert.main([str(tmp_path / "half"), str(tmp_path / "orbax")]) == 0
    assert json.loads((tmp_path / "orbax" / "decoder.json").read_text())["dtype"] == "bfloat16"
    assert convert.main([str(tmp_path / "orbax"), str(tmp_path / "again")]) == 0
    half, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("half", "again"))
    assert half == again


def test_wrong_use_is_one_clear_line(source, tmp_path, capsys):
    cases = {
        "not empty": [str(source), str(source)],
        "neither a directory nor a shipped model": [str(tmp_path / "none"), str(tmp_path / "out")],
        "does not fit": [str(source), str(tmp_path / "out"), "--fsdp", "3"],
    }
    (tmp_path / "empty").mkdir()
    cases["no config.json"] = [str(tmp_path / "empty"), str(tmp_path / "out")]
    for words, flags in cases.items():
        assert convert.main(flags) == 2
        lines = capsys.readouterr().err.strip().split("\n")
        assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]
    with pytest.raises(SystemExit) as error:
        convert.main([str(source)])
    assert error.value.code == 2


def test_a_run_may_start_from_either_form(source, tmp_path):
    from experiments.stages.base import base, load_policy

    assert convert.main([str(source), str(tmp_path / "orbax")]) == 0
    for place in (source, tmp_path / "orbax"):
        cell = tmp_path / f"cell-{place.name}"
        cell.mkdir()
        base({"pretrained": str(place)}, {}, cell, 0, "base")
        assert load_policy(cell).tokenizer.eos_id == TOKENIZER.eos_id
    assert (tmp_path / "cell-hf" / "pointer.json").read_text().split("checksum")[1] == (
        tmp_path / "cell-orbax" / "pointer.json"
    ).read_text().split("checksum")[1]
