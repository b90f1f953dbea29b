"""Templates that are programs: they end soon, stay small, and cannot reach what is not theirs."""

import pytest
from jinja2 import TemplateError

from fit_jax.errors import InputError
from fit_jax.focus.bounded_templates import BUDGET, TemplateTooCostly, render_bounded
from fit_jax.focus.templates import prompt_form

MESSAGES = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"}]
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
