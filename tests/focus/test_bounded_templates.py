"""Templates that are programs: they end soon, stay small, and cannot reach what is not theirs."""

import json

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fit_jax.errors import InputError
from fit_jax.focus.bounded_templates import BUDGET, TemplateTooCostly, render_bounded
from fit_jax.focus.templates import prompt_form

MESSAGES = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"}]
# So few turns that they cost little themselves.
MANY = "{% for i in range(999) %}{% if IT %}{% endif %}{% endfor %}"
# A value of a few tuples, whose items are 2^40 when each is looked at.
TWINS = (
    "{% set ns = namespace(x=(1,), y=(1,)) %}"
    "{% for i in range(40) %}{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
)
SOUGHT = "{% set a = 'a' * 29000 %}{% set b = 'a' * 7000 ~ 'b' ~ 'a' * 7000 %}"
DOUBLED = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = OF %}{% endfor %}{{ ns.x }}"
COSTLY = {
    "a long text": "{{ 'a' * 10000000000 }}",
    "a long list": "{{ [1] * 10000000000 }}",
    "a long list of long lists": "{{ [[1] * 500] * 500 }}",
    "a high power": "{{ 9 ** 9 ** 9 }}",
    "a huge product": "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "loops within loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursive loops": "{% for a in [1] recursive %}{{ loop(range(9999)) if loop.depth < 4 }}{% endfor %}",
    "text in loops": "{% for a in range(9999) %}" + "a" * 1000 + "{% endfor %}",
    "text in a macro": "{% macro f() %}{% for a in range(9999) %}"
    + "a" * 9999
    + "{% endfor %}{% endmacro %}{% set x = f() %}",
    "joining": DOUBLED.replace("OF", "ns.x ~ ns.x"),
    "adding": DOUBLED.replace("OF", "ns.x + ns.x"),
    "a block": DOUBLED.replace("OF", "[ns.x, ns.x]|join"),
    "replacing": DOUBLED.replace("OF", "ns.x.replace('a', ns.x)"),
    "a replacing filter": DOUBLED.replace("OF", "ns.x|replace('a', ns.x)"),
    "a join": "{{ 'aaaaaaaaaa'.join(range(99999)|map('string')|list) }}",
    "a format": "{{ '{:1000000000}'.format(1) }}",
    "a nested format": "{{ '{:{}}'.format(1, 1000000000) }}",
    "an old format": "{{ '%1000000000d' % 1 }}",
    "a width": "{{ 'a'.center(1000000000) }}",
    "bytes": "{{ (1).to_bytes(1000000000) }}",
    "batches": "{{ [1]|batch(1000000000, 1)|list }}",
    "indented JSON": "{{ messages|tojson(indent=1000000000) }}",
    "lists compared": MANY.replace("IT", "range(99999)|list == 1"),
    "texts compared": "{% set a = 'a' * 9999 %}{% set b = 'a' * 9998 ~ 'b' %}" + MANY.replace("IT", "a < b"),
    "tuples compared": TWINS + "{{ ns.x == ns.y }}",
    "tuples tested": TWINS + "{{ ns.x is eq(ns.y) }}",
    "a tuple as a key": TWINS + "{{ {ns.x: 1}|length }}",
    "a tuple looked up": TWINS + "{{ {}[ns.x] }}",
    "a tuple in a list": TWINS + "{{ [ns.x].index(ns.y) }}",
    "a change of tuples": TWINS + "{% for a in [1, 2] %}{{ loop.changed(ns.x if loop.first else ns.y) }}{% endfor %}",
    "a namespace written": TWINS + "{{ ns|string|length }}",
    "a range searched": MANY.replace("IT", "1.5 in range(99999)"),
    "a text searched": SOUGHT + MANY.replace("IT", "b in a"),
    "a text searched by a test": SOUGHT + MANY.replace("IT", "b is in(a)"),
    "a text searched by a method": SOUGHT + MANY.replace("IT", "a.find(b)"),
    "stripping": "{% set a = 'a' * 90000 %}{% set b = 'b' * 90000 ~ 'a' %}" + MANY.replace("IT", "a.strip(b)"),
    "slices": "{% set a = 'a' * 9999 %}" + MANY.replace("IT", "a[1:]"),
    "a long body": MANY.replace("IT", " or ".join(["(0 and 1)"] * 9000)),
    "calls of a long macro": "{% macro f(n) %}{% if n %}"
    + "{% if 0 and 1 %}{% endif %}" * 500
    + "{{ f(n - 1) }}{{ f(n - 1) }}"
    "{% endif %}{% endmacro %}{{ f(14) }}",
    "a sum of lists": "{{ ([[1]] * 50000)|sum(start=[]) }}",
    "indented by text": "{{ ('\\n' * 50000)|indent('a' * 10000) }}",
    "deep JSON": "{% set ns = namespace(x=[1] * 9999) %}{% for i in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}"
    "{{ ns.x|tojson(indent=99)|length }}",
    "replacing by name": "{{ ('a' * 5000)|replace(old='a', new='b' * 50000) }}",
    "a join of what is made": "{{ ('x' * 5000).join(range(99999)|map('string')) }}",
    "a repeated value in a format": "{{ ('%(a)s' * 5000) % {'a': 'b' * 50000} }}",
    "a written number": "{{ 0x" + "f" * 9999 + " // 3 }}",
    "growing by minus": "{% set ns = namespace(x=1) %}"
    "{% for i in range(99) %}{% set ns.x = ns.x - (0 - ns.x) %}{% endfor %}",
    "more steps for itself": "{% for i in range(9999) %}{% for m in messages|map('#turns', -99) %}"
    "{% for x in m %}{% endfor %}{% endfor %}{% endfor %}",
    "bytes of a text": "{{ 'a'.encode() }}",
    "a long template": " " * 60_000,
    "iterators": "{% for a in range(99999) %}{% set x = range(99999)|max %}{% endfor %}",
}
WRONG = {
    "division": "{{ 1 / 0 }}",
    "overflow": "{{ 10.0 ** 60 ** 2 }}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "half a character": "{{ '\\ud800' }}",
    "syntax": "{% for %}",
    "a file": "{% include '/etc/passwd' %}",
    "Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ namespace.__init__.__globals__ }}",
    "its own exception": "{{ raise_exception('no system role') }}",
}


