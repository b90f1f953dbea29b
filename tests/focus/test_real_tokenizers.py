"""Published tokenizers on the prompts of every task: boundaries, start and end tokens, round trips."""

import random
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fit_jax.config import TaskConfig
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.focus.conversations import TextEncoder
from fit_jax.focus.example import Turn
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, spec_for
from fit_jax.focus.tokenizers import load_tokenizer, save_tokenizer

# Folder, number of tokens, start and end token, and whether lines tokenise apart from each other.
TOKENIZERS = {
    "minimind_6400": (6400, "<|im_start|>", "<|im_end|>", True),
    "smollm_49152": (49153, "<|endoftext|>", "<|endoftext|>", True),
    "gpt2": (50257, "<|endoftext|>", "<|endoftext|>", True),
    "llama2_32k": (32000, "<s>", "</s>", False),
    "mistral": (32768, "<s>", "</s>", False),
    "llama3": (128256, "<|begin_of_text|>", "<|end_of_text|>", True),
}
TASKS = ("demo", "ss", "smnli", "shans", "bbq", "bbq_nlg")


@pytest.fixture(scope="module", params=TOKENIZERS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def llama3(data_dir):
    """Loaded once: its merges are rebuilt from 128,000 ranks."""
    return load_tokenizer(data_dir / "tokenizers" / "llama3")


@pytest.fixture(scope="module")
def tokenizer(name, data_dir, request):
    if name == "llama3":
        return request.getfixturevalue("llama3")
    return load_tokenizer(data_dir / "tokenizers" / name)


@pytest.fixture(scope="module")
def prompts(data_dir):
    """Per task its text, some examples, and a focus instruction for each."""
    rng = random.Random(0)
    drawn = {}
    for name in TASKS:
        config = TaskConfig(
            name=name,
            data_dir=str(data_dir),
            categories=("Age",),
            train_examples=36,
            validation_examples=12,
            test_examples=12,
        )
        task = build_task(config, 0)
        examples = list(task.splits["train"].examples)
        specs = [spec_for(rng.choice(FOCUS_TYPES), next(iter(example.spurious))) for example in examples]
        instructions = [instruction(task.text, s, rng.choice(paraphrases_of(name, s, "heldout"))) for s in specs]
        drawn[name] = task.text, examples, instructions
    return drawn


def whole_ids(encoder, example, focus, answer, template="auto") -> list[int]:
    """The whole text tokenised at once, with a start token where the tokenizer itself puts one and no template does."""
    tokenizer = encoder.tokenizer
    rendered = encoder.render(example, focus, answer)
    plain = template == "plain" or not tokenizer.chat_template
    if plain and rendered.startswith(tokenizer.bos_token):
        return tokenizer(rendered.removeprefix(tokenizer.bos_token))["input_ids"]
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_vocabulary_and_control_tokens(tokenizer, name):
    size, bos, eos, _ = TOKENIZERS[name]
    assert (len(tokenizer), tokenizer.bos_token, tokenizer.eos_token) == (size, bos, eos)
    sentence = 'Naïve readers paid $12.50 for "it"; 中文 🙂\n\tdone.'
    assert tokenizer.decode(tokenizer(sentence, add_special_tokens=False)["input_ids"]) == sentence


@pytest.mark.parametrize("template", ["auto", "plain"])
@pytest.mark.parametrize("place", ["after", "before"])
def test_prompts_of_every_task(tokenizer, prompts, place, template):
    for text, examples, instructions in prompts.values():
        encoder = PromptEncoder(tokenizer, text, place, template)
        end = tokenizer.convert_ids_to_tokens(encoder.end_id)
        for prompt, example, focus in zip(encoder.encode(examples, instructions), examples, instructions):
            assert list(prompt.prompt[:2]).count(tokenizer.bos_token_id) <= 1
            assert tokenizer.decode(prompt.prompt).replace("<s> ", "<s>") == encoder.render(example, focus)
            for candidate, answer in zip(example.candidates, prompt.answers, strict=True):
                assert [*prompt.prompt, *answer] == whole_ids(encoder, example, focus, candidate, template)
                assert answer[-1] == encoder.end_id
                assert tokenizer.decode(answer).strip() == candidate + end
        assert encoder.mismatches == 0


@pytest.mark.parametrize("place", ["after", "system"])
def test_conversations_are_whole_texts(tokenizer, name, prompts, place):
    text, examples, instructions = prompts["ss"]
    examples = [
        replace(e, earlier=(Turn("Go by A7.", e.candidates[0]), Turn("Ignore it.", e.candidates[1]))[: n % 3])
        for n, e in enumerate(examples)
    ]
    encoder = PromptEncoder(tokenizer, text, place)
    if (name, place) == ("mistral", "system"):  # its template moves the system turn to the last user's
        with pytest.raises(InputError, match=r"set focus\.place to before or after"):
            encoder.encode(examples, instructions)
        examples = [replace(e, earlier=()) for e in examples]
    for prompt, example, focus in zip(encoder.encode(examples, instructions), examples, instructions):
        for candidate, answer in zip(example.candidates, prompt.answers, strict=True):
            assert [*prompt.prompt, *answer] == whole_ids(encoder, example, focus, candidate)
        if focus and example.earlier:
            rendered = encoder.render(example, focus)
            assert rendered.rindex(focus) > rendered.rindex(example.earlier[-1].instruction)


def test_lines_are_tokenised_apart_only_where_that_changes_nothing(tokenizer, name, text, make_example):
    encoder = PromptEncoder(tokenizer, text)

    @settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
    @given(content=st.text(max_size=30).filter(lambda t: not re.search(r"[<\[\]|]", t)))
    def check(content):
        example = make_example(content)
        (prompt,) = encoder.encode([example], ["Ignore the keyword."])
        for candidate, answer in zip(example.candidates, prompt.answers):
            assert [*prompt.prompt, *answer] == whole_ids(encoder, example, "Ignore the keyword.", candidate)

    check()
    assert encoder.lines_part == TOKENIZERS[name][3]


def test_raw_files_saved_load_as_hugging_face_folders(tokenizer, name, tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(tokenizer, tmp_path)
    sentence = "Once upon a time, 中文 \n done"
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path))):
        assert loaded(sentence)["input_ids"] == tokenizer(sentence)["input_ids"]
        assert (loaded.chat_template, loaded.eos_token_id) == (tokenizer.chat_template, tokenizer.eos_token_id)


