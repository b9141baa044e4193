"""What a run's numbers mean, and where they go: JSONL files and TensorBoard, beside the run."""

import json
import math
import shutil
import tempfile
from pathlib import Path

import jax

from synthrl_jax import remote
from synthrl_jax.policy.decoder import DecoderConfig

# of metrics.jsonl: a function of the run's settings and data alone
MEANINGS = {
    "step": "optimiser updates done",
    "loss": "total over weight of the whole batch, all micro-batches and hosts; what is minimised",
    "gradient_norm": "global L2 norm of the gradient, before clipping",
    "nll": "mean negative log-likelihood of the masked tokens, nats a token",
    "entropy": "mean entropy of the policy's next-token distribution at the masked tokens of the batch, nats, after the update",
    "step_weight": "mean of the masked tokens' min(exp(A / beta), max_weight)",
    "step_weight_at_cap": "share of masked tokens whose weight is at max_weight",
    "preference_accuracy": "share of pairs whose implicit reward is larger on the chosen side; a tie counts half",
    "reward_margin": "mean of beta * (log pi/ref of the chosen - log pi/ref of the rejected) over pairs",
    "chosen_reward": "mean of beta * log pi/ref of the chosen rows, sums over masked tokens",
    "rejected_reward": "mean of beta * log pi/ref of the rejected rows, sums over masked tokens",
    "chosen_logprob": "mean log-probability of the chosen rows, sums over masked tokens, nats",
    "rejected_logprob": "mean log-probability of the rejected rows, sums over masked tokens, nats",
    "chosen_nll": "mean over pairs of the chosen row's negative log-likelihood a masked token",
    "reference_kl": "mean log ref/pi a masked token: on rows that the reference sampled an estimate of KL(reference || policy), "
    "nats a token",
    "skipped": "updates so far that were left out, as their loss or gradient was not finite or a spike",
    "validation": "score of the validation look, larger is better",
}
# of timing.jsonl and TensorBoard: how fast it went, on this machine, this time
TIMING_MEANINGS = {
    "seconds_per_update": "wall time an update since the last row, looks and checkpoints left out",
    "trained_tokens_per_second": "tokens that the loss counts, a token of several examples once for each",
    "computed_tokens_per_second": "tokens that went through the layers, padding included",
    "real_share": "share of the computed places that hold a token",
    "computed_per_trained": "tokens computed per token trained",
    "mfu": "model FLOP utilisation: 6 FLOPs a token and matrix parameter (the unembedding only at counted tokens) plus causal "
    "attention at half of T^2, for real tokens, nothing for rematerialisation, over the devices' dense bfloat16 peak; with LoRA "
    "4 FLOPs a frozen parameter, as it needs no gradient; not given on devices whose peak metrics.py does not list",
    "peak_bytes": "largest memory in use on the first device so far (on CPU: of this process)",
}
# dense bfloat16 FLOP/s of one device, by jax's device_kind; from the makers' data sheets
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def model_flops(config: DecoderConfig, real: int, counted: int, context: float, adapters: int = 0) -> float:
    """FLOPs of a training step by the convention of `mfu`; context: mean number of tokens that a token sees.

    adapters: low-rank parameters that alone are trained (0: all parameters are).
    """
    c = config
    attention = c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
    layers = c.layers * (attention + 3 * c.width * c.mlp_width)
    seen = (
        2 * c.layers * c.heads * c.head_dim * context
    )  # q k and its product with v, two FLOPs each, are 2 multiply-adds
    matrices = real * layers + counted * c.width * c.vocab_size
    return (4.0 if adapters else 6.0) * matrices + 6.0 * real * (seen + adapters)


def peak_bytes() -> int | None:
    """Largest memory in use so far on the first device; of the process where the device does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Trace:
    """jax.profiler around `count` updates, from the third on or, in a run that ends before, from earlier.

    done: updates that the run has behind it; last: its last one. Closed early (the run ends or fails), the trace holds what was.
    """

    def __init__(self, directory, count: int, done: int, last: int):
        first = max(done + 1, min(done + 3, last + 1 - count))  # the first two compile
        self.updates = range(first, min(first + count, last + 1))
        self._directory, self._running = directory, False

    def before(self, update: int) -> None:
        if self.updates and update == self.updates[0]:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def after(self, update: int, outputs) -> None:
        if self._running and update == self.updates[-1]:
            jax.block_until_ready(outputs)
            self.close()

    def close(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


class MetricWriter:
    """Appends rows `{"step": ..., name: value}` to metrics.jsonl and the same scalars to a TensorBoard event file;
    metrics_meanings.json beside them says what each name means; one that is not known here is of the `loss`.

    A resumed run passes `resume_after`: rows of later steps, written before the interruption, are dropped, so that the file ends
    with the rows of an uninterrupted run.
    """

    def __init__(self, directory, *, resume_after: int = -1, tensorboard: bool = True, loss: str = ""):
        # a bucket's objects cannot be appended to: there the files grow on this machine and are sent when they are closed
        self._target = remote.path(directory) if remote.is_remote(directory) else None
        self.path = Path(tempfile.mkdtemp() if self._target else directory) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._target and (self._target / self.path.name).exists():
            self.path.write_bytes((self._target / self.path.name).read_bytes())
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_after]
        fresh = self.path.with_name("metrics.jsonl.new")  # renamed when whole: a kill in between must not cost rows
        fresh.write_text("".join(json.dumps(row) + "\n" for row in kept))
        fresh.replace(self.path)
        self._loss, self._meanings = loss, {"metrics.jsonl": dict(MEANINGS), "timing.jsonl": dict(TIMING_MEANINGS)}
        self._write_meanings()
        self._file = self.path.open("a")
        self._timing = None
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=resume_after + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._put(self._file, step, values)

    def write_timing(self, step: int, values: dict[str, float]) -> None:
        """What another run of the same settings need not repeat goes to a file of its own, timing.jsonl."""
        if self._timing is None:
            self._timing = self.path.with_name("timing.jsonl").open("a")
        self._put(self._timing, step, values)

    def _write_meanings(self) -> None:
        fresh = self.path.with_name("metrics_meanings.json.new")
        fresh.write_text(json.dumps(self._meanings, indent=1) + "\n")
        fresh.replace(fresh.with_suffix(""))

    def _put(self, file, step: int, values: dict[str, float]) -> None:
        meanings = self._meanings[Path(file.name).name]
        if unknown := [name for name in values if name not in meanings]:
            meanings.update(dict.fromkeys(unknown, f"a metric of the loss {self._loss or 'of this run'}: see there"))
            self._write_meanings()
        row = {"step": step} | {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        file.write(json.dumps(row) + "\n")
        file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step, summary_description=meanings[name])

    def sync(self) -> None:
        """Send the rows so far to a bucket, as a checkpoint is written that later rows will follow."""
        if self._target is not None:
            (self._target / self.path.name).write_bytes(self.path.read_bytes())

    def close(self) -> None:
        self._file.close()
        if self._timing is not None:
            self._timing.close()
        if self._board is not None:
            self._board.close()
        if self._target is not None:
            remote.copy(self.path.parent, self._target)
            shutil.rmtree(self.path.parent)


def read_metrics(path) -> list[dict]:
    """Rows of a metrics file; a last line cut short by a kill is left out."""
    path, rows = Path(path), []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
