"""tunix's sampler on a rollout bench's requests; the protocol is that of transformers_peer.py.

Kind to tunix in two ways: it takes the best token (its top-p mode sorts the vocabulary at each step), and a batch ends at
its longest forced length, which no caller could know. Steps are rounded up to 32, so that shapes repeat.
"""

import json
import sys
import time


class Ids:
    """A tokenizer of texts that are already token ids; 0 as the first id means that none is put before a prompt."""

    def encode(self, text, **_):
        return [int(token) for token in text.split()]

    def decode(self, ids, **_):
        return " ".join(map(str, ids))

    def bos_id(self):
        return 0

    def eos_id(self):
        return -1

    def pad_id(self):
        return 0


def main():
    try:
        import jax
        import jax.numpy as jnp
        import tunix
        from tunix.generate import sampler as samplers
        from tunix.models.llama3 import model as models
        from tunix.models.llama3 import params
    except ImportError:
        sys.exit(3)
    job = json.load(sys.stdin)
    with open(f"{job['model']}/config.json") as file:
        read = json.load(file)
    config = models.ModelConfig(
        num_layers=read["num_hidden_layers"],
        vocab_size=read["vocab_size"],
        embed_dim=read["hidden_size"],
        hidden_dim=read["intermediate_size"],
        num_heads=read["num_attention_heads"],
        head_dim=read["hidden_size"] // read["num_attention_heads"],
        num_kv_heads=read["num_key_value_heads"],
        rope_theta=int(job["rope_theta"]),
        norm_eps=read["rms_norm_eps"],
        weight_tying=read["tie_word_embeddings"],
    )
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    prompt = 1 << (max(map(len, job["prefixes"])) - 1).bit_length()
    cache = prompt + -(-job["max_tokens"] // 32) * 32

    compiled = []

    def listen(event, seconds, **_):
        compiled.append(seconds * (event == "/jax/core/compile/backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    with jax.set_mesh(mesh):
        model = params.create_model_from_safe_tensors(job["model"], config, mesh, dtype=dtype)
        sampler = samplers.Sampler(
            model, Ids(), samplers.CacheConfig(cache, config.num_layers, config.num_kv_heads, config.head_dim)
        )

        def generate(limit, batches=None):
            for start in range(0, len(job["prefixes"]), job["batch"])[:batches]:
                prefixes = job["prefixes"][start : start + job["batch"]]
                steps = min(limit, max(job["lengths"][start : start + job["batch"]]))
                steps = steps if steps == 1 else -(-steps // 32) * 32
                longest = 1 << (max(map(len, prefixes)) - 1).bit_length()
                texts = [" ".join(map(str, p)) for p in prefixes]
                sampler(texts, max_generation_steps=steps, max_prompt_length=longest, temperature=0.0, eos_tokens=[-1])

        def timed(limit):
            start, cpu = time.perf_counter(), time.process_time()
            generate(limit)
            return time.perf_counter() - start, time.process_time() - cpu

        def host_share():
            """Share of a batch of 32 steps outside its two compiled functions, each awaited."""
            device = 0.0

            def awaited(compiled):
                def call(*args, **kwargs):
                    nonlocal device
                    start = time.perf_counter()
                    result = jax.block_until_ready(compiled(*args, **kwargs))
                    device += time.perf_counter() - start
                    return result

                return call

            names = ("_compiled_prefill_fn", "_compiled_decode_fn")
            for name in names:
                setattr(sampler, name, awaited(getattr(sampler, name)))
            generate(32, 1)
            device, start = 0.0, time.perf_counter()
            generate(32, 1)
            return 1 - device / (time.perf_counter() - start)

        timed(1)
        prefill = [timed(1)[0] for _ in range(job["repeats"])]
        timed(10**9)
        runs = [timed(10**9) for _ in range(job["repeats"])]
        host = host_share()
    version = getattr(tunix, "__version__", "")
    versions = f"tunix {version}, jax {jax.__version__}, {jax.default_backend()}"
    seconds, cpu = map(list, zip(*runs))
    times = {"seconds": seconds, "cpu_seconds": cpu, "prefill_seconds": prefill, "compile_seconds": sum(compiled)}
    json.dump(times | {"host_share": host, "versions": versions}, sys.stdout)


if __name__ == "__main__":
    main()
