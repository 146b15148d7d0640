#!/usr/bin/env python3
"""Makes templates.json: small chat templates, one for each construct of the language, and what jinja2 renders from them.

    make_templates.py OUT.json

jinja2 is set up as Hugging Face's transformers do (see tests/tools/compare_templates.py). "text" is null where it refuses.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from compare_templates import NOW, reference  # noqa: E402

INPUTS = {
    "messages": [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "<think>a</think>\n\nb", "n": 1},
                 {"role": "user", "content": "Grüße, 你好 \U0001f600"}],
    "tools": None, "flag": True, "off": False, "nothing": None, "n": 7, "real": 2.5, "big": 1e20, "small": 1.5e-7,
    "text": "one two  three", "lines": "a\nb\n\nc", "words": ["b", "A", "c", "a", "B"], "numbers": [3, 1, 2, 3],
    "pairs": {"b": 1, "A": [1, 2.0, None, True], "c": {"x": "ü\"\\\n\t\x01\x7f/", "y": []}, "d": {}},
    "rows": [{"k": "x", "v": 2, "on": True}, {"k": "Y", "v": 1, "on": False}, {"k": "z", "v": 3}],
    "empty": "", "none_list": [], "mixed": "straße ǆ ΑΣ ΣΑΣ o'neil x-ray ﬁ", "items": "shadow",
}

EXPRESSIONS = """
1 + 2 * 3 - 4|abs|-7 // 2|7 // -2|-7 % 3|7 % -3|7 / 2|2 ** 10|2 ** -1|2.5 % 1|-7.5 // 2|1e3|0x1f + 0b11 + 0o17 + 1_000
'a' 'b' ~ 1 ~ none ~ true ~ 1.0|"x" * 3|[1] * 2 + [2]|(1, 2) + (3,)|'%s-%05.1f-%d-%x-%%' % ('a', 2.25, 7, 255)|'%r' % 'a'
'{} {1} {0!r} {x}'.format('a', 'b', x=1)|'{} {:>5}|{:<5}|{:^5}|{:05d}|{:,}|{:.2f}|{{}}'.format(1, 'a', 'b', 'c', 42, 1234567, 2.345)
'{0[a]} {1[0]}'.format({'a': 1}, [2])|not 1 == 1|1 < 2 < 3|1 < 3 < 2|'a' < 'b'|'a' in 'abc'|'z' not in 'abc'|1 in [1.0]|'b' in pairs
1 if flag else 2|1 if off|(1 if off) is defined|flag and 5|off or 'x'|nothing and 1|not flag|1 == true|1.0 == 1|'1' == 1|[1, 2] == [1, 2]
{'a': 1} == {'a': 1}|missing|missing is undefined|missing == missing|missing ~ 'x'|missing.x|missing + 1|missing()|missing|length
text[0]|text[-1]|text[1:3]|text[::-1]|text[5:2:-1]|text[-3:]|text[:99]|text[99]|text[::2]|messages[2].content[7:]|messages[2].content[-1]
messages[-1]['role']|messages[9] is defined|numbers[1:]|numbers[::-1]|numbers[:-1]|(1,2,3)[1:]|numbers[0:0]|text['x'] is defined|n.x is defined
pairs.items()|list|length|pairs.b|pairs['b']|pairs.get('q')|pairs.get('q', 3)|pairs.keys()|list|pairs.values()|list|pairs.zzz is defined
pairs.A[1]|pairs.c.x|items.upper()|pairs['items'] is defined|{'items': 5}.items is callable|{'items': 5}['items']|pairs.__class__
text.split()|text.split(' ')|text.split(' ', 1)|text.rsplit(' ', 1)|text.split(maxsplit=1)|text.split('')|'a,b,,c'.split(',')|''.split()|''.split(',')
' x '.strip()|'xxaxx'.strip('x')|'xxaxx'.lstrip('x')|'xxaxx'.rstrip('x')|'abcba'.strip('ab')|'\\u00a0x\\u3000'.strip()|'aXbX'.replace('X', 'y', 1)|'abc'.replace('', '-')
text.startswith('one')|text.endswith(('x', 'three'))|text.find('two')|text.find('zzz')|text.rfind('t')|text.count('e')|text.index('two')|text.index('zzz')
text.title()|mixed.title()|mixed.upper()|mixed.lower()|mixed.capitalize()|mixed|title|mixed|capitalize|mixed|upper|'x'.join(['a', 'b'])|'x'.join([1])
lines.splitlines()|lines.splitlines(true)|'a b'.partition(' ')|'a b c'.rpartition(' ')|'ab'.removeprefix('a')|'ab'.removesuffix('b')|'ab'.center(5, '*')|'ab'.ljust(4) ~ '|'
'ab'.rjust(4)|'12'.isdigit()|'ab'.isalpha()|' '.isspace()|'AB'.isupper()|'ab'.islower()|'a1'.isalnum()|''.isdigit()|words.index('c')|numbers.count(3)|words.append('x')
pairs.update({'x': 1})|words.pop()|pairs.pop('b')|'a'.zfill is defined|flag|string|nothing|string|words|string|pairs|string|(1,)|string|'it\\'s'|list|string
words|join|words|join(', ')|numbers|join('-')|rows|join(',', attribute='k')|words|first|words|last|none_list|first|words|length|text|length|n|length
words|sort|words|sort(reverse=true)|words|sort(case_sensitive=true)|rows|sort(attribute='v')|map(attribute='k')|list|words|unique|list|words|reverse|list|text|reverse
numbers|min|numbers|max|numbers|sum|rows|sum(attribute='v')|words|min|rows|max(attribute='v')|string|none_list|max is defined|numbers|unique|list|[1, 'a']|sort
rows|map(attribute='k')|list|rows|map(attribute='q', default='-')|list|words|map('upper')|list|words|map('replace', 'a', 'x')|list|nothing|map('upper')|list
rows|selectattr('on')|list|length|rows|selectattr('v', 'gt', 1)|map(attribute='k')|join|rows|rejectattr('on')|list|length|numbers|select('odd')|list|numbers|reject('eq', 3)|list
rows|selectattr('on', 'defined')|list|length|words|select('in', ['a', 'b'])|list|rows|map(attribute='k') is iterable|rows|map(attribute='k') is sequence|(rows|map(attribute='k'))[0] is defined
pairs|dictsort|list|length|pairs|items|list|length|{'b': 1, 'A': 2}|dictsort|{'b': 1, 'A': 2}|dictsort(true)|{'b': 1, 'A': 2}|dictsort(by='value', reverse=true)|missing|items|list
missing|default('d')|nothing|default('d')|nothing|default('d', true)|empty|d('x', boolean=true)|'5'|int|'x'|int|'x'|int(3)|'ff'|int(base=16)|2.9|int|'2.5'|int|'2.5'|float|'x'|float
-3|abs|2.567|round(1)|2.5|round|2.1|round(method='ceil')|n is number|real is float|n is integer|flag is boolean|flag is number|flag is integer|'a' is string|pairs is mapping
words is sequence|words is iterable|pairs is iterable|n is iterable|'x' is iterable|missing is iterable|nothing is none|flag is true|off is false|n is odd|n is even|n is divisibleby 7
n is eq 7|n is not ne 7|n is gt 3|n is le 7|n is in [7]|'a' is lower|'A' is upper|n is sameas n|range is callable|'abs' is filter|'odd' is test|n is lt 8 and n is ge 7
pairs|tojson|pairs|tojson(indent=2)|pairs|tojson(ensure_ascii=true)|pairs|tojson(sort_keys=true)|pairs|tojson(separators=(',', ':'))|messages|tojson|'\\u2028</script>'|tojson|[]|tojson(indent=1)
{1: 2, none: 3, true: 4, 1.5: 5}|tojson|(1, 2)|tojson|big|tojson|small|tojson|missing|tojson|real|tojson|range(3)|list|range(1, 7, 2)|list|range(5, 0, -2)|list|range(0)|list
lines|indent|lines|indent(2, true)|lines|indent('> ')|lines|indent(2, blank=true)|' x '|trim|'xax'|trim('x')|text|replace('one', '1')|text|replace('e', 'E', 2)|n|replace('7', '8')
'<a href="x">&\\'</a>'|escape|'<b>'|safe + '<c>'|'<b>'|e|safe|('<b>'|safe).upper() + '<'|('x'|safe) ~ '<'|text|wordcount|'%s %s'|format('a', 1)|pairs|attr('b') is defined|text|string|length
big|1e16|1e15|123456789012345.6|small|0.0001|0.00001|1.0|-0.5|100000000000000000.0|3.0e-5|1/3|real * 2|7 / 7|n // 2.0|true + true|'a' + 1|[1] + (1,)|none + 1|1 / 0|'x' - 'y'
strftime_now('%Y-%m-%d')|strftime_now('%B %d, %Y, %H:%M')|dict(a=1, b='x')|namespace(a=1).a|namespace(a=1).b is defined|raise_exception('no')|range(200000)|length
"\\n\\t\\\\ \\x41 \\u00e9 \\101 \\q"|'''x'''|{'a': {'b': [1, {'c': 2}]}}.a.b[1].c|[[1, 2], [3]][0][1]|[1, 2, ]|{'a': 1, }|()|(1)|(1,)|1, 2|{}|[]|- n|+ n|not not n|--n
pairs.A.0|words.1|text.0|1 is number and 2 is number|'a' ~ 'b' in 'ab'|1 + 1 ~ 1 + 1|n|string ~ 'x'|(n)|(n|string)|n|abs + 1|n is defined|string|words[n] is defined|'abc'[none:2]|'abc'['a':]
'a' 'b'|length|''|title|'ÀÉ ñ'|lower|'ΌΣΟΣ'.lower()|'ŉ ß ﬃ'.upper()|'ǆ ǅ'.title()|'x' in nothing|nothing in words|{} in [{}]|[] in pairs|1 in 'a'|words in words|'b' in missing
"""

STATEMENTS = [
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ loop.first }} {{ loop.last }} {{ m.role }}\n{% endfor %}",
    "{% for w in words %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }},{% endfor %}",
    "{% for k, v in pairs.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in rows %}{{ k }}{% endfor %}",
    "{% for a, b, c in rows %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [[1, 2], (3, 4)] %}{{ a + b }} {% endfor %}",
    "{% for x in words if x|lower == 'a' %}{{ x }}{{ loop.index }}{% else %}none{% endfor %}",
    "{% for x in none_list %}x{% else %}nothing{% endfor %}", "{% for x in nothing %}x{% endfor %}", "{% for x in missing %}x{% endfor %}",
    "{% for x in 'añb' %}[{{ x }}]{% endfor %}", "{% for x in pairs %}{{ x }}{% endfor %}", "{% for x in n %}{% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in words %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x|lower) }}{{ loop.depth }}{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{{ loop.depth0 }}{% endif %}{% endfor %}",
    "{% set x = 1 %}{% for i in words %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for i in words %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}{{ ns['x'] }}",
    "{% set n.x = 1 %}", "{% set a, b = 1, 2 %}{{ b }}{{ a }}", "{% set a, b = 1 %}", "{% set x = 1, 2 %}{{ x }}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}{{ x|length }}", "{% set x | upper | trim %} a{{ n }} {% endset %}{{ x }}",
    "{% if off %}1{% elif nothing %}2{% elif flag %}3{% else %}4{% endif %}", "{% if off %}1{% elif nothing %}2{% else %}4{% endif %}",
    "{% if off %}{{ 1|nosuch }}{% endif %}x", "{% if flag %}{{ 1|nosuch }}{% endif %}x", "{{ 1|nosuch }}", "{% if off %}{% for x in words %}{{ x|nosuch }}{% endfor %}{% endif %}",
    "{% macro m(a, b=2, c=n) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(a=1, c=0) }} {{ m() }}|",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(x=2) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{% set x = 5 %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{{ x }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{{ n }}{% endcall %}",
    "{% macro m() %}[{{ caller(1, 2) }}]{% endmacro %}{% call(a, b) m() %}{{ a }}-{{ b }}{% endcall %}",
    "{% filter upper %}a{{ text }}{% endfilter %}", "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% generation %}a{{ n }}{% set z = 1 %}{% endgeneration %}{{ z is defined }}", "{% raw %}{{ n }}{% x %}{% endraw %}|",
    "a\n  {%- if flag -%}  \n b \n{%- endif %}  \n c", "a\n  {% if flag %}\n  b\n  {% endif %}\nc\n", "  {% if flag %} x {% endif %}\n\n y",
    "a {# c #} b\n  {# c #}\nd {#- e -#} f", "  {%+ if flag %}x{% endif +%}\ny", "{{ n -}}  \n x {{- n }}", "x\r\ny\rz\n\n", "{{ '}}' }}{{ {'a': {'b': 1}}}}", "  {{ n }}\n{{ n }}\n",
    "{% raw -%}  x  {%- endraw -%}  y", "{#- all -#}", "{{ n }}{# not closed", "{{ n", "{% if flag %}", "{% endif %}", "{% else %}", "{% nosuch %}", "{{ }}", "{{ 1 2 }}", "{{ (1 }}", "{{ 'a }}",
    "{{ 'a\nb' }}", "{% for %}{% endfor %}", "{% set true = 1 %}", "{% break %}", "{{ x.1.a }}", "{{ 'x' if }}", "{{ [1, 2 }}", "{{ a b }}", "{{ 1 is }}", "{{ f(a=1, 2) }}", "{{ f(**a) }}",
    "{% macro m %}{% endmacro %}", "{% macro m(a=1, b) %}{% endmacro %}", "{{ @ }}", "{% for x in [1,2] %}{{ x }}{% endif %}",
    "{% set ns = namespace() %}{% set ns.l = [] %}{% for w in words %}{% set ns.l = ns.l + [w] %}{% endfor %}{{ ns.l }}",
    "{% set g = words|map('upper') %}{{ g|list }}{{ g|list }}{{ g|first is defined }}", "{% set g = words|map('upper') %}{% if g %}y{% endif %}{{ g|length }}",
    "{% for role, group in [('a', [1]), ('b', [2])] %}{{ role }}{% for x in group %}{{ x }}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %}{% for m in messages[1:] %}{{ m.n }}{% endfor %}",
    "{{ messages[1].content.split('</think>')[-1].lstrip('\\n') }}{{ messages[1].content.split('</think>')[0].split('<think>')[-1] }}",
    "{% if messages[0]['role'] == 'system' %}s{% else %}{{ raise_exception('A system message, please') }}{% endif %}", "{{ messages[0].content.foo.bar }}",
    "{% if not tools is defined %}a{% endif %}{% if tools is not none and tools|length > 0 %}b{% endif %}{% if tools %}c{% endif %}d",
    "{% for t in tools %}x{% endfor %}", "{% set x = {'a': 1} %}{% for i in x|items %}{{ i }}{% endfor %}{{ x|length }}", "{{ loop is defined }}{{ caller is defined }}",
]


def expressions():
    """Those of EXPRESSIONS: split at bars, but a filter's bar belongs to its expression; each is also tried alone."""
    for line in EXPRESSIONS.strip().splitlines():
        parts = line.split("|")
        for i in range(len(parts)):
            for j in range(i + 1, min(i + 4, len(parts)) + 1):
                yield "|".join(parts[i:j])


def main():
    cases = []
    for expression in dict.fromkeys(expressions()):
        cases.append("{{ " + expression + " }}")
    cases += STATEMENTS
    out = []
    for template in cases:
        text = reference(template, INPUTS)
        if isinstance(text, Exception):
            if template.count("|") > 1 and template not in STATEMENTS:
                continue  # several expressions that do not belong together
            text = None
        elif "generator object" in text or "object at 0x" in text or "<Undefined" in text or "dict_" in text or \
                "<function" in text or "bound method" in text or "<built-in" in text or "range(" in text or \
                "<Macro" in text or "class '" in text:
            continue  # addresses and the names of Python's own types
        out.append({"template": template, "text": text})
    with open(sys.argv[1], "w") as file:
        file.write("{\"now\": %d,\n\"inputs\": %s,\n\"cases\": [\n" % (NOW, json.dumps(INPUTS)))
        file.write(",\n".join(json.dumps(case) for case in out) + "\n]}\n")


if __name__ == "__main__":
    main()
