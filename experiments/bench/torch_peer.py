"""A plain PyTorch + transformers AdamW step for the training bench: answers "rate" and "step" on standard input with seconds.

Its argument is a JSON job: model (a directory), rows, tokens, clock (wall or cpu). Exit 3: not installed.
"""

import json
import sys
import time


def main():
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise  # installed, but broken
        sys.exit(3)
    job = json.loads(sys.argv[1])
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[job["clock"]]
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(0, model.config.vocab_size, (job["rows"], job["tokens"]))
    square = torch.ones(2048, 2048)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    about = {"torch": torch.__version__, "transformers": transformers.__version__, "threads": torch.get_num_threads()}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        work = {"rate": lambda: square @ square, "step": step}[line.strip()]
        began = clock()
        work()
        print(clock() - began, flush=True)


if __name__ == "__main__":
    main()
