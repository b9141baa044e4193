"""A tokenizer's own chat template gives the tokens that transformers gives, and no template leaves its sandbox."""

import io
import json

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from synthrl_jax.policy import chat
from synthrl_jax.policy.templates import prompt_ids, template
from synthrl_jax.policy.tokenizer import SentencePieceTokenizer, load_tokenizer, train_sentencepiece

TEXTS = [
    "[INST] What is 2 + 3? [/INST] It is five.\n",
    "User: How many eggs?\n\nAssistant: nine",
    "system user assistant",
]
QUESTIONS = [
    "What is 2 + 3?",
    "  Tom has 5 eggs,\n\nhe eats  two.\tHow many?  ",
    "日本 é 😀 {question} {{ 7 * 7 }}",
    "Ünlike </s> and <|im_end|>?",
]
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% set content = message['content'] %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
DEEPSEEK = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nPlease reason step by step, and put it in \\\\boxed{}.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "tool" %}{%- continue %}{%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def sentencepiece_directory(path, legacy, **more):
    fields = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True, **more}
    names = {
        "bos_token": "<s>",
        "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True},
        "unk_token": "<unk>",
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 9), model_writer=model, model_type="bpe", vocab_size=350, hard_vocab_limit=False,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    SentencePieceTokenizer(model.getvalue()).save(str(path))
    (path / "tokenizer_config.json").write_text(json.dumps(fields | names))


def byte_level_directory(path, special, **more):
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    path.mkdir()
    made.save(str(path / "tokenizer.json"))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[0], "eos_token": special[1], **more}
    (path / "tokenizer_config.json").write_text(json.dumps(fields))


FORMS = {
    "llama 2": lambda path: sentencepiece_directory(path, False, chat_template=LLAMA2),
    "llama 2, legacy": lambda path: sentencepiece_directory(path, True, chat_template=LLAMA2),
    "deepseek": lambda path: byte_level_directory(
        path, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"], chat_template=DEEPSEEK
    ),
    "qwen": lambda path: (
        byte_level_directory(path, ["<|im_start|>", "<|im_end|>"]),
        (path / "chat_template.jinja").write_text(QWEN),
    ),
    "several": lambda path: byte_level_directory(
        path,
        ["<|im_start|>", "<|im_end|>"],
        chat_template=[{"name": "tool_use", "template": "none"}, {"name": "default", "template": QWEN}],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_prompts_are_token_for_token_those_of_transformers(form, tmp_path):
    transformers = pytest.importorskip("transformers")
    path = tmp_path / "model"
    FORMS[form](path)
    ours, theirs = load_tokenizer(str(path)), transformers.AutoTokenizer.from_pretrained(path)
    for question in QUESTIONS:
        for word, content in (("chat", question), ("chat:{question}\nThink.", f"{question}\nThink.")):
            want = theirs.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            want = want if isinstance(want, list) else want["input_ids"]
            assert prompt_ids(ours, word, question) == want, (form, question)


def test_the_template_goes_with_a_saved_tokenizer(tmp_path):
    FORMS["qwen"](tmp_path / "model")
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    tokenizer.save(str(tmp_path / "again"))
    assert prompt_ids(load_tokenizer(str(tmp_path / "again")), "chat", "Why?") == prompt_ids(tokenizer, "chat", "Why?")


def test_a_tokenizer_without_a_template_says_so():
    plain = train_sentencepiece(["one and two"] * 3, 280)
    with pytest.raises(ValueError, match="has no chat template"):
        prompt_ids(plain, "chat", "Why?")
    with pytest.raises(ValueError, match=r"does not hold \{question\}"):
        template("chat:no place")


@pytest.mark.parametrize(
    "text,words",
    [
        ("{{ messages[0].__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ ''.__class__ }}{{ cycler.__init__.__globals__ }}", "SecurityError|Undefined"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ raise_exception('no system here') }}", "no system here"),
        ("{{ strftime_now('%Y') }}", "strftime_now"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{% for i in range(10000000000) %}x{% endfor %}", "OverflowError"),
    ],
)
def test_a_template_that_fails_or_breaks_out_is_an_error(text, words):
    with pytest.raises(ValueError, match=words) as error:
        chat.render(text, [{"role": "user", "content": "x"}], {})
    assert "\n" not in str(error.value)


def test_a_template_with_an_optional_date_takes_its_fixed_one():
    text = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}"
    assert chat.render(text, [], {}) == "26 Jul 2024"
    assert chat.render("{% generation %}a{{ bos_token }}{% endgeneration %}", [], {"bos_token": "<s>"}) == "a<s>"


@pytest.mark.parametrize("form", ["llama 2", "deepseek"])
def test_a_damaged_file_is_named(form, tmp_path):
    FORMS[form](tmp_path / "model")
    for path in sorted((tmp_path / "model").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(b"\xff{" + whole[:20])
        with pytest.raises(ValueError, match=path.name) as error:
            load_tokenizer(str(tmp_path / "model"))
        assert "\n" not in str(error.value)
        path.write_bytes(whole)


def test_special_tokens_are_found_wherever_they_are_named(tmp_path):
    transformers = pytest.importorskip("transformers")
    path = tmp_path / "model"
    byte_level_directory(path, ["<begin>", "<end>", "<turn>"])
    (path / "tokenizer_config.json").unlink()
    names = {"bos_token": {"content": "<begin>", "lstrip": False}, "eos_token": "<turn>"}
    (path / "special_tokens_map.json").write_text(json.dumps(names))
    found = load_tokenizer(str(path))
    assert (found.bos_id, found.eos_id) == (0, 2)
    (path / "special_tokens_map.json").unlink()
    (path / "config.json").write_text('{"eos_token_id": 1}')
    load_tokenizer(str(path)).save(str(tmp_path / "again"))
    again = load_tokenizer(str(tmp_path / "again"))  # without config.json the tokenizer itself says how it ends
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again.eos_id == theirs.eos_token_id == 1
    assert theirs.encode("two eggs", add_special_tokens=False) == again.encode("two eggs")


def test_a_turn_may_end_with_an_added_token(tmp_path):
    transformers = pytest.importorskip("transformers")
    path = tmp_path / "model"
    sentencepiece_directory(path, False, chat_template=QWEN)
    size = load_tokenizer(str(path)).vocab_size
    fields = json.loads((path / "tokenizer_config.json").read_text())
    turns = {text: size + i for i, text in enumerate(["<|im_start|>", "<|im_end|>"])}
    fields["added_tokens_decoder"] = {str(i): {"content": text, "special": True} for text, i in turns.items()}
    fields["eos_token"] = "<|im_end|>"
    (path / "tokenizer_config.json").write_text(json.dumps(fields))
    (path / "added_tokens.json").write_text(json.dumps(turns))
    ours, theirs = load_tokenizer(str(path)), transformers.AutoTokenizer.from_pretrained(path)
    assert ours.eos_id == theirs.eos_token_id == size + 1
    want = theirs.apply_chat_template([{"role": "user", "content": "Why two?"}], add_generation_prompt=True)
    assert prompt_ids(ours, "chat", "Why two?") == (want if isinstance(want, list) else want["input_ids"])
