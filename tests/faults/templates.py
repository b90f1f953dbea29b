"""Chat templates drawn at random from a grammar: most of them costly, wrong, or both."""

from random import Random

NAMES = (
    "messages", "m", "x", "ns.x", "bos_token", "eos_token", "m['content']", "m.role", "messages[0]", "none", "loop",
)  # fmt: skip
CONSTANTS = (
    "1", "0", "-1", "99", "1000", "99999", "10000000000", "1.5", "'a'", "'ab'", "'%1000000d'", "'{:99999}'", "[1]",
    "true", "none", "'<|im_end|>'", "()", "{'a': 1}", "'a' * 1000",
)  # fmt: skip
OPERATORS = (
    "+", "-", "*", "**", "/", "//", "%", "~", "in", "==", "and", "<",
)  # fmt: skip
FILTERS = (
    "length", "string", "trim", "upper", "list", "join", "tojson", "int", "first", "last", "sum", "reverse", "sort",
    "map('upper')", "replace('a', 'aaaaaaaaaa')", "tojson(indent=999)", "join(x)", "center(99999)", "indent(9999)",
    "batch(99999)", "default('a')", "map(attribute='content')", "format(1)", "urlize", "pprint", "unknown",
)  # fmt: skip
METHODS = (
    "strip()", "split('a')", "replace('a', x)", "join(messages)", "format(x)", "center(9999999)", "zfill(99999)",
    "__class__", "__class__.__mro__[1].__subclasses__()", "items()", "append(1)", "upper()", "title", "x.y.z",
)  # fmt: skip
CALLS = (
    "range(99999)", "range(10)", "f(x)", "namespace(x='ab')", "raise_exception(x)", "strftime_now('%Y')",
    "dict(a=x)", "lipsum(n=9999)", "cycler(1, 2)", "joiner(x)", "loop(messages)", "caller()", "self.x()", "super()",
)  # fmt: skip


def expression(random: Random, depth: int) -> str:
    """An expression."""
    kind = random.randrange(8) if depth else 0
    if kind <= 1:
        return random.choice(NAMES + CONSTANTS)
    inner = expression(random, depth - 1)
    if kind <= 3:
        return f"({inner} {random.choice(OPERATORS)} {expression(random, depth - 1)})"
    if kind == 4:
        return f"({inner})|{random.choice(FILTERS)}"
    if kind == 5:
        return f"({inner}).{random.choice(METHODS)}"
    if kind == 6:
        return random.choice(CALLS)
    return f"({inner} if {expression(random, depth - 1)} else {expression(random, depth - 1)})"


def statement(random: Random, depth: int) -> str:
    """A statement, or text."""
    kind = random.randrange(11) if depth else random.randrange(3)
    if kind == 0:
        return random.choice(("text ", "<|im_start|>", "{{", "{% ", "\ud800", "a" * 1000, "\x1b[31m", "{% break %}"))
    if kind <= 2:
        return "{{ " + expression(random, 3) + " }}"
    body = "".join(statement(random, depth - 1) for _ in range(random.choice((1, 2, 3))))
    value = expression(random, 2)
    if kind <= 4:
        return f"{{% for m in {value} %}}{body}{{% endfor %}}"
    if kind == 5:
        return f"{{% for m in messages recursive %}}{body}{{{{ loop({value}) }}}}{{% endfor %}}"
    if kind == 6:
        loop = f"{{% for i in range(99) %}}{{% set ns.x = {value} %}}{body}{{% endfor %}}"
        return "{% set ns = namespace(x='ab') %}" + loop
    if kind == 7:
        return f"{{% macro f(x) %}}{body}{{{{ f({value}) }}}}{{% endmacro %}}{{{{ f(1) }}}}"
    if kind == 8:
        return f"{{% set x = {value} %}}{body}"
    if kind == 9:
        return f"{{% set x %}}{body}{{% endset %}}{body}"
    return random.choice(
        (
            f"{{% if {value} %}}{body}{{% endif %}}",
            "{% include 'a' %}",
            "{% generation %}" + body + "{% endgeneration %}",
        )
    )


def random_template(random: Random) -> str:
    """A template; one in three is a good one with something bad in it."""
    body = statement(random, 3)
    if random.random() < 1 / 3:
        return "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}" + body + "{% endfor %}"
    if random.random() < 0.2:
        return "{{ " + "(" * random.choice((10, 5000)) + "1" + ")" * random.choice((10, 5000)) + " }}"
    return body
