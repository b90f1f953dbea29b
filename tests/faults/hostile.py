"""Hostile values, texts and bytes, drawn at random: what a file that someone else wrote may hold."""

import codecs
import json
from random import Random
from typing import Any

# Values that JSON's own writer cannot write, by the text that stands for them until then.
RAW = {
    "@deep list@": "[" * 3000 + "]" * 3000,
    "@deep object@": '{"a":' * 3000 + "1" + "}" * 3000,
    "@digits@": "9" * 5000,
    "@exponent@": "1e999999",
}
NUMBERS = (0, -1, 1, 2, 7, 10**9, 2**31 - 1, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**40, 0.5, -0.5, 1.5)
NUMBERS += (1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    " ",
    "1",
    "-1",
    "true",
    "null",
    "abc",
    "\0",
    "a\0b",
    "\ud800",
    "a\udfffb",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\u202eabc",
    "\ufffd",
    "ſ",
    "İ",
    "ß",
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "[red]a[/red]",
    "[/nope]",
    "[link=file:///etc/passwd]a[/link]",
    "`|`*_a_*",
    "a\nb",
    "a\r\nb",
    "{text.__class__}",
    "{0}",
    "{",
    "}}",
    "%s%n",
    "../../../etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    "~/x",
    "gs://bucket/x",
    "http://localhost/x",
    "a" * 300,
    "é" * 300,
    "a" * 10_000,
    "\u0301" * 500,
    "=1+1",
    "$HOME",
    "; rm x",
    "--config",
    "NaN",
    "1e999",
)


def number(random: Random) -> Any:
    """A number that most fields cannot have."""
    return random.choice(NUMBERS)


def text(random: Random) -> str:
    """A text that something may stumble over."""
    if random.random() < 0.7:
        return random.choice(TEXTS)
    return "".join(
        chr(random.choice((random.randrange(128), random.randrange(0x3000)))) for _ in range(random.randrange(40))
    )


def value(random: Random, depth: int = 2) -> Any:
    """A value of any kind that JSON can have, or cannot."""
    kind = random.randrange(9 if depth else 6)
    if kind < 2:
        return number(random)
    if kind < 4:
        return text(random)
    if kind == 4:
        return random.choice((None, True, False))
    if kind == 5:
        return random.choice((*RAW, [], {}))
    inner = [value(random, depth - 1) for _ in range(random.choice((1, 2, 3, 50)))]
    return {text(random): part for part in inner} if kind == 6 else inner


def places(document: Any, above: tuple = ()) -> list[tuple]:
    """The path of every value in a document."""
    inner = document.items() if isinstance(document, dict) else ()
    inner = enumerate(document) if isinstance(document, list) else inner
    return [above] * bool(above) + [path for key, part in inner for path in places(part, (*above, key))]


def mutated(random: Random, document: Any, times: int | None = None) -> Any:
    """A copy of a JSON document in which a few places have other values, other names, or are gone."""
    document = json.loads(json.dumps(document))
    for _ in range(times or random.choice((1, 1, 1, 2, 3))):
        known = places(document)
        if not known:
            return value(random)
        *above, key = random.choice(known)
        holder = document
        for step in above:
            holder = holder[step]
        kind = random.randrange(12)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[text(random)] = holder.pop(key)
        elif kind == 2:
            holder[key] = [holder[key]]
        elif kind == 3:
            holder[key] = str(holder[key])
        elif kind == 4 and isinstance(holder, list):
            holder += [holder[key]] * random.choice((1, 100))
        elif kind == 5 and isinstance(holder, dict):
            holder[text(random)] = value(random)
        else:
            holder[key] = value(random)
    return document


def to_json(document: Any) -> bytes:
    """JSON, with what its writer cannot write."""
    written = json.dumps(document)
    for name, raw in RAW.items():
        written = written.replace(json.dumps(name), raw)
    return written.encode()


def damaged(random: Random, content: bytes) -> bytes:
    """A file's bytes, cut off, flipped, swapped or encoded in another way."""
    at = random.randrange(len(content) + 1)
    end = min(len(content), at + random.choice((1, 4, 64, 4096)))
    noise = random.randbytes(random.choice((1, 4, 64)))
    as_text = content.decode("utf-8", "replace")
    return random.choice(
        (
            lambda: content[:at],
            lambda: content[:at] + content[end:],
            lambda: content[:at] + noise + content[at:],
            lambda: content[:at] + noise + content[at + len(noise) :],
            lambda: content[:at] + bytes(end - at) + content[end:],
            lambda: content[:at] + b"\xff" * (end - at) + content[end:],
            lambda: (
                content[:at]
                + bytes(byte ^ 1 << random.randrange(8) for byte in content[at : at + 1])
                + content[at + 1 :]
            ),
            lambda: content + content[at:],
            lambda: b"",
            lambda: noise,
            lambda: codecs.BOM_UTF8 + content,
            lambda: as_text.encode("utf-16", "replace"),
            lambda: content.replace(b"\n", b"\r"),
            lambda: content.replace(b'"', b"'"),
        )
    )()
