"""`prompt.py` builds the prompts that a model was trained on, to the token."""

from dataclasses import replace

import pytest

from fit_jax.focus.prompt_file import prompt_file
from fit_jax.focus.prompts import PromptEncoder

INSTRUCTIONS = ("", "Please focus on the sentiment.", " Leave {it} aside. ")


def built(encoder: PromptEncoder) -> dict:
    """What the file of an encoder defines."""
    exec(compile(prompt_file(encoder), "prompt.py", "exec"), space := {})
    return space


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("template", ["plain", "auto"])
def test_its_prompts_have_the_tokens_of_training(template, place, with_template, text, make_example, reviews):
    tokenizer = with_template()
    encoder = PromptEncoder(tokenizer, text, place, template)
    space = built(encoder)
    for review in (*reviews, "two\nlines \\ of {it}, 'quoted' \"twice\""):
        for instruction in INSTRUCTIONS:
            example = make_example(review)
            (expected,) = encoder.encode([example], [instruction])
            prompt = space["build_prompt"](instruction, **example.slots)
            assert prompt == encoder.render(example, instruction)
            assert tokenizer(prompt, add_special_tokens=False)["input_ids"] == expected.prompt.tolist()
    assert tokenizer.convert_tokens_to_ids(space["END"]) == encoder.end_id


def test_it_holds_a_paraphrase_of_every_focus_instruction(tiny_tokenizer, text):
    found = built(PromptEncoder(tiny_tokenizer, replace(text, spurious={"keyword": "the keyword", "tone": "the tone"})))
    assert len(found["INSTRUCTIONS"]) == 2 * 5 - 1  # focus(core) is the same for both
    assert found["INSTRUCTIONS"]["focus(core)"] == "Please focus on the sentiment."
    assert "tone" in found["INSTRUCTIONS"]["focus(tone) & ignore(core)"]


def test_words_that_look_like_python_are_only_words(tiny_tokenizer, text):
    hostile = replace(text, instruction='""" + exit() # {x}', input_template="'{text}' {{x}}")
    space = built(PromptEncoder(tiny_tokenizer, hostile))
    assert space["build_prompt"](text="a") == '""" + exit() # {x}\n\'a\' {x}\nAnswer:'


@pytest.mark.parametrize("column", ["instruction", "verified purchase", "class", "texts", 'size "EU" \\N', "a\nb"])
def test_columns_of_any_name_are_asked_for(tiny_tokenizer, text, column):
    space = built(PromptEncoder(tiny_tokenizer, replace(text, input_template=f"{{{column}}} {{text}}")))
    assert space["build_prompt"]("Please.", **{column: "a", "text": "b"}).splitlines()[1:-1] == ["a b", "Please."]
    assert space["TEXTS"] == (column, "text")
    for texts in ({"text": "b"}, {column: "a", "text": "b", "other": "c"}):
        with pytest.raises(TypeError, match="by name these texts: "):
            space["build_prompt"]("Please.", **texts)