def test_think_block_of_the_template_stands_before_every_answer(data_dir, prompts):
    tokenizer = load_tokenizer(data_dir / "tokenizers" / "minimind_6400")
    text, examples, instructions = prompts["ss"]
    encoder = PromptEncoder(tokenizer, text)
    rendered = encoder.render(examples[0], instructions[0], "positive")
    assert rendered.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\npositive<|im_end|>")
    user = "\n".join(
        part for part in (text.instruction, f"Sentence: {examples[0].slots['text']}", instructions[0]) if part
    )
    served = tokenizer.apply_chat_template(
        [{"role": "user", "content": user}], add_generation_prompt=True, tokenize=False
    )
    assert encoder.render(examples[0], instructions[0]) == served


def test_sentencepiece_model_agrees_with_sentencepiece(data_dir):
    import sentencepiece

    for file in ("llama2_32k/tokenizer.model", "mistral/mistral_instruct_tokenizer_240323.model.v3"):
        reference = sentencepiece.SentencePieceProcessor(model_file=str(data_dir / "tokenizers" / file))
        tokenizer = load_tokenizer(data_dir / "tokenizers" / file)
        for line in (data_dir / "wikitext2" / "test.txt").read_text("utf-8").split("\n")[:60]:
            line = line.replace("<unk>", "unk").strip()
            assert tokenizer(line)["input_ids"] == reference.encode(line, add_bos=True)


def test_tiktoken_model_agrees_with_tiktoken(data_dir, llama3):
    from tiktoken import Encoding
    from tiktoken.load import load_tiktoken_bpe

    # The pattern by which Llama 3 splits text before merging.
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    folder = data_dir / "tokenizers" / "llama3"
    ranks = load_tiktoken_bpe(str(folder / "tokenizer.model"))
    reference = Encoding("llama3", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    text = (data_dir / "wikitext2" / "test.txt").read_text("utf-8")[:20000]
    assert llama3(text, add_special_tokens=False)["input_ids"] == reference.encode(text)
    assert llama3.convert_tokens_to_ids(["<|begin_of_text|>", "<|eot_id|>"]) == [128000, 128009]


def test_llama2c_files_hold_the_same_tokenizer(data_dir):
    folder = data_dir / "tokenizers" / "llama2_32k"
    ours, reference = load_tokenizer(folder / "tokenizer.bin"), load_tokenizer(folder)
    assert ours.get_vocab() == reference.get_vocab()
    text = (data_dir / "wikitext2" / "test.txt").read_text("utf-8")[:20000].replace("<unk>", "unk")
    assert ours(text)["input_ids"] == reference(text)["input_ids"]


def test_stories_tokenizer(data_dir):
    tokenizer = load_tokenizer(data_dir / "stories260k")
    assert len(tokenizer) == 512
    ids = tokenizer("Once upon a time, there was a little girl named Lily.")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 1
    assert len(ids) < 20
    assert tokenizer.decode(ids[1:]) == "Once upon a time, there was a little girl named Lily."


def test_a_conversation_is_what_the_chat_template_makes_of_it(tokenizer, monkeypatch):
    said = ["Is it dull?", "No, é 🙂 it is.", "Why?", "1. Because"]
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, said)]
    if not tokenizer.chat_template:
        user, assistant = "[INST] {{ m.content }} [/INST]", " {{ m.content }}{{ eos_token }}"
        turns = "{% if m.role == 'user' %}" + user + "{% else %}" + assistant + "{% endif %}"
        chat = "{{ bos_token }}{% for m in messages %}" + turns + "{% endfor %}"
        monkeypatch.setattr(tokenizer, "chat_template", chat)
    encoder = TextEncoder(tokenizer, "auto")
    assert encoder.problem(messages) is None
    found = encoder.conversation(messages)
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    assert found.ids.tolist() == whole[: len(found.ids)]
    learnt = tokenizer.decode(found.ids[found.learnt].tolist())
    assert re.sub(r"<[^>]*>| ", "", learnt) == re.sub(" ", "", said[1] + said[3])
