"""The match rule of freely written answers."""

import json

import pytest

from fit_jax.evaluation.matching import UNPARSEABLE, match, normalise

PEOPLE = ("The grandfather", "The grandson", "Can't be determined")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The grandfather", 0),
        ("  the GRANDFATHER.\n", 0),
        ("grandson", 1),
        ("“The grandson!”", 1),
        ("Can’t be determined", 2),
        ("cant be determined", 2),
        ("It was the grandson who fell asleep.", 1),
        ("The answer can't be determined from the context", 2),
        ("The grandfather or the grandson", UNPARSEABLE),
        ("The grandfathers", UNPARSEABLE),
        ("Nobody knows", UNPARSEABLE),
        ("grand father", UNPARSEABLE),
        ("", UNPARSEABLE),
        ("...", UNPARSEABLE),
    ],
)
def test_exact_then_contained_else_unparseable(text, found):
    assert match(text, PEOPLE) == found


def test_a_candidate_within_a_longer_one_that_was_said_does_not_count():
    candidates = ("the man", "the man in the red hat", "unknown")
    assert match("I think the man in the red hat did", candidates) == 1
    assert match("I think the man did", candidates) == 0
    assert match("the man", candidates) == 0


def test_equal_candidates_are_the_first_and_articles_may_be_all_there_is():
    assert match("Maria", ("maria", "Maria!", "unknown")) == 0
    assert normalise("The") == ("the",)
    assert match("an A", ("A", "B")) == 0
    assert match("", ("?", "yes")) == UNPARSEABLE


def test_compatible_characters_are_the_same_word():
    assert normalise("ﬁne ＡＢＣ snake_case") == ("fine", "abc", "snake", "case")


def test_every_answer_of_bbq_is_found_alone_and_in_a_sentence(data_dir):
    for file in sorted((data_dir / "bbq").glob("*.jsonl")):
        for line in file.read_text().splitlines()[::60]:
            row = json.loads(line)
            candidates = tuple(row[f"ans{number}"] for number in range(3))
            for number, candidate in enumerate(candidates):
                assert match(candidate, candidates) == number
                sentence = f"I think it is {candidate[0].lower()}{candidate[1:]}, given the context."
                assert match(sentence, candidates) == number, candidates
