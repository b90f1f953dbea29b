"""Prompts as tokens: what the tokenizer gives for the whole text, split where construction says."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fit_jax.errors import InputError
from fit_jax.focus.example import TaskText
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder, common_prefix
from fit_jax.focus.tokenizers import EOS, PAD

FOCUS = "Focus on the sentiment."
with_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def whole_ids(encoder, example, instruction, answer) -> list[int]:
    """Prompt and answer tokenised as one text."""
    return encoder.tokenizer(encoder.render(example, instruction, answer), add_special_tokens=False)["input_ids"]


def test_prompt_after_and_before(tiny_tokenizer, text, make_example):
    after = PromptEncoder(tiny_tokenizer, text).render(make_example("Fine."), FOCUS, "positive")
    assert after == f"Is this review negative or positive?\nReview: Fine.\n{FOCUS}\nAnswer: positive{EOS}"
    before = PromptEncoder(tiny_tokenizer, text, place="before").render(make_example("Fine."), FOCUS)
    assert before == f"Is this review negative or positive?\n{FOCUS}\nReview: Fine.\nAnswer:"
    none = PromptEncoder(tiny_tokenizer, text).render(make_example("Fine. \n"), "")
    assert none == "Is this review negative or positive?\nReview: Fine.\nAnswer:"


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("template", ["plain", "auto"])
@with_fixtures
@given(
    content=st.text(max_size=40).filter(lambda t: "<" not in t),
    candidates=st.lists(st.text("ab :.é7", min_size=1), min_size=1, max_size=3),
)
def test_pieces_put_together_equal_the_whole_text_tokenised(
    with_template, text, make_example, place, template, content, candidates
):
    encoder = PromptEncoder(with_template(), text, place, template)
    example = make_example(content, tuple(candidates))
    for instruction in ("", FOCUS):
        (encoded,) = encoder.encode([example], [instruction])
        for candidate, answer in zip(candidates, encoded.answers, strict=True):
            assert [*encoded.prompt, *answer] == whole_ids(encoder, example, instruction, candidate)
    assert encoder.mismatches == 0


def test_answers_are_exactly_the_answer_and_its_end_token(tiny_tokenizer, text, make_example):
    encoder = PromptEncoder(tiny_tokenizer, text)
    (encoded,) = encoder.encode([make_example()], [FOCUS])
    assert tiny_tokenizer.decode(encoded.prompt) == encoder.render(make_example(), FOCUS)
    assert [tiny_tokenizer.decode(answer) for answer in encoded.answers] == [f" negative{EOS}", f" positive{EOS}"]
    assert all(answer[-1] == encoder.end_id == tiny_tokenizer.eos_token_id for answer in encoded.answers)
    assert encoded.prompt.dtype == encoded.answers[0].dtype == np.int32
    assert len(encoded) == len(encoded.prompt) + sum(len(a) - 1 for a in encoded.answers)


def test_prompts_of_one_example_share_the_tokens_up_to_the_focus_instruction(tiny_tokenizer, text, make_example):
    encoder = PromptEncoder(tiny_tokenizer, text)
    a, b = encoder.encode([make_example()] * 2, [FOCUS, "Ignore the keyword."])
    shared = len(tiny_tokenizer(f"{text.instruction}\nReview: {make_example().slots['text']}\n")["input_ids"])
    np.testing.assert_array_equal(a.prompt[:shared], b.prompt[:shared])


def test_a_batch_equals_its_prompts_alone(tiny_tokenizer, text, make_example, reviews):
    encoder = PromptEncoder(tiny_tokenizer, text)
    examples = [make_example(review, (review[:3], "no")) for review in reviews]
    instructions = [FOCUS, "", "Ignore the keyword.", FOCUS, ""]
    for one, example, instruction in zip(encoder.encode(examples, instructions), examples, instructions):
        (alone,) = encoder.encode([example], [instruction])
        np.testing.assert_array_equal(one.prompt, alone.prompt)
        assert list(map(list, one.answers)) == list(map(list, alone.answers))
    assert encoder.encode([], []) == []


def test_a_pad_token_that_is_the_end_token_changes_nothing(tiny_tokenizer, text, make_example):
    (one,) = PromptEncoder(tiny_tokenizer, text).encode([make_example()], [FOCUS])
    tiny_tokenizer.pad_token = tiny_tokenizer.eos_token
    (other,) = PromptEncoder(tiny_tokenizer, text).encode([make_example()], [FOCUS])
    assert list(map(list, one.answers)) == list(map(list, other.answers))


def test_truncation_and_padding_left_on_in_the_tokenizer_are_not_used(tiny_tokenizer, text, make_example):
    expected = PromptEncoder(tiny_tokenizer, text).encode([make_example()], [FOCUS])[0].prompt
    tiny_tokenizer.backend_tokenizer.enable_truncation(4)
    tiny_tokenizer.backend_tokenizer.enable_padding(length=200)
    np.testing.assert_array_equal(
        PromptEncoder(tiny_tokenizer, text).encode([make_example()], [FOCUS])[0].prompt, expected
    )


@pytest.fixture
def straddling_tokenizer(reviews):
    """A tokenizer that makes one token of cue and answer: nothing keeps its merges from crossing words."""
    from tokenizers import Tokenizer, models, trainers
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    alphabet = sorted(set("".join(reviews)) | set("\nRN"))
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=[PAD, EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Answer: negative"] * 9 + ["Answer: positive"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)


def test_a_prompt_that_is_no_prefix_ends_at_the_common_prefix_and_is_counted(straddling_tokenizer, text, make_example):
    encoder = PromptEncoder(straddling_tokenizer, text)
    encoded = encoder.encode([make_example()] * 2, [FOCUS, ""])
    assert encoder.mismatches == 2
    for prompt, instruction in zip(encoded, [FOCUS, ""]):
        assert "Answer" not in straddling_tokenizer.decode(prompt.prompt).replace(" ", "")
        for answer, candidate in zip(prompt.answers, make_example().candidates):
            assert [*prompt.prompt, *answer] == whole_ids(encoder, make_example(), instruction, candidate)


@pytest.mark.parametrize(
    ("sequences", "shared"),
    [([[1, 2]], 2), ([[1, 2, 3], [1, 2]], 2), ([[1, 2], [1, 3], [1, 2]], 1), ([[1], [2, 1]], 0), ([[], [1]], 0)],
)
def test_the_common_prefix_of_all_sequences(sequences, shared):
    assert common_prefix([np.array(s, np.int32) for s in sequences]) == shared


def test_an_overlong_example_is_an_error_with_its_length(tiny_tokenizer, text, make_example):
    (long,) = PromptEncoder(tiny_tokenizer, text).encode([make_example()], [FOCUS])
    assert PromptEncoder(tiny_tokenizer, text, sequence_length=len(long)).encode([make_example()], [FOCUS])
    encoder = PromptEncoder(tiny_tokenizer, text, sequence_length=len(long) - 1)
    message = (
        f"example row-7: {len(long)} tokens with its answers, more than the {len(long) - 1} of a row; shorten the text"
    )
    with pytest.raises(InputError, match=message):
        encoder.encode([make_example()], [FOCUS])


@with_fixtures
@given(words=st.lists(st.text("abcé !", min_size=1, max_size=9), min_size=30, max_size=60), limit=st.integers(90, 130))
def test_cutting_takes_input_alone_and_as_little_as_fits(tiny_tokenizer, text, make_example, words, limit):
    encoder = PromptEncoder(tiny_tokenizer, text, sequence_length=limit, long_text="cut")
    example = make_example("  x " + " ".join(words))
    (whole,) = PromptEncoder(tiny_tokenizer, text).encode([example], [FOCUS])
    (cut,) = encoder.encode([example], [FOCUS])
    assert len(cut) == len(whole) if len(whole) <= limit else limit - 20 < len(cut) <= limit
    assert encoder.cuts == (len(whole) > limit)
    kept = tiny_tokenizer.decode(cut.prompt)
    start, end = f"{text.instruction}\nReview:   x", f"\n{FOCUS}\nAnswer:"
    assert kept.startswith(start)
    assert kept.endswith(end)
    assert kept.removesuffix(end) in encoder.render(example, "")
    assert list(map(list, cut.answers)) == list(map(list, whole.answers))


def test_cutting_shortens_the_longest_of_several_texts(tiny_tokenizer, make_example):
    from dataclasses import replace

    pair = TaskText(name="p", instruction="I.", input_template="A {a}\nB {b}", cue="Answer:", core="", spurious={})
    example = replace(make_example(), slots={"a": "short text", "b": "long text " * 50})
    encoder = PromptEncoder(tiny_tokenizer, pair, sequence_length=80, long_text="cut")
    kept = tiny_tokenizer.decode(encoder.encode([example], [""])[0].prompt)
    assert "A short text\nB long text long" in kept


def test_no_room_for_any_input_is_an_error_even_when_cutting(tiny_tokenizer, text, make_example):
    encoder = PromptEncoder(tiny_tokenizer, text, sequence_length=20, long_text="cut")
    with pytest.raises(InputError, match=r"example row-7: .* even without its input; shorten its answers"):
        encoder.encode([make_example("a b c " * 9)], [FOCUS])


def test_control_tokens_in_the_data_are_an_error(tiny_tokenizer, text, make_example):
    encoder = PromptEncoder(tiny_tokenizer, text)
    with pytest.raises(InputError, match="example row-7: its text holds '<eos>', which the tokenizer reads"):
        encoder.encode([make_example("so it ends <eos>")], [FOCUS])
    with pytest.raises(InputError, match="holds '<pad>'"):
        encoder.encode([make_example("so", ("yes<pad>",))], [FOCUS])
    with pytest.raises(InputError, match=r"holds '.udce9'"):  # a byte of the command line that is no UTF-8
        encoder.encode([make_example("caf\udce9")], [FOCUS])


def test_a_missing_slot_is_an_error(tiny_tokenizer, make_example):
    text = TaskText(name="mine", instruction="", input_template="{title}: {text}", cue="Answer:", core="", spurious={})
    with pytest.raises(
        InputError, match=r"example row-7: the input template of task mine uses slot 'title', .* has text"
    ):
        PromptEncoder(tiny_tokenizer, text).encode([make_example()], [""])


def test_encoded_prompt_is_immutable():
    prompt = EncodedPrompt(np.zeros(3, np.int32), ())
    with pytest.raises(AttributeError):
        prompt.prompt = np.ones(3, np.int32)


def test_start_token_is_put_once_where_the_tokenizer_puts_one(tiny_tokenizer, text, make_example):
    from tokenizers import processors

    tokenizer = tiny_tokenizer
    tokenizer.add_tokens(["<bos>"], special_tokens=True)
    tokenizer.bos_token = "<bos>"
    plain = PromptEncoder(tokenizer, text).encode([make_example()], [FOCUS])[0].prompt
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    encoder = PromptEncoder(tokenizer, text)
    started = encoder.encode([make_example()], [FOCUS])[0].prompt
    assert list(started) == [tokenizer.bos_token_id, *plain]
    assert encoder.render(make_example(), FOCUS).startswith("<bos>Is this")