@pytest.mark.parametrize("kind", COSTLY)
def test_a_costly_template_is_stopped(kind):
    with pytest.raises(TemplateError) as error:
        render_bounded(COSTLY[kind], {"messages": MESSAGES})
    assert isinstance(error.value, TemplateTooCostly)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_template_is_an_error_of_templates(kind):
    with pytest.raises(TemplateError):
        render_bounded(WRONG[kind], {"messages": MESSAGES})


def test_a_template_of_ordinary_length_spends_little():
    template = "{% for m in messages %}{{ m['role'] ~ ': ' + m.content|trim }}\n{% endfor %}"
    assert render_bounded(template, {"messages": MESSAGES * 100}).count("Question") == 100
    with pytest.raises(TemplateTooCostly, match=str(BUDGET)):
        render_bounded(template, {"messages": MESSAGES * 10_000})


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role not in ['user'] }}{{ m['content'][1:-1] }}{{ messages[loop.index0]['role'] }}"
        "{{ 'a' < 'b' < 'c' }}{{ 'er' in m.role and not ('x' in m) }}{{ loop.changed(m.role) }}{% endfor %}",
        "{% macro f(x) %}[{{ x }}]{% if caller %}{{ caller() }}{% endif %}{% endmacro %}{{ f('a') }}"
        "{% call f('b') %}c{% endcall %}{{ {'a': 1, ('b', 2): [3]} }}{{ messages|tojson(indent=2) }}",
        "{% for a in [1, [2, [3]]] recursive %}{% if a is iterable %}<{{ loop(a) }}>{% else %}{{ a }}{% endif %}"
        "{% endfor %}{% block b %}x{% endblock %}{{ self.b() }}{{ 5 // 2 - 1 / 2 }}{{ 1 in [1] == true }}",
        "{{ messages|selectattr('role', 'in', ['user'])|list|length }}{{ 'ab'|replace('a', 'c') }}"
        "{{ messages|map(attribute='content')|join('-') }}{{ 'x'|indent(2, true) }}{{ 'A' in messages|map('string') }}",
    ],
)
def test_charges_change_nothing_of_what_is_written(template):
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.filters["tojson"] = json.dumps
    assert render_bounded(template, {"messages": MESSAGES}) == plain.from_string(template).render(messages=MESSAGES)


def test_what_transformers_offers_is_there(with_template):
    template = (
        "{%- for m in messages %}{% generation %}{{ m | tojson }}{% endgeneration %}{{ loop.index }}{{ loop.length }}"
        "{% if loop.last %}{% break %}{% endif %}{{ '%s=%d' % ('a', 1) }}{{ '{}'.format(m.role) }}{% endfor %}"
        "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join(', ') }}"
    )
    ours = render_bounded(template, {"messages": MESSAGES})
    assert ours == with_template(template).apply_chat_template(MESSAGES, tokenize=False)
    assert render_bounded("{{ strftime_now('%d %b %Y') }}", {}) == "26 Jul 2024"


@pytest.mark.parametrize("template", [COSTLY["a long text"], WRONG["division"], WRONG["nesting"]])
def test_a_tokenizer_with_a_bad_template_is_one_line(template, with_template):
    with pytest.raises(InputError, match=r"^chat template of [^\n]{,200}; set tokenizer.template to plain"):
        prompt_form(with_template(template), "Answer:", "auto")
