"""SFT and DPO gradients equal torch autograd through transformers on the same weights, with TRL's formula worked out in torch."""

import jax
import numpy as np
import pytest

from synthrl_jax.credit.example import Example
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.step import find_loss, loss_of_params
from synthrl_jax.policy import decoder, hf_weights

torch = pytest.importorskip("torch")
CONFIG = decoder.DecoderConfig(vocab_size=29, width=16, layers=2, heads=4, kv_heads=2)
PARAMS = decoder.init(CONFIG, jax.random.key(3))
BETA = 0.3


def examples():
    random = np.random.default_rng(0)
    out = []
    for i in range(6):
        n = int(random.integers(6, 12))
        ref = -random.random(n).astype(np.float32)
        weight = random.random(n).astype(np.float32)
        pair = (f"{i // 2}", ("chosen", "rejected")[i % 2])
        out.append(Example(random.integers(0, 29, n), np.arange(n) > 2, pair=pair, ref_logprobs=ref, weight=weight))
    return out


def torch_logprobs(model, tokens):
    """log p of each token given those before, 0 at the first."""
    log_p = torch.log_softmax(model(torch.tensor(tokens)[None]).logits[0], -1)
    picked = log_p[:-1].gather(-1, torch.tensor(tokens[1:], dtype=torch.long)[:, None])[:, 0]
    return torch.cat([torch.zeros(1), picked])


def torch_sft(model, rows):
    mask = [torch.tensor(np.asarray(row.mask, np.float32)) for row in rows]
    terms = [m * torch.tensor(row.weight) * torch_logprobs(model, row.tokens) for m, row in zip(mask, rows)]
    return -sum(t.sum() for t in terms) / sum(m.sum() for m in mask)


def torch_dpo(model, rows):
    """TRL's sigmoid loss: -logsigmoid(beta * ((pi_w - ref_w) - (pi_l - ref_l))), the mean over pairs."""

    def ratio(row):
        mask = torch.tensor(np.asarray(row.mask, np.float32))
        return (mask * (torch_logprobs(model, row.tokens) - torch.tensor(row.ref_logprobs))).sum()

    pairs = [ratio(rows[i]) - ratio(rows[i + 1]) for i in range(0, len(rows), 2)]
    return torch.stack([-torch.nn.functional.logsigmoid(BETA * margin) for margin in pairs]).mean()


@pytest.mark.parametrize(
    ("loss", "theirs", "fields"), [("sft", torch_sft, {}), ("dpo", torch_dpo, {"beta": BETA})], ids=["sft", "dpo"]
)
def test_gradients_equal_torchs(tmp_path, loss, theirs, fields):
    import transformers

    hf_weights.save(tmp_path, CONFIG, PARAMS)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    rows = examples()
    want = theirs(model, rows)
    want.backward()

    if loss == "sft":
        rows = [Example(row.tokens, row.mask, weight=row.weight) for row in rows]
    batch = Batches(rows, batch=6 if loss == "sft" else 3, seed=0, pad_id=0).at(0)
    compute = loss_of_params(CONFIG, find_loss(loss, fields))

    def mean(params):
        out = compute(params, {name: array[0] for name, array in batch.items()})
        return out.total / out.weight

    got, gradients = jax.jit(jax.value_and_grad(mean))(PARAMS)
    assert float(got) == pytest.approx(float(want.detach()), rel=1e-5)
    # the same gradients by transformers' names: our own export maps parameters to theirs
    named = dict(model.named_parameters())
    with torch.no_grad():
        for parameter in named.values():
            parameter.copy_(parameter.grad)
    model.save_pretrained(tmp_path / "gradients", safe_serialization=True)
    _, want_gradients = hf_weights.load(tmp_path / "gradients")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=2e-4), gradients, want_gradients)
