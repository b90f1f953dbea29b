"""Pages: alone in the world, with scripts of their own only, and words that are explained."""

import base64
import hashlib
import re

import pytest

from fit_jax.html import WORDS, Words, page

PAGE = page("A title", "a subtitle", "<p>body</p>", [{"prompt": "x"}], "one of one")


def test_the_policy_lets_no_script_run_but_the_pages_own():
    (digest,) = re.findall(r"script-src 'sha256-([^']+)'", PAGE)
    (script,) = re.findall("<script>(.*?)</script>", PAGE, flags=re.DOTALL)
    assert base64.b64decode(digest) == hashlib.sha256(script.encode()).digest()
    assert "default-src 'none'" in PAGE


def test_light_dark_and_narrow_are_provided_for():
    assert '<meta name="color-scheme" content="light dark">' in PAGE
    assert "@media (prefers-color-scheme: dark)" in PAGE
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in PAGE


def test_every_word_is_defined_where_its_button_points():
    assert {*["iid", "low", "high", "flipped", "shifted", "y_s", "core", "spurious", "rho"]} <= WORDS.keys()
    marked = Words().explained(" ".join(WORDS))
    pointed = re.findall('aria-describedby="([^"]+)"', marked)
    assert len(pointed) == len(WORDS)
    assert all(PAGE.count(f'<dd id="{identity}">') == 1 for identity in pointed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("low by chance, high, natural, rho", ["rho"]),
        ("y_s and iid", ["y_s", "iid"]),
        ("slow score, whoever, cores", []),
        ("iid <b> iid", ["iid"]),
    ],
)
def test_prose_is_left_its_english_words(text, words):
    found = Words().explained(text, prose=True)
    assert re.findall(">([^<]+)</button>", found) == words
    assert "<b>" not in found


def test_a_page_without_examples_hides_their_section():
    assert re.search('aria-labelledby="browse" hidden>', page("t", "s", ""))
    assert not re.search('aria-labelledby="browse" hidden>', PAGE)
