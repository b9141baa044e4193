"""The paper's second base on GSM8K: DeepSeek-Math-7B on synthetic problems like GSM8K's, tested on GSM8K.

Hardware, data, commands: as configs/gsm8k_llama2_7b.py says, with this file's name, and the base at
models/deepseek-math-7b-base: deepseek-ai/deepseek-math-7b-base from Hugging Face (13.8 GB). Where it comes as *.bin, write
it anew once, on any machine:
    python -c "import transformers as t; t.AutoModelForCausalLM.from_pretrained('OLD', dtype='auto').save_pretrained('NEW')"
and copy tokenizer.json and tokenizer_config.json beside it. On one CPU in minutes: --config.smoke=True.

Expected. From the paper: error falls about as D^-0.15; RFT is worth 2 x and per-step DPO 8 x the problems. From others:
this base answers 64.2 % with 8 examples in the prompt, its makers' instruction-tuned model 82.9 % (DeepSeekMath,
2402.03300). The stand-ins are those of configs/gsm8k_llama2_7b.py.
"""

from configs import gsm8k_llama2_7b
from synthrl_jax.policy.templates import TEMPLATES

DEEPSEEK_MATH_7B = {
    "vocab_size": 102_400,
    "width": 4096,
    "layers": 30,
    "heads": 32,
    "mlp_width": 11_008,
    "norm_eps": 1e-6,
}


def get_config(smoke: bool = False):
    c = gsm8k_llama2_7b.get_config()
    c.name = "gsm8k_deepseek_math_7b"
    c.base.pretrained, c.base.shape = "models/deepseek-math-7b-base", DEEPSEEK_MATH_7B
    c.prompt = TEMPLATES["deepseek_math"]
    if smoke:
        from experiments import smoke as small

        small.shrink(c, family="deepseek_math", form="gsm8k")
    return c
