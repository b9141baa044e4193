"""Prompt templates: text around `{question}`, by a word or in full; `<bos>` in front asks for that token.

`chat` is the tokenizer's own chat template with the question as the user's message; `chat:TEXT` with a text around {question}
as that message.
"""

from synthrl_jax.policy import chat
from synthrl_jax.policy.tokenizer import Tokenizer

BOS, QUESTION, CHAT = "<bos>", "{question}", "chat"
SYSTEM = "You are a helpful assistant."

# The makers' own formats: Llama 2 and 3 by Meta's model cards, DeepSeek-Math and Qwen 2.5 by their repositories' READMEs (a base
# model after fine-tuning on one format knows no other, so the plain ones are as good for them; the paper's own are not known).
TEMPLATES = {
    "plain": "Question: {question}\nAnswer:",
    "llama2": "<bos>Question: {question}\nAnswer:",
    "llama2_chat": "<bos>[INST] {question} [/INST]",
    "llama3_chat": (
        "<bos><|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "deepseek_math": "<bos>Question: {question}\nAnswer:",
    "deepseek_math_chat": (
        "<bos>User: {question}\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:"
    ),
    "mistral_chat": "<bos>[INST] {question} [/INST]",
    "qwen_chat": (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{{question}}<|im_end|>\n<|im_start|>assistant\n"
    ),
}


def template(word: str) -> str:
    """A template by its word in TEMPLATES, or the text itself; for `chat` the user's message. ValueError: neither, as it does not
    hold {question}."""
    text = QUESTION if word == CHAT else TEMPLATES.get(word, word.removeprefix(f"{CHAT}:"))
    if text.count(QUESTION) != 1:
        raise ValueError(
            f"prompt={word!r} does not hold {QUESTION} (once), and is none of the words {CHAT}, {', '.join(TEMPLATES)}"
        )
    return text


def prompt_ids(tokenizer: Tokenizer, word: str, question: str) -> list[int]:
    """Tokens of a prompt. ValueError: the template asks for <bos>, or for a chat template, and the tokenizer has none."""
    text = template(word)
    if word.split(":")[0] == CHAT:
        messages = [{"role": "user", "content": text.replace(QUESTION, question)}]
        return tokenizer.encode_chat(chat.render(chat.template_of(tokenizer.files), messages, tokenizer.special))
    begin = []
    if text.startswith(BOS):
        if tokenizer.bos_id is None:
            raise ValueError(f"prompt={word!r} begins with {BOS}, and the tokenizer has no such token")
        begin, text = [tokenizer.bos_id], text.removeprefix(BOS)
    return begin + tokenizer.encode(text.replace(QUESTION, question))
