"""transformers' generate on a rollout bench's requests: reads a JSON job from standard input, writes JSON to standard output.

The job: model (a directory), prefixes, lengths (forced), batch, max_tokens, temperature, repeats. Exit 3: not installed.
"""

import json
import sys
import time


def main():
    try:
        import torch
        import transformers
    except ImportError:
        sys.exit(3)
    job = json.load(sys.stdin)
    transformers.logging.set_verbosity_error()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype).to(device).eval()
    model.generation_config.eos_token_id = None

    class Forced(transformers.StoppingCriteria):
        def __init__(self, prompt, lengths):
            self.ends = torch.tensor(lengths, device=device) + prompt

        def __call__(self, input_ids, scores, **kwargs):
            return input_ids.shape[1] >= self.ends

    def generate(limit, batches=None):
        for start in range(0, len(job["prefixes"]), job["batch"])[:batches]:
            prefixes = job["prefixes"][start : start + job["batch"]]
            lengths = [min(length, limit) for length in job["lengths"][start : start + job["batch"]]]
            longest = max(map(len, prefixes))
            ids = torch.tensor([[0] * (longest - len(p)) + p for p in prefixes], device=device)
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prefixes], device=device)
            sampling = {"do_sample": True, "temperature": job["temperature"], "top_k": 0, "top_p": 1.0}
            with torch.inference_mode():
                model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=job["max_tokens"],
                    pad_token_id=0,
                    stopping_criteria=transformers.StoppingCriteriaList([Forced(longest, lengths)]),
                    **(sampling if job["temperature"] else {"do_sample": False}),
                )

    def timed(limit):
        start, cpu = time.perf_counter(), time.process_time()
        generate(limit)
        return time.perf_counter() - start, time.process_time() - cpu

    def host_share():
        """Share of 32 steps of a batch that torch's operators do not account for: Python, and the profiler's own cost. They run
        on the thread that calls them, on CPU; on a GPU the kernels' time counts."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else []
        with torch.profiler.profile(activities=activities) as profile:
            start = time.perf_counter()
            generate(32, 1)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        used = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
        return 1 - sum(getattr(event, used) for event in profile.key_averages()) / 1e6 / seconds

    timed(1)  # nothing is compiled, but the first pass of a process is slower
    prefill = [timed(1)[0] for _ in range(job["repeats"])]
    runs = [timed(10**9) for _ in range(job["repeats"])]
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}, {device}"
    seconds, cpu = map(list, zip(*runs))
    times = {"seconds": seconds, "cpu_seconds": cpu, "prefill_seconds": prefill, "compile_seconds": 0.0}
    json.dump(times | {"host_share": host_share(), "versions": versions}, sys.stdout)


if __name__ == "__main__":
    main()
