"""Training, saving and loading tokenizers, and what is no tokenizer."""

import copy
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fit_jax.errors import InputError
from fit_jax.focus.tokenizers import load_tokenizer, save_tokenizer, train_tokenizer

SENTENCE = "A warm, funny film — 10 of 10!\nnaïve 中文 🙂"


def test_training_is_deterministic_and_covers_every_byte(reviews):
    a, b = train_tokenizer(reviews, 300), train_tokenizer(iter(reviews), 300)
    assert a.get_vocab() == b.get_vocab()
    assert len(a) == 300
    assert a.decode(a(SENTENCE)["input_ids"]) == SENTENCE
    assert (a.pad_token_id, a.eos_token_id, a.bos_token_id) == (0, 1, None)
    assert a(SENTENCE)["input_ids"] == a(SENTENCE, add_special_tokens=False)["input_ids"]


def test_a_vocabulary_below_the_bytes_is_an_error(reviews):
    with pytest.raises(InputError, match=r"tokenizer.vocab_size 257 is too small .* take at least 258"):
        train_tokenizer(reviews, 257)
    assert len(train_tokenizer(reviews, 258)) == 258


def test_saved_tokenizers_load_here_and_by_auto_tokenizer(tiny_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tiny_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    save_tokenizer(tiny_tokenizer, tmp_path / "tokenizer")
    for loaded in (load_tokenizer(tmp_path / "tokenizer"), AutoTokenizer.from_pretrained(str(tmp_path / "tokenizer"))):
        assert loaded(SENTENCE)["input_ids"] == tiny_tokenizer(SENTENCE)["input_ids"]
        assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
        assert loaded.chat_template == tiny_tokenizer.chat_template


def test_own_tokenizers_load_without_the_model_classes(tiny_tokenizer, tmp_path):
    save_tokenizer(tiny_tokenizer, tmp_path)
    code = (
        "import sys; from fit_jax.focus.tokenizers import load_tokenizer; load_tokenizer(sys.argv[1]);"
        "assert not {'torch', 'jax', 'transformers.models.auto.tokenization_auto'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # panics while it is read
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}),  # panics at the first text
        (
            "post_processor",
            {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "X", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            },
        ),
    ],
)
def test_a_panic_in_rust_is_one_line_and_nothing_besides(part, content, tiny_tokenizer, tmp_path, capfd):
    save_tokenizer(tiny_tokenizer, tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {part: content}))
    with pytest.raises(InputError, match=r"cannot be read \(.+\); name a folder with a tokenizer.json"):
        load_tokenizer(tmp_path)
    assert capfd.readouterr().err == ""


def test_what_is_no_tokenizer_is_one_line(tmp_path, tiny_tokenizer):
    with pytest.raises(InputError, match=r"tokenizer .*nowhere: there is no such path; name a folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no-one/no-such-model: neither a local folder nor available from the hub"):
        load_tokenizer("no-one/no-such-model")
    (tmp_path / "empty").mkdir()
    save_tokenizer(tiny_tokenizer, tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    save_tokenizer(tiny_tokenizer, tmp_path / "no_json")
    (tmp_path / "no_json" / "tokenizer_config.json").write_text("[")
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tok9.bin").write_bytes(b"\x01\x00\x00\x00\x00")
    (tmp_path / "two").mkdir()
    for name in ("a.model", "b.model"):
        (tmp_path / "two" / name).write_text("")
    for name in ("empty", "broken", "no_json", "llama", "bin", "two"):
        remedy = "fetch it again" if name == "bin" else "name "
        with pytest.raises(InputError, match=rf"^tokenizer [^\n]*; {remedy}[^\n]*$"):
            load_tokenizer(tmp_path / name)


COSTLY = {"Regex": "(a+)+$"}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("normalizer", {"type": "Replace", "pattern": COSTLY, "content": "b"}),
        ("pre_tokenizer", {"type": "Split", "pattern": COSTLY, "behavior": "Isolated", "invert": False}),
        ("decoder", {"type": "Sequence", "decoders": [BYTES, {"type": "Replace", "pattern": COSTLY, "content": "b"}]}),
    ],
)
def test_a_regular_expression_that_gives_up_is_one_line(part, content, tiny_tokenizer, tmp_path, capfd):
    """Also through a copy, and without the pages that Rust prints."""
    save_tokenizer(tiny_tokenizer, tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), part: content}))
    tokenizer = copy.deepcopy(load_tokenizer(tmp_path))
    capfd.readouterr()
    told = r"^tokenizer '.{1,70}': gives up on a text \(Onig: [^\n]*\); fetch its tokenizer.json again"
    with pytest.raises(InputError, match=told):
        tokenizer.decode(tokenizer("a" * 40 + "c")["input_ids"])
    if part != "decoder":
        with pytest.raises(InputError, match=told):
            tokenizer.backend_tokenizer.encode_batch_fast(["a" * 40 + "c"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory as Linux tells it")
def test_nothing_is_left_of_a_tokenizer_that_is_gone(tiny_tokenizer, tmp_path):
    """The library's threads would keep the words that they looked up, half a megabyte for each tokenizer here."""
    save_tokenizer(tiny_tokenizer, tmp_path)
    words = [f"word{number * 7919 % 99991}" for number in range(3000)]

    def use_and_drop(times: int) -> int:
        for _ in range(times):
            load_tokenizer(tmp_path)(words)
            train_tokenizer(words[:100], 300)(words)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    before = use_and_drop(5)
    assert use_and_drop(20) - before < 6 << 20
