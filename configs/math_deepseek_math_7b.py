"""The paper's setting on MATH with DeepSeek-Math-7B: synthetic problems like MATH's, steps by line or sentence, tested on MATH.

Hardware, data, commands: as configs/math_llama2_7b.py says, with this file's name; the base at models/deepseek-math-7b-base
as configs/gsm8k_deepseek_math_7b.py says. On one CPU in minutes: --config.smoke=True.

Expected. From the paper: error falls about as D^-0.05; RFT is worth 2 x and per-step DPO 8 x the problems. From others:
this base answers 36.2 % with 4 examples in the prompt, its makers' instruction-tuned model 46.8 % (DeepSeekMath,
2402.03300). The stand-ins are those of configs/gsm8k_llama2_7b.py.
"""

from configs import gsm8k_deepseek_math_7b, math_llama2_7b


def get_config(smoke: bool = False):
    c = gsm8k_deepseek_math_7b.get_config()
    c.name = "math_deepseek_math_7b"
    math_llama2_7b.math_form(c)
    if smoke:
        from experiments import smoke as small

        small.shrink(c, family="deepseek_math", form="hendrycks_math")
    return c
