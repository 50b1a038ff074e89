#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Writes points.json: small programs, and what jinja2 makes of each in the environment that transformers 5.24.0 builds.

    pip install jinja2==3.1.6
    python3 make_points.py [WHEEL]

WHEEL is transformers-5.24.0-py3-none-any.whl; without it pip downloads it. A case has the number of the point of Jinja's behaviour that it is
about (0: what belongs to none of them), a program, its variables and the output or the error. Where a case says what its author expected,
and jinja2 does otherwise, the script says so on standard error: the file holds what jinja2 does.
"""

import json
import pathlib
import sys

import jinja2

from transformers_chat import CLOCK, VERSION, Transformers, outcome

CASES = []
POINT = 0


def point(number):
    global POINT
    POINT = number


def c(name, program, says=None, **variables):
    """One case. `says` is the output that its author expects, or `!Name` of an error."""
    CASES.append((POINT, name, program, variables, says))


# ---------------------------------------------------------------- white space and the lexer
point(1)
c("one newline after a block's end is dropped, not two", "{% if 1 %}\n\nx{% endif %}", "\nx")
c("a space between the end and the newline keeps both", "{% if 1 %} \nx{% endif %}", " \nx")
c("no newline is dropped after an expression", "{{ 1 }}\n\nx", "1\n\nx")
c("a newline after a comment is dropped", "{# c #}\n\nx", "\nx")
c("a plus before the end keeps the newline", "{% if 1 +%}\nx{% endif %}", "\nx")
c("a plus before a comment's end keeps the newline", "{# c +#}\nx")
c("a tab after the end keeps the newline", "{% if 1 %}\t\nx{% endif %}", "\t\nx")
c("a carriage return and newline count as one newline", "{% if 1 %}\r\n\r\nx{% endif %}", "\nx")
c("a lone carriage return is a newline to drop", "{% if 1 %}\rx{% endif %}", "x")
c("no other line separator is dropped", "{% if 1 %}\u2028x{% endif %}", "\u2028x")
c("a form feed is no newline", "{% if 1 %}\x0cx{% endif %}", "\x0cx")
c("after endfor too", "{% for i in [1,2] %}\n{{ i }}\n{% endfor %}\nend", "1\n2\nend")
c("after set too", "{% set a = 1 %}\n{{ a }}", "1")
c("a vertical tab is no newline", "{% set a = 1 %}\x0b{{ a }}", "\x0b1")

point(2)
c("indentation before a block tag is stripped", "x\n   {% if 1 %}y{% endif %}", "x\ny")
c("indentation before a comment is stripped", "x\n   {# c #}y", "x\ny")
c("indentation before an expression stays", "x\n   {{ 1 }}", "x\n   1")
c("text before the tag on its line keeps the space", "a {% if 1 %}y{% endif %}", "a y")
c("of two tags on a line only the first is stripped", "  {% if 1 %}  {% if 1 %}y{% endif %}{% endif %}", "  y")
c("an expression before the tag on its line keeps the space", "{{ 1 }}  {% if 1 %}y{% endif %}")
c("a line begins after the newline that was dropped", "{% if 1 %}\n   {% if 1 %}y{% endif %}{% endif %}", "y")
c("a line does not begin after a block's end without newline", "{% if 1 %}   {% if 1 %}y{% endif %}{% endif %}")
c("it works on the first line", "   {% if 1 %}y{% endif %}", "y")
c("plus turns it off", "x\n   {%+ if 1 %}y{% endif %}", "x\n   y")
c("plus turns it off for comments", "x\n   {#+ c #}y")
c("no-break space and ideographic space are stripped", "x\n\u00a0\u3000{% if 1 %}y{% endif %}", "x\ny")
c("tabs are stripped", "x\n\t {% if 1 %}y{% endif %}", "x\ny")
c("U+2028 in the line", "x\n \u2028 {% if 1 %}y{% endif %}")
c("U+000B and U+000C in the line", "x\n \x0b\x0c {% if 1 %}y{% endif %}")
c("U+001C in the line", "x\n \x1c {% if 1 %}y{% endif %}")
c("zero width space is no white space", "x\n \u200b{% if 1 %}y{% endif %}")
c("a blank line before stays", "x\n\n   {% if 1 %}y{% endif %}", "x\n\ny")
c("the space before endif is stripped too", "{% if 1 %}y\n   {% endif %}z", "y\nz")
c("nothing but indentation after text that an expression wrote", "{{ 'a\n' }}   {% if 1 %}y{% endif %}")
c("a comment then a tag on one line", "  {# c #}  {% if 1 %}y{% endif %}")
c("raw is stripped in front", "x\n   {% raw %}y{% endraw %}")
c("endraw is stripped in front", "{% raw %}y\n   {% endraw %}z")
c("plus at raw", "x\n   {%+ raw %}y{% endraw %}")
c("two indented tags in a loop", "{% for i in [1,2] %}\n    {% if i == 1 %}\n      {{ i }}\n    {% endif %}\n{% endfor %}\n", "      1\n")

point(3)
for opening in ("{%", "{%-", "{%+"):
    for closing in ("%}", "-%}", "+%}"):
        c(f"a block with {opening} and {closing} in all places", f"a\n \n  {opening} if 1 {closing}\n\n  b\n\n  {opening} endif {closing}\n\n  c\n")
for opening in ("{#", "{#-", "{#+"):
    for closing in ("#}", "-#}", "+#}"):
        c(f"a comment with {opening} and {closing}", f"a\n \n  {opening} c {closing}\n\n  b\n")
for opening in ("{{", "{{-"):
    for closing in ("}}", "-}}"):
        c(f"an expression with {opening} and {closing}", f"a\n \n  {opening} 'x' {closing}\n\n  b\n")
c("the minus strips no-break and ideographic space", "a\u00a0\u3000{{- 1 -}}\u3000\u00a0b", "a1b")
c("the minus strips U+001C to U+001F, U+0085, U+2028", "a\x1c\x1d\x1e\x1f\x85\u2028{{- 1 -}}\x1c\x1d\x1e\x1f\x85\u2028b")
c("the minus does not strip zero width space or BOM", "a\u200b\ufeff{{- 1 -}}\ufeff\u200bb")
c("the minus does not strip what an expression wrote", "{{ 'a  ' }}{{- 1 -}}{{ '  b' }}", "a  1  b")
c("the minus on both sides of a text that is all white space", "{{ 1 -}}  \n  {{- 2 }}", "12")
c("minus at the end and an indented tag after", "{{ 1 -}}\n   {% if 1 %}y{% endif %}", "1y")
c("minus after a newline that trim_blocks would drop", "{% if 1 -%}\n\n\n x{% endif %}", "x")
c("minus strips across a text up to a comment", "a  {#- c -#}  b", "ab")
c("minus inside a for around the value", "{% for i in [1,2,3] -%}\n  {{ i }}\n{%- endfor %}", "123")
c("minus with endraw and raw", "a {%- raw -%} {{ b }} {%- endraw -%} c")
c("a string that ends in a minus before the end", "{{ 'a-' -}} b", "a-b")
c("plus sign in front of an expression", "a {{+ 1 }} b")
c("plus sign at the end of an expression", "a {{ 1 +}} b", "!TemplateSyntaxError")

point(4)
c("one newline at the end is dropped", "x\n", "x")
c("only one", "x\n\n", "x\n")
c("after an expression too", "{{ 1 }}\n", "1")
c("a carriage return and newline at the end", "x\r\n", "x")
c("a program that is one newline", "\n", "")
c("an empty program", "", "")
c("the end after a block", "{% if 1 %}x\n{% endif %}\n", "x\n")
c("two newlines after a block", "{% if 1 %}x{% endif %}\n\n")
c("newline at the end within a literal of the last expression", "{{ 'x\n' }}", "x\n")
c("a space after the last newline keeps it", "x\n ", "x\n ")
c("U+2028 at the end stays", "x\u2028", "x\u2028")

point(5)
c("line ends become newlines", "a\r\nb\rc\nd", "a\nb\nc\nd")
c("also inside literals", "{{ 'a\r\nb\rc' }}", "a\nb\nc")
c("an escape for a carriage return stays one", "{{ 'a\\r\\nb' }}", "a\r\nb")
c("values keep their carriage returns", "{{ s }}", "a\r\nb", s="a\r\nb")
c("newline then carriage return are two", "a\n\rb", "a\n\nb")
c("in raw", "{% raw %}a\r\nb{% endraw %}", "a\nb")
c("line ends seen by length", "{{ 'a\r\nb'|length }}", "3")

point(6)
c("a minus at the opening is the strip mark", "a {{-1}}", "a1")
c("a second minus is the sign", "a {{- -1}}", "a-1")
c("a minus at the end is the strip mark", "{{ 1-}} b", "1b")
c("minus in the middle", "{{ 3-1 }}", "2")
c("two minus signs", "{{ 3--1 }}", "4")
c("minus minus minus one", "{{---1}}")
c("double negation", "{{ - -1 }}", "1")

point(7)
c("braces inside an expression", "{{ {'a':{'b':1}}}}", "{'a': {'b': 1}}")
c("braces' end inside a literal", "{{ '}}' }}", "}}")
c("a block's end inside a literal", "{% if '%}' %}x{% endif %}", "x")
c("a block's start inside a literal", "{{ '{% x %}{{ y }}{# z #}' }}", "{% x %}{{ y }}{# z #}")
c("a comment's start inside a literal", "{{ '{# a' }}b", "{# ab")
c("a dictionary at the end of a block tag", "{% set d = {'a': {'b': 2}} %}{{ d.a.b }}", "2")
c("item of a dictionary literal", "{{ {'a': 1}['a'] }}", "1")
c("percent and brace of a dictionary", "{% set d = {'a': 5%3} %}{{ d }}", "{'a': 2}")
c("a lone closing brace is a syntax error", "{{ 1 } }}", "!TemplateSyntaxError")
c("a lone brace in text stays", "a { b } c %} d }} e #} f", "a { b } c %} d }} e #} f")
c("an expression across lines", "{{\n 1 +\n 2\n}}", "3")
c("no space needed", "{{1}}{%if 1%}a{%endif%}", "1a")
c("brackets within brackets", "{{ [[1,2],[3]][0][1] }}", "2")
c("an unbalanced bracket", "{{ [1,2 }}", "!TemplateSyntaxError")
c("a wrong bracket", "{{ (1] }}", "!TemplateSyntaxError")
c("an empty expression", "{{ }}", "!TemplateSyntaxError")
c("an expression that does not end", "a {{ 1", "!TemplateSyntaxError")
c("a block that does not end", "a {% if 1", "!TemplateSyntaxError")
c("a strip mark after nested braces", "{{ {'a':{'b':1}}-}}  x")

point(8)
c("a comment does not nest", "{# {# #} #}x", " #}x")
c("a comment may hold tags", "{# {% if %} {{ }} #}x", "x")
c("a comment may hold quotes", "{# it's \" #}x", "x")
c("a comment across lines", "a{# \n\n #}b", "ab")
c("a comment with strip marks", "a  {#- c -#}  b", "ab")
c("a comment drops the newline behind it", "a\n{# c #}\nb", "a\nb")
c("a comment that does not end", "a {# b", "!TemplateSyntaxError")
c("an empty comment", "a{##}b", "ab")
c("a comment of one minus", "a {#-#} b")
c("a comment of two minus", "a {#--#} b")
c("a minus within is no mark", "a {# - #} b", "a  b")
c("a comment may not stand in an expression", "{{ 1 {# c #} }}", "!TemplateSyntaxError")
c("a hash is no line comment", "# a\n## b", "# a\n## b")

point(9)
c("hex escape", "{{ '\\x41' }}", "A")
c("four-digit escape", "{{ '\\u00e9' }}", "é")
c("eight-digit escape", "{{ '\\U0001F600' }}", "😀")
c("octal escape", "{{ '\\101' }}", "A")
c("short octal escapes", "{{ '\\0|\\7|\\18'|tojson }}")
c("octal above 255", "{{ '\\777'|tojson(ensure_ascii=true) }}")
c("named escape", "{{ '\\N{BULLET}' }}", "•")
c("named escape in lower case", "{{ '\\N{bullet}' }}", "•")
c("control escapes", "{{ '\\a\\b\\f\\v\\0\\t\\n\\r'|tojson }}")
c("a backslash before a newline vanishes with it", "{{ 'a\\\nb' }}", "ab")
c("an unknown escape keeps its backslash", "{{ '\\d\\/' }}", "\\d\\/")
c("escaped quotes", "{{ 'it\\'s' }}{{ \"\\\"\" }}{{ '\\\"' }}", "it's\"\"")
c("escaped backslash", "{{ '\\\\' }}{{ '\\\\n' }}", "\\\\n")
c("a raw newline", "{{ 'a\nb' }}", "a\nb")
c("adjacent literals join", "{{ 'a' 'b' \"c\" }}", "abc")
c("adjacent literals join across lines, then take the filter", "{{ 'a'\n 'b'|upper }}", "AB")
c("adjacent literals in a list", "{{ ['a' 'b', 'c'] }}", "['ab', 'c']")
c("a short four-digit escape is a syntax error", "{{ '\\u00' }}", "!TemplateSyntaxError")
c("a short hex escape is a syntax error", "{{ '\\x4' }}", "!TemplateSyntaxError")
c("an eight-digit escape beyond Unicode", "{{ '\\U00110000' }}", "!TemplateSyntaxError")
c("an unknown name", "{{ '\\N{NO SUCH NAME}' }}", "!TemplateSyntaxError")
c("non-ASCII and escapes in one literal", "{{ 'ü\\n€😀\\u00e9' }}", "ü\n€😀é")
c("upper-case letters of escapes", "{{ '\\N\\T' }}")
c("unknown escape of a letter", "{{ '\\q\\-\\.\\(\\ ' }}")
c("a literal that does not end", "{{ 'abc }}", "!TemplateSyntaxError")
c("unicode escape in upper-case hex", "{{ '\\u00E9\\xE9' }}", "éé")
c("a non-ASCII character after a backslash", "{{ '\\é'|length }}")
c("escapes are resolved before length", "{{ '\\n'|length }}{{ '\\d'|length }}", "12")
c("mark tokens as escapes", "{{ '<\\uff5cUser\\uff5c>' }}", "<｜User｜>")
c("backslash and pipe", "{{ '\\|' }}")

point(10)
c("the newline after raw is kept", "{% raw %}\nx{% endraw %}", "\nx")
c("the newline after endraw is dropped", "{% raw %}x{% endraw %}\ny", "xy")
c("raw holds tags", "{% raw %}{{ a }}{% if %}{# c #}{% endraw %}", "{{ a }}{% if %}{# c #}")
c("raw with strip marks inside", "{% raw -%}  x  {%- endraw %}y")
c("raw with strip marks outside", "a  {%- raw %} x {% endraw -%}  y")
c("raw that does not end", "{% raw %}x", "!TemplateSyntaxError")
c("raw and a plus at its end", "{% raw +%}\nx{% endraw +%}\ny")

point(11)
c("literals in lower case", "{{ [true, false, none] }}", "[True, False, None]")
c("literals in upper case", "{{ [True, False, None] }}", "[True, False, None]")
c("TRUE is a name", "{{ TRUE is defined }}", "False")
c("underscore in an integer", "{{ 1_000 }}", "1000")
c("hexadecimal, octal, binary", "{{ [0x1f, 0o17, 0b101, 0XFF, 0x_f] }}")
c("floats with an exponent", "{{ [1e3, 1.5e-3, 1E+2, 1_0.5_0, 2.0] }}")
c("a float must begin with a digit", "{{ .5 }}", "!TemplateSyntaxError")
c("a float must have digits after the dot", "{{ 1. }}")
c("a leading zero", "{{ 007 }}")
c("zeros", "{{ 00 }}")
c("a large integer", "{{ 123456789012345678901234567890 }}", "123456789012345678901234567890")
c("null is a name", "{{ null is defined }}", "False")
c("two underscores in a number", "{{ 1__0 }}", "!TemplateSyntaxError")
c("an attribute called true", "{{ d.true }}", "1", d={"true": 1})
c("true may not be assigned", "{% set true = 1 %}", "!TemplateSyntaxError")

# ---------------------------------------------------------------- undefined
point(12)
c("writing it gives nothing", "[{{ x }}]", "[]")
c("tilde takes it as empty", "[{{ 'a' ~ x ~ 'b' }}]", "[ab]")
for expression in ("x + 'a'", "'a' + x", "-x", "+x", "x * 2", "2 * x", "x < 1", "1 < x", "x >= x", "x[0]", "x[1:]", "x['a']", "x.a", "x()", "x|int", "x - 1", "x / 1", "x // 1",
                   "x % 1", "x ** 2", "x.a()", "x|float", "x|abs", "x|round", "1 - x", "'%s' % x"):
    c(f"{expression} of undefined", "{{ " + expression + " }}")
c("a missing key is fine", "[{{ d.missing }}]", "[]", d={})
c("below a missing key is not", "{{ d.missing.x }}", "!UndefinedError", d={})
c("nor does a test guard it", "{{ d.missing.x is defined }}", "!UndefinedError", d={})
c("nor default", "{{ d.missing.x|default('a') }}", "!UndefinedError", d={})
c("the message names a missing key", "{{ d['missing'].x }}", "!UndefinedError", d={})
c("below an index out of range", "{{ l[5].x }}", "!UndefinedError", l=[1])
c("a method of a missing key", "{{ d.name.strip() }}", "!UndefinedError", d={})
c("content of a message that has none", "{{ m.content + 'x' }}", "!UndefinedError", m={"role": "user"})
c("content of a message that has none, with an item", "{{ m['content'] + 'x' }}", "!UndefinedError", m={"role": "user"})
c("a missing method of a string", "{{ 'a'.nope() }}", "!UndefinedError")
c("undefined in a list prints as Undefined", "{{ [x] }}", "[Undefined]")

point(13)
c("undefined equals none", "{{ x == none }}", "False")
c("undefined is none", "{{ x is none }}", "False")
c("two undefined are equal", "{{ x == y }}", "True")
c("undefined differs from empty", "{{ x == '' }}{{ x != '' }}{{ x == false }}{{ x == 0 }}", "FalseTrueFalseFalse")
c("undefined is false", "{{ x is false }}{{ x is true }}", "FalseFalse")
c("not undefined", "{{ not x }}", "True")
c("undefined as a condition", "{% if x %}a{% else %}b{% endif %}", "b")
c("undefined and or", "[{{ x and 1 }}][{{ x or 'd' }}]", "[][d]")
c("not equal", "{{ x != y }}{{ x != none }}", "FalseTrue")
c("undefined is sameas", "{{ x is sameas x }}")
c("none is none", "{{ none is none }}{{ none == none }}", "TrueTrue")
c("undefined missing keys of two dictionaries are equal", "{{ d.a == d.b }}", "True", d={})

point(14)
c("in undefined", "{{ 'a' in x }}", "False")
c("not in undefined", "{{ 'a' not in x }}", "True")
c("undefined in a list", "{{ x in ['a'] }}", "False")
c("undefined in a string", "{{ x in 'abc' }}", "!TypeError")
c("undefined in a list with undefined", "{{ x in [y] }}")
c("undefined in a dictionary", "{{ x in {'a': 1} }}")
c("none in a string", "{{ none in 'abc' }}", "!TypeError")
c("a string in none", "{{ 'a' in none }}", "!TypeError")
c("a number in a string", "{{ 1 in '123' }}", "!TypeError")
c("a string in a number", "{{ 'a' in 5 }}", "!TypeError")

point(15)
for test in ("iterable", "sequence", "string", "mapping", "number", "callable", "boolean", "integer", "defined", "undefined", "none", "true", "odd"):
    c(f"undefined is {test}", "{{ x is " + test + " }}")
for name in ("length", "list", "items|list", "trim", "upper", "lower", "string", "replace('a','b')", "join(',')", "join", "first is undefined", "last is undefined", "title",
             "capitalize", "count", "tojson", "dictsort", "sort", "unique|list", "reverse|list", "min is undefined", "max is undefined", "sum", "default('d')", "map('upper')|list",
             "selectattr('a')|list", "batch(2)|list", "indent", "safe", "escape", "wordcount", "format('a')", "int(3)", "center(4)", "e", "groupby('a')|list"):
    c(f"undefined|{name}", "[{{ x|" + name + " }}]")
c("a loop over undefined", "{% for i in x %}a{% else %}b{% endfor %}", "b")
c("a loop over undefined in two names", "{% for a, b in x %}a{% endfor %}z", "z")
c("a loop over none raises", "{% for i in none %}a{% endfor %}", "!TypeError")
c("none has no length", "{{ none|length }}", "!TypeError")
c("none has no items", "{{ none|items|list }}", "!TypeError")

point(16)
c("index out of range of a list", "[{{ l[5] }}][{{ l[-4] }}][{{ l[-1] }}]", "[][][3]", l=[1, 2, 3])
c("index out of range of a string", "[{{ 'abc'[5] }}]", "[]")
c("of an empty list", "{{ l[0] is defined }}{{ l[-1] is defined }}", "FalseFalse", l=[])
c("an attribute of none", "[{{ none.x }}]", "[]")
c("below an attribute of none", "{{ none.x.y }}", "!UndefinedError")
c("an unknown attribute of a string", "[{{ 'str'.nope }}]", "[]")
c("calling it", "{{ 'str'.nope() }}", "!UndefinedError")
c("an attribute of a number", "[{{ (5).x }}]", "[]")
c("an item of a number", "[{{ n['x'] }}][{{ n[0] }}]", n=5)
c("a string index of a list", "[{{ l['a'] }}]", l=[1])
c("a string index of a string", "[{{ s['content'] }}]", s="abc")
c("an attribute of a list", "[{{ l.role }}]", "[]", l=[1])
c("a float index", "[{{ l[1.0] }}]", l=[1, 2])
c("true as an index", "[{{ l[true] }}]", l=[1, 2])
c("none as an index", "[{{ l[none] }}][{{ d[none] }}]", l=[1, 2], d={"a": 1})
c("a list as a key", "[{{ d[[1]] }}]", d={"a": 1})
c("an index of a dictionary with string keys", "[{{ d[0] }}]", d={"0": 1})

point(17)
c("a ternary without else writes nothing", "[{{ 'a' if false }}]", "[]")
c("plus with it raises", "{{ 'a' + ('b' if false) }}", "!UndefinedError")
c("tilde with it does not", "{{ 'a' ~ ('b' if false) }}", "a")
c("it is undefined", "{{ ('b' if false) is defined }}", "False")
c("a ternary takes the branch only", "{{ 'a' if true else x.y.z }}", "a")
c("nested ternaries", "{{ 'a' if 0 else 'b' if 0 else 'c' }}", "c")
c("a ternary in a set", "{% set y = 'a' if n > 1 else 'b' %}{{ y }}", "b", n=1)
c("a ternary in an argument", "{{ [1,2]|join(',' if true else ';') }}", "1,2")
c("set of it is undefined", "{% set y = 1 if false %}{{ y is defined }}")

point(18)
c("default of undefined", "{{ x|default('d') }}", "d")
c("default of none", "{{ none|default('d') }}", "None")
c("default of empty", "[{{ ''|default('d') }}{{ 0|default('d') }}{{ false|default('d') }}]", "[0False]")
c("default with true", "{{ none|default('d', true) }}{{ ''|default('d', true) }}{{ 0|default('e', boolean=true) }}{{ []|default('f', boolean=True) }}", "ddef")
c("default without argument", "[{{ x|default }}]", "[]")
c("default by keyword", "{{ x|default(default_value='k') }}", "k")
c("d is default", "{{ x|d('k') }}", "k")
c("default of a missing key", "{{ m.name|default('n') }}", "n", m={})
c("default of a defined value", "{{ 'v'|default('d', true) }}", "v")
c("default takes a list", "{{ x|default([])|length }}", "0")

point(19)
c("tools that are none are defined", "{{ tools is defined }}{{ tools is none }}{{ not tools }}", "TrueTrueTrue", tools=None)
c("tools that are left out are not", "{{ tools is defined }}{{ tools is none }}", "FalseFalse")
c("a special token that is missing raises under plus", "{{ bos_token + 'x' }}", "!UndefinedError")
c("and writes nothing alone", "{{ bos_token }}x", "x")
c("a message without content", "{{ message.content is none }}{{ message.content is defined }}{{ message['content'] is string }}", "FalseFalseFalse", message={"role": "assistant", "tool_calls": []})
c("none deeper in a message stays", "{{ m.tool_calls[0].arguments is none }}", "True", m={"tool_calls": [{"arguments": None}]})
c("an empty list of tools", "{{ tools is defined }}{{ tools is none }}{{ 'a' if tools else 'b' }}", "TrueFalseb", tools=[])

point(20)
c("reasoning under its first name", "{{ m.reasoning_content }}|{{ m.thinking }}", "r|r", m={"thinking": "r", "role": "assistant", "content": "c", "reasoning_content": "r"})
c("an empty reasoning is defined", "{{ m.reasoning_content is defined }}{{ m.reasoning_content is string }}{{ 'a' if m.reasoning_content else 'b' }}", "TrueTrueb", m={"reasoning_content": ""})

# ---------------------------------------------------------------- attributes, items, methods
point(21)
schema = {"type": "array", "items": {"type": "string"}}
c("a dot finds the method first", "{{ s.items is mapping }}{{ s.items is callable }}", "FalseTrue", s=schema)
c("brackets find the item first", "{{ s['items'] is mapping }}", "True", s=schema)
c("brackets fall back to the method", "{{ s['items'] is defined }}{{ s['items'] is callable }}", "TrueTrue", s={"type": "object"})
c("a dot with a key that is no method", "{{ s.type }}", "array", s=schema)
c("keys, values, get, pop, copy, update as keys", "{% for k in ['keys','values','get','pop','copy','update','clear','setdefault','popitem','fromkeys'] %}{{ d[k] is number }}{{ (d|attr(k)) is defined }} {% endfor %}",
  d={"keys": 1, "values": 2, "get": 3})
c("a dot with a key called keys", "{{ d.keys is callable }}{{ d['keys'] }}", "True1", d={"keys": 1})
c("calling items where a key is items", "{% for k, v in s.items() %}{{ k }},{% endfor %}", "type,items,", s=schema)
c("a list's method index", "{{ l.index is defined }}{{ l.index('b') }}{{ l.count('a') }}", "True11", l=["a", "b"])
c("a string's method by brackets", "{{ 'abc'['upper']() }}", "ABC")
c("nested schema", "{{ p.items() | list | length }}{{ p['properties']['items']['type'] }}{{ p.properties.items is callable }}", p={"properties": {"items": {"type": "x"}}})
c("attr filter takes the attribute only", "[{{ d|attr('a') }}]", "[]", d={"a": 1})
c("a message with a key called content", "{{ m.content }}{{ m['content'] }}{{ m.get('content') }}", "ccc", m={"content": "c"})
c("a variable key", "{% set k = 'b' %}{{ d[k] }}{{ d['b'] }}", "22", d={"a": 1, "b": 2})
c("a dictionary's title is not a string method", "[{{ d.title }}]", "[]", d={})
c("a string's title is one", "{{ s.title is callable }}{{ s.format is callable }}", s="a")
c("a loop attribute is no item", "{% for i in [1] %}{{ loop['index'] }}{{ loop.nope is defined }}{% endfor %}")

point(22)
for expression in ("l.append(1)", "l.pop()", "l.sort()", "l.insert(0, 1)", "l.extend([1])", "l.remove(1)", "l.reverse()", "l.clear()", "d.update({'a': 1})", "d.pop('a')", "d.setdefault('a', 1)",
                   "d.clear()", "d.popitem()"):
    c(f"{expression} is refused", "{{ " + expression + " }}", "!SecurityError", l=[1], d={"a": 1})
c("the name of a refused method alone", "{{ l.append is callable }}{{ l.append is defined }}", l=[1])
c("a copy is allowed", "{{ l.copy() }}{{ d.copy() }}", "[1]{'a': 1}", l=[1], d={"a": 1})
c("lists grow in a namespace", "{% set ns = namespace(x=[]) %}{% for i in [1,2] %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x }}", "[1, 2]")
c("a name with a leading underscore reads as undefined", "[{{ l.__class__ }}][{{ 'a'._x }}]", l=[1])
c("below it raises", "{{ l.__class__.__name__ }}", l=[1])
c("a key with a leading underscore", "{{ d._a }}|{{ d['_a'] }}", d={"_a": 1})
c("a key with two underscores", "{{ d.__a__ }}|{{ d['__a__'] }}", d={"__a__": 1})
c("a variable with a leading underscore", "{% set _x = 1 %}{{ _x }}", "1")
c("a range beyond the limit", "{{ range(100001)|length }}", "!OverflowError")
c("a range at the limit", "{{ range(100000)|length }}", "100000")
c("format with attributes of a class", "{{ '{0.__class__}'.format(1) }}")
c("append in a set", "{% set _ = l.append(1) %}{{ l }}", "!SecurityError", l=[1])
c("append where the branch is not reached", "{% if false %}{{ l.append(1) }}{% endif %}a", "a", l=[1])
c("do is unknown, and so is its append", "{% do l.append(1) %}", "!TemplateSyntaxError", l=[1])

point(23)
c("get of a missing key", "{{ d.get('y') }}|{{ d.y }}|{{ d.get('y') is none }}", "None||True", d={})
c("plus with it raises", "{{ d.get('y') + 'a' }}", "!TypeError", d={})
c("get with a default", "{{ d.get('y', 'z') }}{{ d.get('a', 'z') }}", "z1", d={"a": 1})
c("get of none", "{{ d.get('a', 'z') }}", "None", d={"a": None})
c("get chained", "{{ d.get('a', {}).get('b', 'c') }}", "c", d={})
c("get on a missing value", "{{ d.x.get('b') }}", "!UndefinedError", d={})
c("get with a keyword", "{{ d.get('a', default=1) }}", "!TypeError", d={})
c("get as a condition", "{% if d.get('a') %}x{% else %}y{% endif %}", "y", d={})
c("get of a string value", "{{ s.get('a') }}", "!UndefinedError", s="x")
c("get without arguments", "{{ d.get() }}", "!TypeError", d={})

point(24)
ordered = {"z": 1, "a": 2, "m": {"y": 1, "b": 2}}
c("iteration keeps the order", "{% for k in d %}{{ k }}{% endfor %}", "zam", d=ordered)
c("items keep the order", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", d=ordered)
c("the items filter keeps the order", "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}", d=ordered)
c("tojson keeps the order", "{{ d|tojson }}", '{"z": 1, "a": 2, "m": {"y": 1, "b": 2}}', d=ordered)
c("printing keeps the order", "{{ d }}", "{'z': 1, 'a': 2, 'm': {'y': 1, 'b': 2}}", d=ordered)
c("equality ignores the order", "{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}", "True")
c("equality of lists does not", "{{ [1, 2] == [2, 1] }}{{ [1, 2.0] == [1.0, 2] }}", "FalseTrue")
c("in tests keys", "{{ 'z' in d }}{{ 1 in d }}{{ 'y' in d }}", "TrueFalseFalse", d=ordered)
c("length counts keys", "{{ d|length }}{{ d|count }}", "33", d=ordered)
c("keys and values", "{{ d.keys()|list }}{{ d.values()|list }}", d=ordered)
c("list of a dictionary", "{{ d|list }}", "['z', 'a', 'm']", d=ordered)
c("join of a dictionary", "{{ d|join(',') }}", "z,a,m", d=ordered)
c("first and last of a dictionary", "{{ d|first }}", "z", d=ordered)
c("last of a dictionary", "{{ d|last }}", "m", d=ordered)
c("a literal with a key twice", "{{ {'a': 1, 'b': 2, 'a': 3} }}", "{'a': 3, 'b': 2}")
c("keys of a literal of many kinds", "{{ {1: 'a', none: 'b', true: 'c', 2.5: 'd', (1, 2): 'e'} }}")
c("1 and 1.0 and true are one key", "{{ {1: 'a', 1.0: 'b', true: 'c'} }}", "{1: 'c'}")
c("a list is no key", "{{ {[1]: 2} }}", "!TypeError")
c("a loop over pairs", "{% for k, v in [['a', 1], ['b', 2]] %}{{ k }}{{ v }}{% endfor %}", "a1b2")
c("a pair of the wrong length", "{% for k, v in [['a', 1, 2]] %}{{ k }}{% endfor %}", "!ValueError")
c("a pair that is too short", "{% for k, v in [['a']] %}{{ k }}{% endfor %}", "!ValueError")
c("a string as a pair", "{% for k, v in ['ab'] %}{{ v }}{{ k }}{% endfor %}", "ba")
c("a number as a pair", "{% for k, v in [1] %}{{ v }}{{ k }}{% endfor %}", "!TypeError")

point(25)
c("a number after a dot", "{{ l.0 }}{{ l.1 }}", "ab", l=["a", "b"])
c("twice", "{{ l.0.1 }}", l=[["a", "b"]])
c("then an attribute", "{{ l.0.role }}", "user", l=[{"role": "user"}])
c("out of range", "[{{ l.5 }}]", "[]", l=["a"])
c("of a string", "{{ 'abc'.1 }}", "b")
c("of a dictionary", "[{{ d.0 }}]", d={"0": "a"})

# ---------------------------------------------------------------- tojson
point(26)
c("order, html and non-ASCII", "{{ d|tojson }}", '{"b": "<a&b>\'é", "a": 1}', d={"b": "<a&b>'é", "a": 1})
c("the result is no Markup", "{{ {'a': 1}|tojson + '<b>' }}", '{"a": 1}<b>')
c("sort_keys", "{{ d|tojson(sort_keys=true) }}", d={"b": {"d": 1, "c": 2}, "a": 1})
c("ensure_ascii", "{{ 'é😀\u2028'|tojson(ensure_ascii=true) }}")
c("of a string", "{{ 'a'|tojson }}{{ ''|tojson }}", '"a"""')
c("of literals", "{{ true|tojson }}{{ none|tojson }}{{ 1|tojson }}{{ 1.5|tojson }}", "truenull11.5")
c("nested", "{{ d|tojson }}", d={"a": [1, [2, {"b": None}], {}], "c": {"d": []}})
c("in a filter chain", "{{ [1,2]|tojson|upper|length }}", "6")
c("of Markup", "{{ ('<a>'|safe)|tojson }}")
c("of a tuple", "{{ (1, 'a')|tojson }}", '[1, "a"]')
c("of a namespace", "{{ namespace(a=1)|tojson }}", "!TypeError")
c("of a macro", "{% macro m() %}{% endmacro %}{{ m|tojson }}", "!TypeError")
c("of a loop", "{% for i in [1] %}{{ loop|tojson }}{% endfor %}", "!TypeError")
c("safe after tojson under tilde", "{{ '<' ~ ({'a': '<'}|tojson|safe) ~ '>' }}")
c("every option at once", "{{ d|tojson(ensure_ascii=true, indent=2, separators=(',', ':'), sort_keys=true) }}", d={"b": ["é", {}], "a": {"c": []}})
c("options by position", "{{ d|tojson(true, 2, (',', ' : '), true) }}", d={"b": "é", "a": 1})

point(27)
nested = {"a": [1, 2, {"b": "c"}], "d": {}, "e": [], "f": {"g": [[]]}}
c("separators", "{{ [1, {'a': 2, 'b': 3}]|tojson }}", '[1, {"a": 2, "b": 3}]')
c("indent 4", "{{ d|tojson(indent=4) }}", d=nested)
c("indent 2", "{{ d|tojson(indent=2) }}", d=nested)
c("indent 0", "{{ d|tojson(indent=0) }}", d=nested)
c("indent 1", "{{ [[1]]|tojson(indent=1) }}", d=nested)
c("indent by a string", "{{ d|tojson(indent='\\t') }}", d={"a": [1]})
c("indent none", "{{ d|tojson(indent=none) }}", d={"a": [1]})
c("indent of a scalar", "{{ 1|tojson(indent=4) }}", "1")
c("a negative indent", "{{ [1,[2]]|tojson(indent=-1) }}")
c("the first positional argument is no indent", "{{ d|tojson(4) }}", '{"a": [1, 2]}', d={"a": [1, 2]})
c("the second is", "{{ d|tojson(false, 4) }}", d={"a": [1, 2]})
c("separators as a tuple", "{{ d|tojson(separators=(',', ':')) }}", '{"a":[1,2],"b":3}', d={"a": [1, 2], "b": 3})
c("separators as a list", "{{ d|tojson(separators=[' , ', ' : ']) }}", d={"a": [1, 2], "b": 3})
c("separators with indent", "{{ d|tojson(indent=1, separators=(', ', '=')) }}", d={"a": [1, 2]})
c("one separator", "{{ d|tojson(separators=(',',)) }}", "!ValueError", d={"a": 1})
c("an unknown option", "{{ d|tojson(compact=true) }}", "!TypeError", d={"a": 1})
c("empty ones with indent", "{{ [{}, [], [[]]]|tojson(indent=2) }}")

point(28)
floats = [2.0, 100000.0, 1e16, 1e-5, 1.2345678901234568e17, -0.0, 5e-324, 0.1, 1e15, 123456789012345680.0, 1e22, 1.7976931348623157e308, 0.0001, 0.00001234, 3.14, 1e100, 9007199254740993.0, 0.30000000000000004, 1e21, 9999999999999998.0, 99999999999999990.0, 2.5e-7]
c("floats of variables by tojson", "{{ l|tojson }}", l=floats)
c("floats of variables printed", "{{ l }}", l=floats)
c("each float written", "{% for f in l %}{{ f }} {% endfor %}", l=floats)
c("floats as literals", "{{ [2.0, 1e5, 1e16, 1e-5, 0.1e0, 1e400, 1.5e300]|tojson }}")
c("infinity and not a number", "{{ [1e400, -1e400, 1e400 - 1e400]|tojson }}|{{ [1e400, -1e400, 1e400 - 1e400] }}")
c("integers are unbounded", "{{ n|tojson }}{{ n }} {{ n + 1 }} {{ n * n }}", n=123456789012345678901234567890)
c("overflow beyond 64 bits by plus", "{{ 9223372036854775807 + 1 }}", "9223372036854775808")
c("by minus", "{{ -9223372036854775808 - 1 }}", "-9223372036854775809")
c("by times", "{{ 4294967296 * 4294967296 }}", "18446744073709551616")
c("by power", "{{ 2 ** 64 }} {{ 2 ** 200 }} {{ (-3) ** 41 }}")
c("by negation", "{{ -(-9223372036854775807 - 1) }}", "9223372036854775808")
c("division and remainder of large integers", "{{ 10 ** 30 // 7 }} {{ 10 ** 30 % 7 }} {{ -(10 ** 30) // 7 }} {{ -(10 ** 30) % 7 }} {{ 10 ** 30 / 10 ** 20 }}")
c("comparing large integers", "{{ 2 ** 64 > 2 ** 63 }}{{ 2 ** 64 == 18446744073709551616 }}{{ 2 ** 53 + 1 == 9007199254740992.0 }}{{ 2 ** 53 == 9007199254740992.0 }}")
c("a large integer to a string and back", "{{ ('9' * 30)|int + 1 }}")
c("2 and 2.0 are apart", "{{ d|tojson }}", '{"a": 2, "b": 2.0, "c": true, "d": 1}', d={"a": 2, "b": 2.0, "c": True, "d": 1})
c("minus zero", "{{ -0.0 }} {{ 0 * -1 }} {{ 0.0 * -1 }}")

point(29)
controls = "".join(chr(i) for i in range(0x20)) + "\"\\/\x7f\x80\u2028\u2029é😀\ufeff"
c("escapes of control characters", "{{ s|tojson }}", s=controls)
c("with ensure_ascii", "{{ s|tojson(ensure_ascii=true) }}", s=controls)
c("keys are escaped alike", "{{ d|tojson }}", d={"a\"b\nc": 1, "é/": 2})
c("quotes", "{{ s|tojson }}", s="it's \"q\"")

point(30)
for expression in ("x", "range(3)", "[1]|map('string')", "[1]|select", "{'a':1}|items", "{'a':1}.items()", "{'a':1}.keys()", "{'a':1}.values()", "[x]", "{'a': x}", "[1,2]|reverse", "[1]|unique", "[1]|batch(1)",
                   "'abc'|reverse", "[1,2]|slice(2)", "cycler(1)", "joiner()"):
    c(f"tojson of {expression}", "{{ (" + expression + ")|tojson }}")
c("lists of them are fine", "{{ range(3)|list|tojson }}{{ {'a':1}.items()|list|tojson }}", '[0, 1, 2][["a", 1]]')
c("keys of other kinds", "{{ {1: 1, none: 2, 2.5: 3, true: 4, false: 5}|tojson }}")
c("keys of other kinds sorted", "{{ {2: 1, 10: 2}|tojson(sort_keys=true) }}")
c("mixed keys cannot be sorted", "{{ {1: 1, 'a': 2}|tojson(sort_keys=true) }}", "!TypeError")
c("a tuple as a key", "{{ {(1,2): 1}|tojson }}", "!TypeError")
c("a groupby result", "{{ [{'a': 1}]|groupby('a')|tojson }}")
c("a dictsort result", "{{ {'b': 1, 'a': 2}|dictsort|tojson }}", '[["a", 2], ["b", 1]]')

# ---------------------------------------------------------------- printing and numbers
point(31)
c("literals", "{{ true }} {{ false }} {{ none }} {{ 10/2 }} {{ 1 }}", "True False None 5.0 1")
c("a list", "{{ [1, 'a', none, true, \"it's\"] }}", "[1, 'a', None, True, \"it's\"]")
c("both quotes", "{{ l }}", l=["a'b\"c", 'a"b', "a'b", "\\"])
c("escapes in repr", "{{ l }}", l=["\n\r\t", "\x00\x1f\x7f", "\x80\xa0\xad", "\u200b\u2028\u3000\ufeff", "é€😀", "\U000f0000", "\u0378", "\ud7ff", "\x85", "\u00ff\u0100"])
c("combining characters and letters in repr", "{{ l }}", l=["e\u0301", "日本語", "\u202e", "👨‍👩‍👧", "\U0001f1e9", "\u2060", "ａ", "\ue000", "\U00020000", "\U0010ffff"])
c("tuples", "{{ (1,) }} {{ (1, 'a') }} {{ () }}", "(1,) (1, 'a') ()")
c("nested", "{{ d }}", d={"a": {"b": [1, 2.5, {"c": None}], "d": "x"}, "e": []})
c("empty ones", "{{ {} }} {{ [] }} {{ '' }}", "{} [] ")
c("a float in a list", "{{ [1.0, 0.1, 1e20, -0.0] }}", "[1.0, 0.1, 1e+20, -0.0]")
c("Markup in a list", "{{ ['<a>'|safe] }}", "[Markup('<a>')]")
c("string of a list", "{{ [1, 'a']|string }}{{ [1]|string|length }}", "[1, 'a']3")
c("string of a value", "{{ true|string + 'x' }}{{ none|string }}{{ 1.0|string }}", "TruexNone1.0")
c("a tilde with a list", "{{ [1] ~ {'a': none} ~ true }}", "[1]{'a': None}True")
c("a range", "{{ range(3) }} {{ range(1, 5, 2) }}", "range(0, 3) range(1, 5, 2)")
c("dictionary views", "{{ {'a': 1}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() }}")
c("an empty namespace's text begins so", "{{ (namespace(a=1, b='x'))|string }}")
c("a macro's text", "{% macro m() %}{% endmacro %}{{ m }}")
c("a loop's text", "{% for i in [1,2] %}{{ loop }}{% endfor %}")
c("a tuple without brackets in an expression", "{{ 1, 'a' }}", "(1, 'a')")
c("a set of several names", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12")
c("a tuple of one without brackets", "{{ 1, }}", "(1,)")

point(32)
c("floor division", "{{ -7//2 }} {{ 7//-2 }} {{ 7//2 }} {{ -7.0//2 }} {{ 7//2.0 }}", "-4 -4 3 -4.0 3.0")
c("remainder", "{{ -7%3 }} {{ 7%-3 }} {{ -7%-3 }} {{ 7.5%2 }} {{ -7.5%2 }} {{ 7.5%-2 }}", "2 -2 -1 1.5 0.5 -0.5")
c("division", "{{ 7/2 }} {{ 6/3 }} {{ 1/3 }} {{ -1/3 }}")
c("division by zero", "{{ 1/0 }}", "!ZeroDivisionError")
c("floor division by zero", "{{ 1//0 }}", "!ZeroDivisionError")
c("remainder by zero", "{{ 1%0 }}", "!ZeroDivisionError")
c("float division by zero", "{{ 1.0/0 }}", "!ZeroDivisionError")
c("percent on a string formats", "{{ '%s is %d and %.2f%%' % ('a', 3, 1.005) }}")
c("percent with one value", "{{ 'a%sb' % 'x' }}{{ '%s' % [1] }}{{ '%r' % 'q' }}")
c("percent with a dictionary", "{{ '%(a)s-%(b)03d' % {'a': 'x', 'b': 7} }}")
c("percent widths", "{{ '[%5s|%-5s|%05d|%+d|%x|%X|%o|%e|%g|%c|%i]' % ('a', 'b', 42, 7, 255, 255, 8, 12345.678, 0.00001, 'z', 9) }}")
c("percent with too few", "{{ '%s %s' % ('a',) }}", "!TypeError")
c("percent with too many", "{{ '%s' % ('a', 'b') }}", "!TypeError")
c("percent on a bad format", "{{ '%q' % 1 }}", "!ValueError")
c("percent d of a string", "{{ '%d' % 'a' }}", "!TypeError")
for expression in ("2.5|round", "3.5|round", "-2.5|round", "2|round", "2.345|round(2)", "2.675|round(2)", "2.1|round(method='ceil')", "2.9|round(0,'floor')", "2.15|round(1,'ceil')", "25|round(-1)", "1234|round(-2)",
                   "2.5|round|int", "1e20|round", "2.5|round(method='up')", "-0.4|round", "0.5|round", "7|round(1)", "7|round(0,'ceil')", "true|round", "1.005|round(2)"):
    c(f"{expression}", "{{ " + expression + " }}")
for expression in ("'x'|int", "'1.9'|int", "1.9|int", "-1.9|int", "'12'|int", "' 12 '|int", "'0x1f'|int(base=16)", "'1f'|int(0, 16)", "'x'|int(7)", "none|int", "true|int", "''|int", "'1_000'|int", "'1e3'|int",
                   "'-5'|int", "[]|int", "'0b11'|int(base=2)", "'12'|int(default=3, base=8)", "'٣'|int", "1e400|int", "'nan'|int", "'1.5'|float", "'x'|float", "'x'|float(2.5)", "3|float", "none|float", "'1e3'|float", "'inf'|float", "true|float", "' 2 '|float"):
    c(f"{expression}", "{{ " + expression + " }}")
c("true equals one", "{{ true == 1 }}{{ 1 == 1.0 }}{{ '1' == 1 }}{{ false == 0 }}{{ true == 'true' }}{{ none == false }}", "TrueTrueFalseTrueFalseFalse")
c("arithmetic with true", "{{ true + 1 }} {{ true * 3 }} {{ -true }} {{ true + true }} {{ true / 2 }}", "2 3 -1 2 0.5")
c("powers go left to right", "{{ 2 ** 3 ** 2 }}", "64")
c("unary minus and power", "{{ -2 ** 2 }} {{ 2 ** -1 }} {{ 2 ** -2 }}")
c("power of zero and fractions", "{{ 4 ** 0.5 }} {{ 0 ** 0 }} {{ 2.0 ** 3 }} {{ 10 ** 2 }}")
c("power with a large exponent is refused or counted", "{{ (2 ** 1000)|string|length }}")
c("zero to a negative power", "{{ 0 ** -1 }}", "!ZeroDivisionError")
c("comparison of kinds that do not compare", "{{ 1 < 'a' }}", "!TypeError")
c("comparison of strings", "{{ 'a' < 'b' }}{{ 'B' < 'a' }}{{ 'é' > 'z' }}{{ 'ab' > 'a' }}", "TrueTrueTrueTrue")
c("comparison of lists", "{{ [1, 2] < [1, 3] }}{{ [1] < [1, 0] }}{{ (1, 2) < (2,) }}", "TrueTrueTrue")
c("comparison of dictionaries", "{{ {} < {} }}", "!TypeError")
c("comparison of none", "{{ none < 1 }}", "!TypeError")
c("times of a string and a list", "{{ 'ab' * 3 }} {{ 2 * [1, 2] }} {{ 'a' * 0 }}|{{ 'a' * -1 }} {{ 'a' * true }}")
c("times of two strings", "{{ 'a' * 'b' }}", "!TypeError")
c("times of a string and a float", "{{ 'a' * 2.0 }}", "!TypeError")
c("plus of lists", "{{ [1] + [2] }} {{ (1,) + (2,) }}", "[1, 2] (1, 2)")
c("plus of a list and a tuple", "{{ [1] + (2,) }}", "!TypeError")
c("plus of dictionaries", "{{ {} + {} }}", "!TypeError")
c("minus of strings", "{{ 'a' - 'b' }}", "!TypeError")
c("minus of a string", "{{ -'a' }}", "!TypeError")
c("plus sign", "{{ +5 }} {{ +true }}", "5 1")
c("float sums", "{{ 0.1 + 0.2 }} {{ 1e16 + 1 }} {{ 1 + 1.0 }}")

point(33)
c("a number and a string", "{{ 3 + 'x' }}", "!TypeError")
c("a string and a number", "{{ 'x' + 3 }}", "!TypeError")
c("none and a string", "{{ none + 'x' }}", "!TypeError")
c("a string and none", "{{ 'x' + none }}", "!TypeError")
c("a string and a list", "{{ 'x' + [1] }}", "!TypeError")
c("a list and a string", "{{ [1] + 'x' }}", "!TypeError")
c("a string and a dictionary", "{{ 'x' + {} }}", "!TypeError")
c("none under a tilde", "{{ none ~ 'x' }}", "Nonex")
c("numbers under a tilde", "{{ 1 ~ 2 ~ 3.0 ~ true }}", "123.0True")
c("none through trim", "{{ none|trim }}", "None")
c("a number through trim", "{{ 5|trim + 'x' }}{{ [1]|trim }}")
c("a list through trim", "{{ [1, 2]|trim }}")
c("none through upper, replace, join", "{{ none|upper }}{{ none|replace('N', 'x') }}{{ none|lower|length }}")
c("a method of none", "{{ none.strip() }}", "!UndefinedError")
c("a method of a number", "{{ (3).strip() }}", "!UndefinedError")
c("a call of a string", "{{ 'a'() }}")
c("a call of none", "{{ none() }}")
c("an item of none", "[{{ none['a'] }}]")
c("a slice of none", "[{{ none[1:] }}]")

point(34)
c("a tilde binds tighter than plus", "{{ 'a' ~ 1 + 2 }}", "!TypeError")
c("plus then tilde", "{{ 1 + 2 ~ 'a' }}", "!TypeError")
c("a tilde is looser than times", "{{ 'a' ~ 2 * 3 }}", "a6")
c("a tilde and minus", "{{ 5 - 2 ~ 1 }}")
c("a filter binds tightest", "{{ 3|string + 'x' }}", "3x")
c("a filter and a unary minus", "{{ -1|abs }}")
c("a filter after brackets", "{{ (-1)|abs }}", "1")
c("a filter after a tilde", "{{ 'a' ~ 'b'|upper }}", "aB")
c("a filter after a comparison", "{{ 1 == 1|string }}", "False")
c("not and is", "{{ not x is defined }}", "True")
c("is not", "{{ x is not defined }}{{ 1 is not string }}{{ x is not none }}", "TrueTrueTrue")
c("not and equals", "{{ not true == false }}", "True")
c("comparisons chain", "{{ 3 > 2 == true }}{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 3 > 2 > 1 }}", "FalseTrueFalseTrue")
c("chain with in", "{{ 1 in [1] == true }}{{ 'a' in 'ab' in ['ab'] }}")
c("a ternary is lowest", "{{ 'a' + 'b' if true else 'c' + 'd' }}", "ab")
c("and before or", "{{ 1 or 0 and 0 }}{{ true or false and false }}", "1True")
c("not before and", "{{ not 0 and 1 }}", "1")
c("operands come back", "{{ 0 or none }}|{{ '' or 'x' }}|{{ 'a' and 'b' }}|{{ [] and 1 }}|{{ 0 and x.y }}", "None|x|b|[]|0")
c("a test binds tighter than and", "{{ 1 is number and 2 is string }}", "False")
c("a test and plus", "{{ 1 + 1 is number }}")
c("a test and equals", "{{ 1 is number == true }}")
c("a test after a filter", "{{ 'a'|upper is string }}{{ [1]|length is number }}", "TrueTrue")
c("a filter after a test", "{{ 1 is number|string }}")
c("a filter after a test in brackets", "{{ (1 is number)|string|upper }}", "TRUE")
c("in and not in with plus", "{{ 'a' + 'b' in 'xabx' }}", "True")
c("not in", "{{ 1 not in [1, 2] }}{{ not 1 in [1, 2] }}", "FalseFalse")
c("times before plus, power before times", "{{ 2 + 3 * 4 ** 2 }} {{ (2 + 3) * 4 }} {{ 10 - 4 - 3 }} {{ 2 * 3 % 4 }} {{ 7 // 2 * 2 }}", "50 20 3 2 6")
c("unary and times", "{{ 2 * -3 }} {{ -2 * 3 }} {{ 2 - -3 }}", "-6 -6 5")
c("a ternary's condition with or", "{{ 'a' if 0 or 1 else 'b' }}", "a")
c("a ternary inside an or needs brackets", "{{ 0 or ('b' if true else 'c') }}", "b")
c("a filter of a ternary binds to its branch", "{{ 'a' if true else 'b'|upper }}{{ ('a' if true else 'b')|upper }}", "aA")
c("attribute and call after a filter need brackets", "{{ ('a b'|upper).split() }}", "['A', 'B']")
c("a method on a literal", "{{ 'A B'.lower().split(' ')[1] }}", "b")
c("a method on a number literal's filter", "{{ 5|string * 2 }}", "55")
c("equality of different kinds", "{{ [] == () }}{{ [] == {} }}{{ (1,) == (1,) }}{{ '' == none }}", "FalseFalseTrueFalse")
c("unknown operator", "{{ 1 && 2 }}", "!TemplateSyntaxError")
c("one equals sign", "{{ a = 1 }}", "!TemplateSyntaxError")
c("an exclamation mark", "{{ !a }}", "!TemplateSyntaxError")

point(35)
c("divisibleby without brackets", "{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(4) }}", "TrueFalse")
c("equalto", "{{ 'a' is equalto 'a' }}{{ 'a' is eq 'b' }}{{ 1 is == 1 }}")
c("in", "{{ 1 is in [1, 2] }}{{ 'z' is in 'abc' }}{{ 1 is not in [1] }}", "TrueFalseFalse")
c("comparison tests", "{{ 1 is lt 2 }}{{ 2 is ge 2 }}{{ 3 is gt 4 }}{{ 1 is ne 1 }}{{ 1 is le(1) }}{{ 2 is lessthan 3 }}{{ 2 is greaterthan 3 }}")
c("a negative argument", "{{ 1 is eq -1 }}")
c("an argument with an attribute", "{{ 'a' is eq d.x }}{{ 'a' is eq d['x'] }}{{ 'a' is eq d.x|upper }}", d={"x": "a"})
c("a dictionary as the argument", "{{ {} is eq {} }}", "True")
c("sameas", "{{ true is sameas true }}{{ 1 is sameas true }}{{ none is sameas none }}", "TrueFalseTrue")
c("odd and even", "{{ 3 is odd }}{{ 3 is even }}{{ 0 is even }}{{ -3 is odd }}", "TrueFalseTrueTrue")
c("upper and lower", "{{ 'AB' is upper }}{{ 'aB' is lower }}{{ '1' is upper }}{{ 'a1' is lower }}", "TrueFalseFalseTrue")
c("filter and test as tests", "{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}{{ 'nope' is test }}", "TrueFalseTrueFalse")
c("escaped", "{{ 'a' is escaped }}{{ 'a'|safe is escaped }}", "FalseTrue")
c("a test's argument then and", "{{ 9 is divisibleby 3 and true }}", "True")
c("a test's argument then else", "{{ 'a' if 9 is divisibleby 2 else 'b' }}", "b")
c("divisible by zero", "{{ 9 is divisibleby 0 }}", "!ZeroDivisionError")
c("two tests in a row", "{{ 1 is number is boolean }}")
c("a test with a missing argument", "{{ 9 is divisibleby }}", "!TypeError")

point(36)
VALUES = ["1", "1.0", "true", "none", "'a'", "[1]", "(1,)", "{'a': 1}", "x", "range(2)", "{'a':1}.items()", "[1]|map('string')", "'a'|safe", "raise_exception", "namespace(a=1)"]
for test in ("number", "integer", "float", "boolean", "sequence", "iterable", "string", "mapping", "callable", "none", "true", "false", "defined"):
    c(f"{test} of all kinds", "{{ [" + ", ".join(f"({value}) is {test}" for value in VALUES) + "] }}")
c("is true of one", "{{ 1 is true }}{{ true is true }}{{ 0 is false }}{{ false is false }}{{ '' is false }}", "FalseTrueFalseTrueFalse")

# ---------------------------------------------------------------- scopes and loops
point(37)
c("set in a loop ends with the iteration", "{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}", "2,3,1")
c("a namespace does not", "{% set ns = namespace(x=1) %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{{ ns.x }},{% endfor %}{{ ns.x }}", "2,4,4")
c("set in an if leaks", "{% if true %}{% set x = 1 %}{% endif %}{{ x }}", "1")
c("set in an else leaks", "{% if false %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}", "2")
c("an if that is not taken leaves it", "{% set x = 0 %}{% if false %}{% set x = 1 %}{% endif %}{{ x }}", "0")
c("an if not taken leaves a new name undefined", "{% if false %}{% set x = 1 %}{% endif %}{{ x is defined }}", "False")
c("an if not taken shows the variable given", "{% if false %}{% set x = 1 %}{% endif %}{{ x }}", "v", x="v")
c("a set over a variable given", "{% set x = x + '!' %}{{ x }}", "v!", x="v")
c("loop variables are gone", "{% for i in [1,2] %}{% endfor %}{{ i is defined }}", "False")
c("a loop variable hides and gives back", "{% set i = 'o' %}{% for i in [1,2] %}{{ i }}{% endfor %}{{ i }}", "12o")
c("set in an if in a loop", "{% set x = 'o' %}{% for i in [1,2] %}{% if i == 1 %}{% set x = 'n' %}{% endif %}{{ x }}{% endfor %}{{ x }}")
c("set in a loop, then the next pass", "{% for i in [1,2] %}{{ y is defined }}{% set y = i %}{{ y }}{% endfor %}")
c("a nested loop sees the outer set", "{% for i in [1,2] %}{% set y = i %}{% for j in [1] %}{{ y }}{% set y = 9 %}{{ y }}{% endfor %}{{ y }}{% endfor %}")
c("set of a loop's own name", "{% for i in [1,2] %}{% set i = i * 10 %}{{ i }}{% endfor %}", "1020")
c("set of messages to a slice", "{% set messages = messages[1:] %}{% for m in messages %}{{ m }}{% endfor %}", "bc", messages=["a", "b", "c"])
c("set of messages in an if", "{% if messages[0] == 'a' %}{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}{{ loop_messages }}", "['b']", messages=["a", "b"])
c("a with block", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "12False")
c("a set within a with block", "{% set x = 1 %}{% with %}{% set x = 2 %}{{ x }}{% endwith %}{{ x }}", "21")
c("a filter block's scope", "{% set x = 1 %}{% filter upper %}a{% set x = 2 %}{{ x }}{% endfilter %}{{ x }}")
c("the iterable is taken before the name", "{% set x = [1, 2] %}{% for x in x %}{{ x }}{% endfor %}{{ x }}", "12[1, 2]")
c("a set block's own scope", "{% set y %}{% set z = 1 %}{{ z }}{% endset %}{{ y }}{{ z is defined }}")

point(38)
c("set of an attribute of a dictionary raises", "{% set d.x = 1 %}", "!TemplateRuntimeError", d={})
c("of an undefined name", "{% set q.x = 1 %}")
c("of a namespace", "{% set ns = namespace() %}{% set ns.x = 1 %}{{ ns.x }}{{ ns['x'] }}")
c("a missing attribute of a namespace", "{% set ns = namespace() %}[{{ ns.x }}]{{ ns.x is defined }}", "[]False")
c("a namespace of a dictionary", "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}", "12")
c("a leading underscore is refused at the start", "{{ namespace(_a=1) }}", "!SecurityError")
c("and in a set", "{% set ns = namespace() %}{% set ns._a = 1 %}", "!SecurityError")
c("a namespace called self", "{% set ns = namespace(self=1) %}{{ ns.self }}", "1")
c("two names at once", "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}")
c("a block into a namespace", "{% set ns = namespace() %}{% set ns.a %}x{{ 1 }}{% endset %}{{ ns.a }}", "x1")
c("a namespace is always true", "{{ 'a' if namespace() else 'b' }}", "a")
c("a namespace's items", "{{ namespace(a=1).items() }}")
c("a namespace is no mapping", "{{ namespace(a=1) is mapping }}{{ namespace(a=1) is iterable }}", "FalseFalse")
c("an item of a namespace's list", "{% set ns = namespace(l=[1,2]) %}{{ ns.l[0] }}", "1")
c("set of an item", "{% set d['x'] = 1 %}", "!TemplateSyntaxError", d={})
c("set of a deep attribute", "{% set a.b.c = 1 %}", "!TemplateSyntaxError")
c("a namespace in a macro is the same", "{% set ns = namespace(n=0) %}{% macro m() %}{% set ns.n = ns.n + 1 %}{% endmacro %}{{ m() }}{{ m() }}{{ ns.n }}", "2")
c("a namespace of a list of pairs", "{{ namespace([['a', 1]]).a }}", "1")

point(39)
c("a macro sees names set later", "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}", "1")
c("a macro sees names changed later", "{% set x = 0 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}", "1")
c("not the caller's loop variable", "{% macro m() %}[{{ i }}]{% endmacro %}{% for i in [1] %}{{ m() }}{% endfor %}", "[]")
c("nor loop", "{% macro m() %}{{ loop is defined }}{% endmacro %}{% for i in [1] %}{{ m() }}{% endfor %}", "False")
c("missing arguments are undefined", "{% macro m(a, b) %}[{{ a }}{{ b }}]{{ b is defined }}{% endmacro %}{{ m(1) }}", "[1]False")
c("extra arguments raise", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "!TypeError")
c("unknown keywords raise", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}", "!TypeError")
c("varargs", "{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2, 3) }}", "1(2, 3)")
c("kwargs", "{% macro m(a) %}{{ a }}{{ kwargs }}{% endmacro %}{{ m(1, b=2) }}", "1{'b': 2}")
c("defaults", "{% macro m(a, b='d', c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, 2, 3) }}{{ m(1, c=5) }}", "1d11231d5")
c("an argument given as undefined takes the default", "{% macro m(a='d') %}[{{ a }}]{% endmacro %}{{ m(x) }}")
c("a default that names a top-level value", "{% set t = 'T' %}{% macro m(a=t) %}{{ a }}{% endmacro %}{% set t = 'U' %}{{ m() }}")
c("the same argument twice", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "!TypeError")
c("a macro calls itself", "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "3210")
c("a macro calls a later one", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "B")
c("a macro in a loop", "{% for i in [1] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}{{ m is defined }}")
c("a macro in an if", "{% if true %}{% macro m() %}M{% endmacro %}{% endif %}{{ m() }}", "M")
c("a set in a macro does not leak", "{% set x = 1 %}{% macro m() %}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}", "21")
c("a macro's value is a string", "{% macro m() %} a {% endmacro %}[{{ m()|trim }}]{{ m() is string }}{{ m()|length }}", "[a]True3")
c("a macro's value in a condition", "{% macro m() %}{% endmacro %}{% if m() %}a{% else %}b{% endif %}", "b")
c("name and arguments of a macro", "{% macro m(a, b) %}{% endmacro %}{{ m.name }}{{ m.arguments }}", "m('a', 'b')")
c("a macro's white space", "{% macro m() %}\n  {% if 1 %}\n  x\n  {% endif %}\n{% endmacro %}\n[{{ m() }}]", "[  x\n]")
c("a macro hides a variable", "{% macro x() %}M{% endmacro %}{{ x() }}", "M", x="v")
c("a macro as an argument", "{% macro a() %}A{% endmacro %}{% macro b(f) %}{{ f() }}{% endmacro %}{{ b(a) }}", "A")
c("a call block", "{% macro m(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call m('b') %}x{% endcall %}", "<b>x</b>")
c("a call block with arguments", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}-{{ b }}{% endcall %}", "1-2")
c("caller without a call block", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "False")
c("a call of what names no caller", "{% macro m() %}a{% endmacro %}{% call m() %}x{% endcall %}")
c("a default after none", "{% macro m(a=1, b) %}{% endmacro %}", "!TemplateSyntaxError")
c("unpacked arguments", "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}", "1234")
c("a macro reads variables given", "{% macro m() %}{{ x }}{% endmacro %}{{ m() }}", "v", x="v")
c("a macro called before it is defined", "{{ m() }}{% macro m() %}M{% endmacro %}", "!UndefinedError")
c("macro in macro", "{% macro a() %}{% macro b() %}B{% endmacro %}{{ b() }}{% endmacro %}{{ a() }}{{ b is defined }}", "BFalse")
c("a set inside an if, seen in a macro", "{% if true %}{% set x = 5 %}{% endif %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}", "5")
c("a name of a block around a macro", "{% with y = 3 %}{% macro m() %}{{ y }}{% endmacro %}{{ m() }}{% endwith %}", "3")

point(40)
c("a filtered loop counts what passes", "{% for i in [1,2,3,4] if i is even %}{{ loop.index }}/{{ loop.length }}{{ loop.last }};{% endfor %}", "1/2False;2/2True;")
c("previtem of a filtered loop", "{% for i in [1,2,3,4] if i is even %}{{ loop.previtem }},{{ loop.nextitem }};{% endfor %}", ",4;2,;")
c("else of a filtered loop", "{% for i in [1,3] if i is even %}x{% else %}e{% endfor %}", "e")
c("else after break", "{% for i in [1] %}{% break %}{% else %}e{% endfor %}", "e")
c("else after continue", "{% for i in [1] %}{% continue %}{% else %}e{% endfor %}", "e")
c("no else after a full pass", "{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}x{% else %}e{% endfor %}", "x")
c("else of an empty loop", "{% for i in [] %}x{% else %}e{% endfor %}", "e")
c("break", "{% for i in [1,2,3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1")
c("continue", "{% for i in [1,2,3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13")
c("break of the inner loop only", "{% for i in [1,2] %}{% for j in [1,2] %}{% break %}{% endfor %}{{ i }}{% endfor %}", "12")
c("the attributes of a loop", "{% for i in 'abc' %}{{ [loop.index, loop.index0, loop.revindex, loop.revindex0, loop.first, loop.last, loop.length, loop.depth, loop.depth0] }}{% endfor %}")
c("cycle", "{% for i in range(5) %}{{ loop.cycle('a', 'b', 'c') }}{% endfor %}", "abcab")
c("changed", "{% for i in [1,1,2,2,1] %}{{ loop.changed(i) }},{% endfor %}", "True,False,True,False,True,")
c("a condition with the loop's variable and outer ones", "{% set n = 2 %}{% for i in [1,2,3] if i >= n %}{{ i }}{% endfor %}", "23")
c("a condition with a pair", "{% for k, v in d.items() if v %}{{ k }}{% endfor %}", "b", d={"a": 0, "b": 1})
c("a recursive loop", "{% for n in t recursive %}{{ n.v }}{% if n.c %}[{{ loop(n.c) }}]{% endif %}{% endfor %}", "1[2[3]]4", t=[{"v": 1, "c": [{"v": 2, "c": [{"v": 3}]}]}, {"v": 4}])
c("depth of a recursive loop", "{% for n in t recursive %}{{ loop.depth }}{% if n.c %}{{ loop(n.c) }}{% endif %}{% endfor %}", "12", t=[{"c": [{}]}])
c("a loop over a string", "{% for ch in 'héé' %}{{ ch }}.{% endfor %}", "h.é.é.")
c("a loop over a range", "{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{% for i in range(2, 2) %}x{% endfor %}", "012531")
c("a range with step zero", "{{ range(1, 2, 0) }}", "!ValueError")
c("a range of a float", "{{ range(2.0) }}", "!TypeError")
c("a loop over a number", "{% for i in 5 %}{% endfor %}", "!TypeError")
c("a loop over a generator has its length", "{% for i in [1,2,3]|map('string') %}{{ loop.length }}{{ loop.last }}{{ loop.revindex }};{% endfor %}")
c("a loop over a slice", "{% for i in l[1:] %}{{ loop.index0 }}{{ i }}{% endfor %}", "0b1c", l=["a", "b", "c"])
c("a loop over a literal tuple without brackets", "{% for i in 1, 2, 3 %}{{ i }}{% endfor %}", "123")
c("break outside a loop", "{% break %}", "!SyntaxError")
c("a loop inside an else", "{% for i in [] %}{% else %}{% for j in [1] %}{{ loop.index }}{{ j }}{% endfor %}{% endfor %}", "11")
c("loop in else", "{% for i in [] %}{% else %}{{ loop is defined }}{% endfor %}")
c("three names", "{% for a, b, c in [[1,2,3]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123")
c("nested names", "{% for a, (b, c) in [[1,[2,3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123")

point(41)
c("previtem at the first is undefined", "{% for i in [1,2] %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}", "FalseTrue;TrueFalse;")
c("its attribute raises", "{% for m in l %}{{ loop.previtem.role }}{% endfor %}", "!UndefinedError", l=[{"role": "user"}])
c("the attribute of the next at the end", "{% for m in l %}{{ loop.nextitem.role }}{% endfor %}", "!UndefinedError", l=[{"role": "user"}])
c("guarded by first", "{% for m in l %}{% if loop.first or loop.previtem.role != m.role %}<{{ m.role }}>{% endif %}{% endfor %}", "<user><tool>", l=[{"role": "user"}, {"role": "tool"}, {"role": "tool"}])
c("guarded by last", "{% for m in l %}{{ m.role }}{% if loop.last or loop.nextitem.role != 'tool' %};{% endif %}{% endfor %}", "usertooltool;", l=[{"role": "user"}, {"role": "tool"}, {"role": "tool"}])
c("over a generator", "{% for i in [1,2,3]|map('string') %}{{ loop.previtem }}<{{ loop.nextitem }};{% endfor %}", "<2;1<3;2<;")
c("over pairs", "{% for k, v in d.items() %}{{ loop.nextitem }}{% endfor %}", "('b', 2)", d={"a": 1, "b": 2})
c("guarded by default", "{% for i in [1,2] %}{{ loop.nextitem|default('end') }}{% endfor %}", "2end")

point(42)
c("the outer loop is saved by set", "{% for i in [1,2] %}{% set outer = loop %}{% for j in [1,2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}", "11 12 21 22 ")
c("loop outside is undefined", "{{ loop is defined }}[{{ loop }}]", "False[]")
c("loop after a loop is undefined", "{% for i in [1] %}{% endfor %}{{ loop is defined }}", "False")
c("loop.first outside raises", "{{ loop.first }}", "!UndefinedError")
c("a variable called loop", "{{ loop }}", "v", loop="v")
c("loop after the inner one", "{% for i in [1,2] %}{% for j in [1,2,3] %}{% endfor %}{{ loop.index }}{% endfor %}", "12")
c("the inner loop's iterable sees the outer loop", "{% for i in [1,2] %}{% for j in range(loop.index) %}{{ j }}{% endfor %};{% endfor %}", "0;01;")
c("loop in the condition of a loop", "{% for i in [1,2] if loop.first %}{{ i }}{% endfor %}")
c("loop in an if inside", "{% for i in [1,2] %}{% if not loop.last %}{{ i }},{% else %}{{ i }}{% endif %}{% endfor %}", "1,2")
c("set of loop is refused", "{% set loop = 1 %}{{ loop }}")
c("a loop variable called loop", "{% for loop in [1] %}{{ loop }}{% endfor %}", "!TemplateAssertionError")

point(43)
c("what is set inside is gone", "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x is defined }}", "1False")
c("loop and outer names are visible", "{% set y = 'o' %}{% for i in [1] %}{% generation %}{{ loop.index }}{{ i }}{{ y }}{% endgeneration %}{% endfor %}", "11o")
c("break inside is an error", "{% for i in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "!SyntaxError")
c("white space around", "a\n  {% generation %}\n  b\n  {% endgeneration %}\nc", "a\n  b\nc")
c("strip marks", "a\n{%- generation -%}\n  b\n{%- endgeneration -%}\nc", "abc")
c("a namespace inside lasts", "{% set ns = namespace(a=1) %}{% generation %}{% set ns.a = 2 %}{% endgeneration %}{{ ns.a }}", "2")
c("a set over an outer name inside", "{% set x = 1 %}{% generation %}{% set x = x + 1 %}{{ x }}{% endgeneration %}{{ x }}")
c("a loop inside", "{% generation %}{% for i in [1,2] %}{{ i }}{% endfor %}{% endgeneration %}", "12")
c("in a macro", "{% macro m(a) %}{% generation %}{{ a }}{% endgeneration %}{% endmacro %}{{ m(1) }}", "1")
c("an if inside", "{% generation %}{% if 1 %}a{% endif %}{% endgeneration %}", "a")
c("without its end", "{% generation %}a", "!TemplateSyntaxError")
c("its end with another name", "{% generation %}a{% endgen %}", "!TemplateSyntaxError")
c("with a name after it", "{% generation x %}a{% endgeneration %}")
c("continue inside is an error", "{% for i in [1] %}{% generation %}{% continue %}{% endgeneration %}{% endfor %}")
c("a variable called generation", "{{ generation }}", "v", generation="v")
c("caller inside", "{% generation %}{{ caller is defined }}{% endgeneration %}")
c("nested", "{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}", "ab")

point(44)
c("a block gives a string", "{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ x is string }}{{ x|length }}", "a1True2")
c("a filter on a block", "{% set x | trim %}  a  {% endset %}[{{ x }}]", "[a]")
c("two filters on a block", "{% set x | trim | upper %}  a  {% endset %}[{{ x }}]", "[A]")
c("a filter with arguments on a block", "{% set x | replace('a', 'b') %}aa{% endset %}{{ x }}", "bb")
c("the body takes part in trim and lstrip", "{% set x %}\n  a\n  {% endset %}\n[{{ x }}]", "[  a\n]")
c("strip marks", "{% set x -%}\n  a\n  {%- endset %}[{{ x }}]", "[a]")
c("an empty block", "{% set x %}{% endset %}[{{ x }}]{{ x == '' }}{{ 'a' if x else 'b' }}", "[]Trueb")
c("a loop in a block", "{% set x %}{% for i in [1,2] %}{{ i }}{% endfor %}{% endset %}{{ x }}", "12")
c("a filter block", "{% filter upper %}a{{ 'b' }}{% endfilter %}", "AB")
c("a filter block with two filters", "{% filter trim|upper %}  a {% endfilter %}|", "A|")
c("a filter block with arguments", "{% filter indent(2) %}a\nb{% endfilter %}", "a\n  b")
c("a block in a loop", "{% for i in [1,2] %}{% set x %}{{ i }}{% endset %}{{ x }}{% endfor %}{{ x is defined }}", "12False")
c("plus with a block", "{% set x %}<{% endset %}{{ x + '<b>' }}", "<<b>")
c("a block's value is no Markup", "{% set x %}<{% endset %}{{ x is escaped }}{{ x|e }}")
c("a set with a comparison", "{% set x = 1 == 1 %}{{ x }}", "True")
c("a set without value or end", "{% set x %}", "!TemplateSyntaxError")
c("a set of two names from a list", "{% set a, b = [1, 2] %}{{ a }}{{ b }}", "12")
c("a set of too many names", "{% set a, b = [1] %}", "!ValueError")

point(45)
c("do is unknown", "{% do 1 %}", "!TemplateSyntaxError")
c("unknown tag", "{% foo %}", "!TemplateSyntaxError")
c("trans is unknown", "{% trans %}a{% endtrans %}", "!TemplateSyntaxError")
c("an unknown filter", "{{ 1|nope }}", "!TemplateAssertionError")
c("an unknown test", "{{ 1 is nope }}", "!TemplateAssertionError")
c("an unknown filter in an if not taken", "{% if false %}{{ 1|nope }}{% endif %}a", "a")
c("an unknown filter in an if taken", "{% if true %}{{ 1|nope }}{% endif %}a", "!TemplateRuntimeError")
c("an unknown filter in an else", "{% if true %}a{% else %}{{ 1|nope }}{% endif %}", "a")
c("an unknown filter in an elif's body", "{% if true %}a{% elif true %}{{ 1|nope }}{% endif %}", "a")
c("an unknown filter in a condition", "{% if 1|nope %}a{% endif %}")
c("an unknown filter in an elif's condition", "{% if true %}a{% elif 1|nope %}b{% endif %}")
c("an unknown filter in a ternary's branch", "{{ 1|nope if false else 2 }}")
c("an unknown filter in a ternary's condition", "{{ 1 if 2|nope else 2 }}")
c("an unknown test in an if not taken", "{% if false %}{{ 1 is nope }}{% endif %}a", "a")
c("an unknown test in an if taken", "{% if true %}{{ 1 is nope }}{% endif %}a", "!TemplateRuntimeError")
c("an unknown filter in a loop not entered", "{% for i in [] %}{{ 1|nope }}{% endfor %}a")
c("an unknown filter in a loop in an if", "{% if false %}{% for i in [1] %}{{ 1|nope }}{% endfor %}{% endif %}a")
c("an unknown filter in a macro not called", "{% macro m() %}{{ 1|nope }}{% endmacro %}a")
c("an unknown filter in an if in a macro", "{% macro m() %}{% if false %}{{ 1|nope }}{% endif %}M{% endmacro %}{{ m() }}")
c("an unknown filter in a set in an if", "{% if x is string %}{% set x = x|from_json %}{% endif %}{{ x }}", "1", x=1)
c("the same where the branch is taken", "{% if x is string %}{% set x = x|from_json %}{% endif %}{{ x }}", "!TemplateRuntimeError", x="{}")
c("an unknown filter in a filter block", "{% filter nope %}a{% endfilter %}")
c("an unknown filter named for map", "{{ [1]|map('nope')|list }}")
c("an unknown test named for select", "{{ [1]|select('nope')|list }}")
c("an unknown filter named for map that is not run", "{{ []|map('nope')|list }}")
c("an unknown function", "{{ nope() }}", "!UndefinedError")
c("an unknown function in text not reached", "{% if false %}{{ nope() }}{% endif %}a", "a")
c("endif without if", "a{% endif %}", "!TemplateSyntaxError")
c("if without endif", "{% if 1 %}a", "!TemplateSyntaxError")
c("else twice", "{% if 1 %}a{% else %}b{% else %}c{% endif %}", "!TemplateSyntaxError")
c("elif after else", "{% if 1 %}a{% else %}b{% elif 1 %}c{% endif %}", "!TemplateSyntaxError")
c("an if without a condition", "{% if %}a{% endif %}", "!TemplateSyntaxError")
c("endfor for if", "{% if 1 %}a{% endfor %}", "!TemplateSyntaxError")
c("names after endif", "{% if 1 %}a{% endif x %}", "!TemplateSyntaxError")
c("endfor with words", "{% for i in [1] %}a{% endfor i %}")
c("an error late in the text writes nothing", "abc{{ 1 + 'a' }}", "!TypeError")
c("include needs a loader", "{% include 'a' %}")
c("import needs a loader", "{% import 'a' as b %}")
c("extends needs a loader", "{% extends 'a' %}")
c("a block tag", "{% block a %}x{% endblock %}y")
c("autoescape's tag", "{% autoescape true %}{{ '<' }}{% endautoescape %}")
c("variables called call, block, set, macro, filter, raw", "{{ call }}{{ block }}{{ set }}{{ macro }}{{ filter }}{{ raw }}", "123456", call=1, block=2, set=3, macro=4, filter=5, raw=6)
c("loop variables called call and block", "{% for call in [1] %}{{ call }}{% endfor %}{% for block in [2] %}{{ block }}{% endfor %}{% set filter = 3 %}{{ filter }}", "123")
c("names that are keywords elsewhere", "[{{ in }}][{{ if }}][{{ is }}][{{ for }}]")
c("an attribute that is a keyword", "{{ d.if }}{{ d.for }}{{ d.in }}{{ d.is }}{{ d.not }}", "12345", d={"if": 1, "for": 2, "in": 3, "is": 4, "not": 5})

# ---------------------------------------------------------------- filters and methods
point(46)
for expression in ("l|map('upper')", "l|select", "l|reject", "l|selectattr('a')", "l|rejectattr('a')", "d|items", "l|unique", "l|batch(2)", "l|slice(2)"):
    c(f"{expression} is a generator", "{{ 'true' if (" + expression + ") else 'false' }}{{ ((" + expression + ")|string)[:11] }}{{ (" + expression + ") is iterable }}{{ (" + expression + ") is sequence }}", l=[], d={})
    c(f"{expression} has no length", "{{ (" + expression + ")|length }}", "!TypeError", l=["a"], d={"a": 1})
c("reverse of a list is an iterator", "{{ ([1]|reverse|string)[:5] }}{{ [1,2]|reverse|list }}{{ 'a' if []|reverse else 'b' }}")
c("reverse of a string is a string", "{{ 'abc'|reverse }}", "cba")
c("reverse of a dictionary and a number", "{{ {'a':1,'b':2}|reverse|list }}")
c("reverse of a number", "{{ 5|reverse }}")
c("length of a reversed list", "{{ [1,2]|reverse|length }}")
c("exhausted after one pass", "{% set g = [1,2]|map('string') %}{{ g|join(',') }}|{{ g|join(',') }}|{% for i in g %}{{ i }}{% endfor %}", "1,2||")
c("first takes one", "{% set g = [1,2,3]|map('string') %}{{ g|first }}{{ g|list }}", "1['2', '3']")
c("join and for work", "{{ ['a','b']|map('upper')|join('-') }}{% for x in ['a']|map('upper') %}{{ x }}{% endfor %}", "A-BA")
c("an index of a generator", "[{{ ([1]|map('string'))[0] }}]")
c("last of a generator", "{{ [1,2]|map('string')|last }}")
c("in of a generator", "{{ '2' in [1,2]|map('string') }}{{ 'x' in ['a']|map('upper') }}")
c("in takes from a generator", "{% set g = [1,2,3]|map('string') %}{{ '2' in g }}{{ g|list }}")
c("map by attribute", "{{ l|map(attribute='a')|list }}", "[1, 2]", l=[{"a": 1}, {"a": 2}])
c("map by a deep attribute", "{{ l|map(attribute='a.b')|list }}", "[1]", l=[{"a": {"b": 1}}])
c("map by an index", "{{ l|map(attribute=0)|list }}{{ l|map(attribute='1')|list }}", l=[["a", "b"]])
c("map by an attribute that is missing", "{{ l|map(attribute='a')|list }}", "[1, Undefined]", l=[{"a": 1}, {}])
c("map by an attribute with a default", "{{ l|map(attribute='a', default='d')|list }}", "[1, 'd']", l=[{"a": 1}, {}])
c("map with a filter's arguments", "{{ ['a-b', 'c']|map('replace', '-', '+')|list }}{{ [1.234]|map('round', 1)|list }}", "['a+b', 'c'][1.2]")
c("map without arguments", "{{ [1]|map|list }}", "!FilterArgumentError")
c("map with an unknown keyword", "{{ [1]|map(foo='a')|list }}")
c("map of trim, string, tojson, length, int", "{{ [' a ']|map('trim')|list }}{{ [1]|map('string')|list }}{{ [{'a':1}]|map('tojson')|list }}{{ ['ab']|map('length')|list }}{{ ['3']|map('int')|sum }}")
c("map over a string and a dictionary", "{{ 'ab'|map('upper')|list }}{{ {'a': 1}|map('upper')|list }}", "['A', 'B']['A']")
c("map over none", "{{ none|map('upper')|list }}")
c("a generator's error comes when it is run", "{% set g = none|map('upper') %}a")
c("select", "{{ [0, 1, '', 'a', none]|select|list }}{{ [0, 1, '']|reject|list }}", "[1, 'a'][0, '']")
c("select by a test", "{{ [1,2,3]|select('odd')|list }}{{ [1,2,3]|reject('odd')|list }}{{ [1,2,3]|select('gt', 1)|list }}{{ [1,2]|select('equalto', 2)|list }}{{ [1,2]|select('in', [2])|list }}", "[1, 3][2][2, 3][2][2]")
c("selectattr", "{{ l|selectattr('a')|list }}", "[{'a': 1}]", l=[{"a": 1}, {"a": 0}, {}])
c("selectattr by a test", "{{ l|selectattr('role', 'equalto', 'user')|list }}{{ l|rejectattr('role', 'eq', 'user')|list }}", l=[{"role": "user"}, {"role": "tool"}])
c("selectattr by an operator", "{{ l|selectattr('n', '>', 1)|list }}{{ l|selectattr('n', '==', 1)|list }}{{ l|selectattr('n', '!=', 1)|list|length }}{{ l|selectattr('n', '<=', 1)|list|length }}", l=[{"n": 1}, {"n": 2}])
c("selectattr defined and undefined", "{{ l|selectattr('t', 'defined')|list|length }}{{ l|selectattr('t', 'undefined')|list|length }}{{ l|selectattr('t', 'none')|list|length }}", "211", l=[{"t": 1}, {"t": None}, {}])
c("selectattr by a deep attribute", "{{ l|selectattr('a.b', 'eq', 1)|list|length }}", "1", l=[{"a": {"b": 1}}, {"a": {"b": 2}}])
c("selectattr below a missing one", "{{ l|selectattr('a.b', 'defined')|list|length }}", l=[{"c": 1}])
c("selectattr without arguments", "{{ [1]|selectattr|list }}", "!FilterArgumentError")
c("selectattr of an attribute called items", "{{ l|selectattr('items')|list|length }}", l=[{"items": 0}, {}])
c("chained", "{{ l|selectattr('role', 'eq', 'user')|map(attribute='c')|join(',') }}", "a,b", l=[{"role": "user", "c": "a"}, {"role": "x", "c": "z"}, {"role": "user", "c": "b"}])
c("list of a string, a tuple, a range", "{{ 'abc'|list }}{{ (1,2)|list }}{{ range(2)|list }}", "['a', 'b', 'c'][1, 2][0, 1]")
c("list of a number", "{{ 5|list }}", "!TypeError")
c("first and last", "{{ [1,2]|first }}{{ [1,2]|last }}{{ 'abc'|first }}{{ 'abc'|last }}[{{ []|first }}][{{ []|last }}]{{ ''|first is defined }}", "12ac[][]False")
c("first of a number", "{{ 5|first }}", "!TypeError")
c("random's name is known", "{{ [7]|random }}", "7")
c("length of kinds", "{{ 'abc'|length }}{{ [1]|length }}{{ {}|length }}{{ range(4)|length }}{{ (1,2)|count }}{{ {'a':1}.items()|length }}", "310421")
c("length of a number", "{{ 5|length }}", "!TypeError")
c("items of a dictionary", "{% for k, v in {'a': 1}|items %}{{ k }}{{ v }}{% endfor %}{{ {'a': 1}|items|list }}", "a1[('a', 1)]")
c("items of a list", "{{ [1]|items|list }}", "!TypeError")
c("items of a string", "{{ 'a'|items|list }}", "!TypeError")
c("batch", "{{ [1,2,3]|batch(2)|list }}{{ [1,2,3]|batch(2, 'x')|list }}{{ []|batch(2)|list }}", "[[1, 2], [3]][[1, 2], [3, 'x']][]")
c("slice", "{{ [1,2,3,4,5]|slice(2)|list }}{{ [1,2,3,4,5]|slice(3, 'x')|list }}{{ [1]|slice(3)|list }}")
c("sum", "{{ [1,2,3]|sum }}{{ [0.5,1]|sum }}{{ []|sum }}{{ l|sum(attribute='a') }}{{ [1]|sum(start=10) }}", "61.50311", l=[{"a": 1}, {"a": 2}])
c("sum of strings", "{{ ['a']|sum }}", "!TypeError")
c("sum of lists with a start", "{{ [[1],[2]]|sum(start=[]) }}", "[1, 2]")

point(47)
c("sort ignores case", "{{ ['b', 'A', 'a', 'B']|sort }}", "['A', 'a', 'b', 'B']")
c("sort with case", "{{ ['b', 'A', 'a', 'B']|sort(case_sensitive=true) }}", "['A', 'B', 'a', 'b']")
c("sort in reverse", "{{ [1, 3, 2]|sort(reverse=true) }}{{ [1, 3, 2]|sort(true) }}", "[3, 2, 1][3, 2, 1]")
c("sort is stable in reverse", "{{ l|sort(attribute='a', reverse=true)|map(attribute='b')|join }}", l=[{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "z"}])
c("sort by attribute", "{{ l|sort(attribute='a')|map(attribute='a')|join }}", "123", l=[{"a": 2}, {"a": 3}, {"a": 1}])
c("sort by two attributes", "{{ l|sort(attribute='a,b')|map(attribute='b')|join }}", l=[{"a": 2, "b": "x"}, {"a": 1, "b": "z"}, {"a": 1, "b": "y"}])
c("sort by an attribute that is missing", "{{ l|sort(attribute='a')|list }}", l=[{"a": 2}, {}])
c("sort of mixed kinds", "{{ [1, 'a']|sort }}", "!TypeError")
c("sort of a dictionary and a string", "{{ {'b': 1, 'a': 2}|sort }}{{ 'bca'|sort }}", "['a', 'b']['a', 'b', 'c']")
c("sort of none and numbers", "{{ [none, 1]|sort }}", "!TypeError")
c("sort of numbers", "{{ [2, 1.5, true, 10]|sort }}")
c("dictsort", "{{ {'b': 1, 'A': 2, 'c': 0}|dictsort }}", "[('A', 2), ('b', 1), ('c', 0)]")
c("dictsort with case", "{{ {'b': 1, 'A': 2, 'a': 0}|dictsort(true) }}{{ {'b': 1, 'A': 2, 'a': 0}|dictsort(case_sensitive=true) }}")
c("dictsort by value", "{{ {'b': 1, 'A': 2, 'c': 0}|dictsort(false, 'value') }}{{ {'b': 1, 'A': 2}|dictsort(by='value') }}")
c("dictsort in reverse", "{{ {'b': 1, 'A': 2}|dictsort(reverse=true) }}", "[('b', 1), ('A', 2)]")
c("dictsort by another word", "{{ {}|dictsort(by='x') }}", "!FilterArgumentError")
c("dictsort in a loop", "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}", "a=2;b=1;", d={"b": 1, "a": 2})
c("dictsort of a list", "{{ [1]|dictsort }}")
c("dictsort of mixed keys", "{{ {1: 1, 'a': 2}|dictsort }}", "!TypeError")
c("unique ignores case", "{{ ['a', 'A', 'b', 'a']|unique|list }}{{ ['a', 'A']|unique(case_sensitive=true)|list }}", "['a', 'b']['a', 'A']")
c("unique of numbers", "{{ [1, 1.0, true, 2]|unique|list }}", "[1, 2]")
c("unique by attribute", "{{ l|unique(attribute='a')|list }}", l=[{"a": 1, "b": 1}, {"a": 1, "b": 2}])
c("unique of lists", "{{ [[1], [1]]|unique|list }}", "!TypeError")
c("min and max ignore case", "{{ ['b', 'A']|min }}{{ ['b', 'A']|max }}{{ ['b', 'C', 'a']|max }}", "AbC")
c("min and max with case", "{{ ['b', 'A']|min(case_sensitive=true) }}{{ ['b', 'C']|max(true) }}")
c("min and max of numbers", "{{ [3, 1.5, 2]|min }} {{ [3, 1.5, 2]|max }} [{{ []|min }}] {{ [1, 1.0]|max }} {{ [true, 1]|min }}")
c("min by attribute", "{{ l|min(attribute='a') }}{{ l|max(attribute='a') }}", l=[{"a": 2}, {"a": 1}])
c("groupby", "{% for k, g in l|groupby('a') %}{{ k }}:{{ g|map(attribute='b')|join }};{% endfor %}", l=[{"a": "y", "b": 1}, {"a": "x", "b": 2}, {"a": "Y", "b": 3}])
c("groupby by its names", "{% for g in l|groupby('a') %}{{ g.grouper }}{{ g.list|length }};{% endfor %}", l=[{"a": 2}, {"a": 1}, {"a": 2}])
c("groupby with case", "{{ l|groupby('a', case_sensitive=true)|map(attribute='grouper')|list }}", l=[{"a": "b"}, {"a": "B"}])
c("groupby with a default", "{{ l|groupby('a', default='z')|map(attribute=0)|list }}", l=[{"a": "b"}, {}])
c("the printing of a group", "{{ [{'a': 1}]|groupby('a') }}")

point(48)
c("title filter and method", "{{ \"it's a-b c_d e.f 1g\"|title }}|{{ \"it's a-b c_d e.f 1g\".title() }}")
c("title of mixed case", "{{ 'hELLO wORLD'|title }}|{{ 'hELLO wORLD'.title() }}", "Hello World|Hello World")
c("title with brackets and quotes", "{{ 'a (b [c {d <e \"f \\'g'|title }}")
c("title of non-ASCII", "{{ 'élan ǆ ßa'|title }}|{{ 'élan ǆ ßa'.title() }}")
c("title of lines and tabs", "{{ 'a\\nb\\tc'|title }}")
c("capitalize filter and method", "{{ 'hELLO WORLD'|capitalize }}|{{ 'hELLO WORLD'.capitalize() }}|{{ ''|capitalize }}|{{ 'éA'|capitalize }}|{{ 'ǆA'.capitalize() }}")
c("upper and lower", "{{ 'straße ﬁ'|upper }}|{{ 'İΑΣ'|lower }}|{{ 'aB'.upper() }}{{ 'aB'.lower() }}")
c("final sigma", "{{ 'ΑΣ ΑΣΑ Σ'|lower }}")
c("swapcase, casefold", "{{ 'aB'.swapcase() }}{{ 'Straße'.casefold() }}")
c("trim strips Unicode white space", "[{{ s|trim }}]", "[a]", s="\x1c\x1d\x1e\x1f\x85\u00a0\u3000\u2028\u2029\u1680\t\n\x0b\x0c\r a \u2000\u200a\u202f\u205f")
c("strip does too", "[{{ s.strip() }}]", "[a]", s="\x1c\x1d\x1e\x1f\x85\u00a0\u3000\u2028 a \u2000\u200a\u202f\u205f")
c("zero width characters stay", "{{ s|trim|length }}", "3", s="\u200ba\ufeff")
c("a set of characters", "{{ 'xyaxy'|trim('xy') }}|{{ 'xyaxy'.strip('yx') }}|{{ 'xyaxy'.lstrip('x') }}|{{ 'xyaxy'.rstrip('y') }}", "a|a|yaxy|xyax")
c("strip of newlines only", "{{ '\\n\\n a \\n'.strip('\\n')|tojson }}{{ '\\n a\\n'.lstrip('\\n')|tojson }}{{ 'a \\n\\n'.rstrip('\\n')|tojson }}")
c("strip of none and of nothing", "[{{ ' a '.strip(none) }}][{{ ' a '.strip('') }}]", "[a][ a ]")
c("strip with a number", "{{ 'a'.strip(1) }}", "!TypeError")
c("lstrip and rstrip", "[{{ '  a '.lstrip() }}][{{ ' a  '.rstrip() }}]", "[a ][ a]")
c("removeprefix and removesuffix", "{{ 'abcab'.removeprefix('ab') }}{{ 'abcab'.removesuffix('ab') }}{{ 'a'.removeprefix('x') }}", "cababca")
c("strip set with a token's text", "{{ '<think>kind</think>'.strip('<think>') }}")
c("trim of Markup stays Markup", "{{ (' <a> '|safe)|trim is escaped }}")
c("trim by keyword", "{{ 'xax'|trim(chars='x') }}", "a")

point(49)
c("split without argument", "{{ ' a  b\\tc\\n'.split() }}{{ ''.split() }}{{ '  '.split() }}", "['a', 'b', 'c'][][]")
c("split by a space", "{{ 'a  b'.split(' ') }}{{ ' a '.split(' ') }}", "['a', '', 'b']['', 'a', '']")
c("split by a word", "{{ 'a</think>b</think>c'.split('</think>') }}{{ 'abc'.split('</think>') }}", "['a', 'b', 'c']['abc']")
c("split counts cuts", "{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.split(',', 0) }}{{ 'a,b,c'.split(',', -1) }}{{ 'a,b,c'.split(',', maxsplit=1) }}", "['a', 'b,c']['a,b,c']['a', 'b', 'c']['a', 'b,c']")
c("split without separator counts cuts", "{{ '  a  b  c '.split(none, 1) }}{{ ' a b c '.split(maxsplit=1) }}")
c("split of the empty string", "{{ ''.split(',') }}", "['']")
c("split by the empty string", "{{ 'a'.split('') }}", "!ValueError")
c("split by a number", "{{ 'a'.split(1) }}", "!TypeError")
c("split with Unicode white space", "{{ s.split() }}", s="a\u00a0b\u3000c\x1cd\u200be")
c("rsplit", "{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b  c '.rsplit(none, 1) }}{{ 'a,b'.rsplit(',') }}")
c("splitlines", "{{ 'a\\nb\\r\\nc\\n'.splitlines() }}{{ 'a\\n\\nb'.splitlines(true) }}{{ s.splitlines() }}", s="a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\rh")
c("partition and rpartition", "{{ 'a:b:c'.partition(':') }}{{ 'a:b:c'.rpartition(':') }}{{ 'a'.partition(':') }}{{ 'a'.rpartition(':') }}")
c("first and last part", "{{ 'x</think>y'.split('</think>')[-1] }}{{ 'x</think>y'.split('</think>')[0] }}{{ ('x</think>y'.split('</think>')|last).lstrip('\\n') }}", "yxy")
c("overlapping separators", "{{ 'aaaa'.split('aa') }}", "['', '', '']")
c("join method", "{{ ','.join(['a', 'b']) }}{{ ''.join('abc') }}{{ '-'.join({'a': 1, 'b': 2}) }}", "a,babca-b")
c("join method with a number", "{{ ','.join([1]) }}", "!TypeError")

point(50)
family = "👨‍👩‍👧"
c("length goes by code point", "{{ s|length }}{{ '\\r\\n'|length }}{{ 'e\\u0301'|length }}", "522", s=family)
c("an index goes by code point", "{{ s[0] }}{{ s[-1] }}{{ s[1]|tojson(ensure_ascii=true) }}", s=family)
c("a slice goes by code point", "{{ s[1:3]|tojson(ensure_ascii=true) }}{{ s[::-1]|tojson(ensure_ascii=true) }}", s=family)
c("a loop goes by code point", "{% for ch in s %}{{ ch|tojson(ensure_ascii=true) }}{% endfor %}", s="🇩🇪é")
c("reversed text", "{{ 'abc'[::-1] }}{{ 'a\\r\\nb'[::-1]|tojson }}")
c("equality goes by code point", "{{ s == t }}{{ s in t }}{{ s|length }}{{ t|length }}", s="\u00e9", t="e\u0301")
c("a key goes by code point", "{{ d['\u00e9'] is defined }}{{ d['e\u0301'] }}", d={"e\u0301": 1})
c("replace within a cluster", "{{ 'e\\u0301'|replace('e', 'a')|tojson(ensure_ascii=true) }}{{ '\\r\\n'|replace('\\n', '')|tojson }}")
c("split within a cluster", "{{ 'a\\r\\nb'.split('\\n') }}", "['a\\r', 'b']")
c("startswith within a cluster", "{{ 'e\\u0301'.startswith('e') }}{{ 'a\\r\\n'.endswith('\\n') }}{{ 'e' in 'e\\u0301' }}", "TrueTrueTrue")
c("find and count by code point", "{{ s.find('b') }}{{ s.index('b') }}{{ 'ababa'.count('aba') }}{{ ''.count('') }}{{ 'abc'.count('') }}", s="👩‍👧b")
c("join of two halves of a cluster", "{{ ('e' ~ '\\u0301')|length }}{{ ['\\r', '\\n']|join|length }}", "22")
slices = ["[1:]", "[:2]", "[1:3]", "[-2:]", "[:-1]", "[::2]", "[::-1]", "[3:0:-1]", "[-1:-3:-1]", "[10:]", "[:10]", "[-10:2]", "[2:1]", "[:]", "[::]", "[1::2]", "[:3:2]", "[-1::-2]", "[10::-1]", "[:-10:-1]", "[none:2]", "[0:none]", "[1:none:none]", "[:0:-1]", "[-2::-1]", "[true:]"]
for part in slices:
    c(f"slice {part}", "{{ l" + part + " }}|{{ 'abcde'" + part + " }}|{{ (1,2,3)" + part + " }}", l=[1, 2, 3, 4, 5])
c("a slice with step zero", "{{ [1][::0] }}", "!ValueError")
c("a slice with a float", "{{ [1][1.0:] }}")
c("a slice with a string", "{{ [1]['a':] }}")
c("a slice of a dictionary", "{{ {'a': 1}[1:] }}")
c("a slice of a range", "{{ range(10)[2:5] }}{{ range(10)[::-1]|list }}{{ range(5)[-1] }}{{ range(5)[9] is defined }}")
c("a slice with expressions", "{{ l[n - 1:n + 1] }}{{ l[-n:] }}{{ l[:l|length - 1] }}", "[2, 3][3, 4][1, 2, 3]", l=[1, 2, 3, 4], n=2)
c("a slice then an index", "{{ l[1:][0] }}{{ l[::-1][0] }}{{ (l[1:])[-1] }}", "244", l=[1, 2, 3, 4])
c("an index without a value", "[{{ l[] }}]", l=[1, 2, 3])
c("two indexes in brackets", "[{{ l[1, 2] }}]", l=[1, 2, 3])

point(51)
c("startswith takes a tuple", "{{ 'abc'.startswith(('x', 'ab')) }}{{ 'abc'.endswith(('x', 'bc')) }}{{ 'abc'.startswith(()) }}", "TrueTrueFalse")
c("startswith takes no list", "{{ 'abc'.startswith(['a']) }}", "!TypeError")
c("startswith with start and end", "{{ 'abc'.startswith('b', 1) }}{{ 'abc'.endswith('b', 0, 2) }}{{ 'abc'.startswith('') }}{{ 'abc'.startswith('c', -1) }}", "TrueTrueTrueTrue")
c("startswith with none", "{{ 'abc'.startswith(none) }}", "!TypeError")
c("startswith with undefined", "{{ 'abc'.startswith(x) }}", "!TypeError")
c("find", "{{ 'abc'.find('z') }}{{ 'abc'.find('b') }}{{ 'abcb'.rfind('b') }}{{ 'abc'.find('b', 2) }}{{ 'abc'.find('') }}", "-113-10")
c("index raises", "{{ 'abc'.index('z') }}", "!ValueError")
c("replace with a count", "{{ 'aaaa'|replace('a', 'b', 2) }}{{ 'aaaa'.replace('a', 'b', 2) }}{{ 'aaaa'|replace('a', 'b', count=1) }}{{ 'aa'|replace('aa', '') }}|{{ 'ab'.replace('', '-') }}")
c("replace of a number", "{{ 101|replace('0', 'x') }}{{ 101|replace(0, 'x') }}")
c("replace with a number", "{{ 'a1'|replace('a', 2) }}")
c("replace method with a number", "{{ 'a1'.replace('a', 2) }}", "!TypeError")
c("replace of a list", "{{ [1, 2]|replace('1', 'x') }}", "[x, 2]")
c("replace of Markup", "{{ ('<a>'|safe)|replace('<', '&') }}|{{ '<a>'|replace('<', '&'|safe) }}")
c("tests of characters", "{{ ['12'.isdigit(), '1a'.isalnum(), 'ab'.isalpha(), ' '.isspace(), ''.isspace(), 'A'.isupper(), 'a'.islower(), 'Ab'.istitle(), '²'.isdigit(), '²'.isdecimal(), '½'.isnumeric(), 'a_1'.isidentifier(), 'é'.isascii(), '\\n'.isprintable()] }}")
c("padding", "[{{ 'a'.center(4) }}][{{ 'a'.ljust(3, '-') }}][{{ 'a'.rjust(3) }}][{{ '7'.zfill(3) }}][{{ '-7'.zfill(4) }}][{{ 'ab'.center(5, '*') }}]")
c("format method", "{{ '{} {1} {a}'.format(1, 2, a=3) }}")
c("format method with places", "{{ '{0}-{1}-{0}'.format('a', 'b') }}{{ '{a}{b}'.format(a=1, b='x') }}{{ '{{}}'.format() }}{{ '{}'.format(none) }}{{ '{}'.format([1,'a']) }}", "a-b-a1x{}None[1, 'a']")
c("format method with specifications", "[{{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{:x}|{:+}|{:%}|{:e}|{!r}|{:*^7}'.format('a', 'b', 'c', 42, 3.14159, 1234567, 255, 5, 0.25, 12345.678, 'q', 'mid') }}]")
c("format method with items and attributes", "{{ '{0[a]} {0[b]} {1[0]}'.format({'a': 1, 'b': 2}, [3]) }}")
c("format method with more behind a bracket", "{{ '{0[a{0 }[1:]][x]}'.format({'a': 1, 'b': 2}, [3]) }}", "!ValueError")
c("format method with a bracket behind a bracket", "{{ '{0[a]]}'.format({'a': 5}) }}", "!ValueError")
c("format method with an attribute without a name", "{{ '{0[a].}'.format({'a': 5}) }}", "!ValueError")
c("format method with a key without a name", "{{ '{0[]}'.format({'': 5}) }}", "!ValueError")
c("format method with a brace in a key", "{{ '{0[a{0}]}'.format({'a{0}': 5}) }}", "5")
c("format method with too few", "{{ '{} {}'.format(1) }}", "!IndexError")
c("format method with a missing name", "{{ '{a}'.format(1) }}", "!KeyError")
c("format filter", "{{ '%s-%s'|format('a', 1) }}{{ '%(a)s'|format(a=2) }}{{ '%05.1f'|format(3.14159) }}{{ '%d%%'|format(5) }}", "a-12003.15%")
c("format filter with both", "{{ '%s'|format(1, a=2) }}", "!FilterArgumentError")
c("format_map is refused or works", "{{ '{a}'.format_map({'a': 1}) }}")
c("encode", "{{ 'aé'.encode('utf-8')|length }}")
c("translate and maketrans exist", "{{ 'a'.expandtabs is callable }}{{ 'a\\tb'.expandtabs(4) }}")
c("a method with a wrong number of arguments", "{{ 'a'.upper(1) }}", "!TypeError")
c("a method with an unknown keyword", "{{ 'a'.strip(foo=1) }}", "!TypeError")
c("list methods", "{{ [1,2,1].count(1) }}{{ [1,2].index(2) }}{{ (1,2).index(2) }}{{ (1,1).count(1) }}", "2112")
c("list index raises", "{{ [1].index(2) }}", "!ValueError")
c("a method stored in a name", "{% set f = 'abc'.upper %}{{ f() }}", "ABC")

point(52)
text = "a\n\n  b\nc\n"
for arguments in ("", "(2)", "(2, true)", "(2, first=true)", "(2, false, true)", "(2, blank=true)", "(width=1, first=true, blank=true)", "('> ')", "('\\t', true)", "(0)"):
    c(f"indent{arguments}", "[{{ s|indent" + arguments + " }}]", s=text)
c("indent of one line", "{{ 'a'|indent(4) }}|{{ 'a'|indent(4, first=true) }}|{{ ''|indent(4) }}|{{ ''|indent(2, true) }}|", "a|    a||  |")
c("indent of a number", "{{ 5|indent }}")
c("indent of carriage returns and other line ends", "{{ s|indent(2)|tojson }}", s="a\r\nb\rc\u2028d\x0be")
c("indent of a text that ends in a newline", "{{ 'a\\nb\\n'|indent(2)|tojson }}{{ '\\n'|indent(2)|tojson }}{{ '\\n'|indent(2, true)|tojson }}")
c("indent by tojson", "{{ {'a': [1]}|tojson(indent=2)|indent(4) }}")
c("join writes none as None", "{{ [1, none, true, 'a', 2.0]|join(',') }}", "1,None,True,a,2.0")
c("join without separator", "{{ ['a', 'b']|join }}", "ab")
c("join by attribute", "{{ l|join(',', attribute='a') }}{{ l|join('-', 'a') }}", l=[{"a": 1}, {"a": 2}])
c("join of a string", "{{ 'abc'|join('-') }}", "a-b-c")
c("join with a number", "{{ ['a', 'b']|join(1) }}", "a1b")
c("join of undefined items", "{{ [x, 'a']|join(',') }}", ",a")
c("join of lists", "{{ [[1], {'a': 'b'}]|join(';') }}", "[1];{'a': 'b'}")
c("join of nothing", "[{{ []|join(',') }}]", "[]")
c("join of a number", "{{ 5|join(',') }}", "!TypeError")
c("join of none", "{{ none|join(',') }}", "!TypeError")
c("join of Markup", "{{ ['<', '<'|safe]|join('&') }}|{{ ['<', '>']|join('&'|safe) }}")
c("wordcount", "{{ 'a b, c-d it\\'s'|wordcount }}{{ ''|wordcount }}{{ 'é日本 語'|wordcount }}")
c("center", "[{{ 'a'|center(6) }}][{{ 'abc'|center(2) }}][{{ 'ab'|center(5) }}][{{ 5|center(3) }}]")
c("truncate", "{{ 'foo bar baz qux'|truncate(9) }}|{{ 'foo bar baz qux'|truncate(9, true) }}|{{ 'foo bar baz qux'|truncate(11) }}|{{ 'foo bar baz qux'|truncate(11, false, '!', 0) }}|{{ 'foo bar'|truncate(4, leeway=0, end='') }}")
c("wordwrap", "{{ 'aaa bbb ccc ddd'|wordwrap(7) }}|{{ 'aaaaaaaaaa'|wordwrap(4) }}|{{ 'a b\\nc d'|wordwrap(3) }}|{{ 'aaaaaa'|wordwrap(4, false) }}")
c("abs", "{{ -5|abs }}{{ (-5)|abs }}{{ (-2.5)|abs }}{{ 'a'|abs }}", "!TypeError")
c("filesizeformat", "{{ 1000|filesizeformat }}{{ 1|filesizeformat }}{{ 1024|filesizeformat(true) }}{{ 123456789|filesizeformat }}")
c("pprint", "{{ {'b': 1, 'a': [1, 'x']}|pprint }}")
c("xmlattr", "{{ {'a': '<', 'b': none, 'c': 1}|xmlattr }}")
c("striptags", "{{ '<b>a</b>  <!-- c --> d'|striptags }}")
c("urlencode", "{{ 'a b/é&'|urlencode }}{{ {'a': 'x y', 'b': 1}|urlencode }}")
c("forceescape", "{{ ('<'|safe)|forceescape }}{{ '<'|e|e }}")
c("attr and default", "{{ 'abc'|attr('upper') is callable }}{{ 'abc'|attr('nope')|default('d') }}")

point(53)
c("safe gives Markup that escapes the right side", "{{ ('<a>'|safe) + '<b>' }}", "<a>&lt;b&gt;")
c("and the left side", "{{ '<b>' + ('<a>'|safe) }}", "&lt;b&gt;<a>")
c("a tilde does not", "{{ ('<a>'|safe) ~ '<b>' }}", "<a><b>")
c("the tilde's result is plain", "{{ (('<a>'|safe) ~ '<b>') is escaped }}{{ (('<a>'|safe) ~ '<b>'|safe) is escaped }}")
c("Markup plus Markup", "{{ ('<a>'|safe) + ('<b>'|safe) }}", "<a><b>")
c("Markup plus none", "{{ ('a'|safe) + none }}", "!TypeError")
c("Markup's quotes are escaped", "{{ (''|safe) + '\"\\'&<>' }}")
c("escape", "{{ '<a & \"b\" \\'c\\'>'|e }}|{{ '<'|escape }}|{{ ('<'|safe)|escape }}")
c("Markup is a string", "{{ ('a'|safe) is string }}{{ ('a'|safe) == 'a' }}{{ ('ab'|safe)[0] }}{{ ('a'|safe)|length }}", "TrueTruea1")
c("methods keep Markup", "{{ ('<a>'|safe).upper() is escaped }}{{ ('a'|safe).split('x')[0] is escaped }}{{ ('a'|safe).strip() is escaped }}{{ ('ab'|safe)[1:] is escaped }}{{ ('a'|safe)|upper is escaped }}{{ ('a'|safe)|string is escaped }}")
c("tojson then safe then plus", "{{ ({'a': '<'}|tojson|safe) + '\\n' }}")
c("tojson then safe under tilde", "{{ 'x' ~ {'a': '<'}|tojson|safe ~ '<y>' }}")
c("times of Markup", "{{ ('<'|safe) * 2 }}")
c("percent of Markup escapes", "{{ ('<%s>'|safe) % '<' }}")
c("format of Markup escapes", "{{ ('<{}>'|safe).format('<') }}")
c("join method of Markup escapes", "{{ (','|safe).join(['<', 'a']) }}")
c("replace method of Markup escapes", "{{ ('a<'|safe).replace('a', '<') }}")
c("in with Markup", "{{ '<' in ('<a'|safe) }}{{ ('a'|safe) in ['a'] }}{{ {'a': 1}['a'|safe] }}", "TrueTrue1")
c("a macro's value is plain", "{% macro m() %}<{% endmacro %}{{ m() + '<' }}", "<<")
c("safe of a number", "{{ 5|safe + '<' }}")
c("safe in a set, then used", "{% set t = x|tojson|safe %}{{ '<tools>' ~ t ~ '</tools>' }}", x={"a": "<b>"})
c("Markup in a list joined", "{{ [('<'|safe)]|join('<') }}{{ [('<'|safe), '>']|join('') }}")
c("trim of escaped", "{{ (' < '|e)|trim ~ '<' }}")

point(54)
for form in ("%Y-%m-%d", "%d %b %Y", "%d %B %Y", "%B %d, %Y", "%A", "%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%-d %-m", "%e", "%a %j %U %w %y %I %p %M", "%%", "%D %T %R %F", "%Z|%z", "%c", "%x %X", "%-H:%-I", "%s" if False else "%G-W%V-%u", "%h %n%t|", "", "plain é", "%f", "%C %k %l"):
    c(f"strftime_now('{form}')", "[{{ strftime_now('" + form + "') }}]")
c("in a set", "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}", "29 Nov 2026")
c("given, it is not read", "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}", "26 Jul 2024", date_string="26 Jul 2024")
c("is defined", "{{ strftime_now is defined }}{{ strftime_now is callable }}", "TrueTrue")
c("without argument", "{{ strftime_now() }}", "!TypeError")
c("with a number", "{{ strftime_now(1) }}", "!TypeError")
c("by keyword", "{{ strftime_now(format='%Y') }}", "2026")
c("sliced and compared", "{{ strftime_now('%Y')|int + 1 }}{{ strftime_now('%Y-%m-%d').split('-')[1] }}", "202711")

point(55)
c("raise_exception where it is reached", "a{{ raise_exception('no') }}b", "!TemplateError")
c("not where it is not", "{% if false %}{{ raise_exception('no') }}{% endif %}b", "b")
c("its message can be computed", "{{ raise_exception('Role ' + r + ' is unknown') }}", "!TemplateError", r="x")
c("in a ternary not taken", "{{ 'a' if true else raise_exception('no') }}", "a")
c("in a macro", "{% macro m() %}{{ raise_exception('in m') }}{% endmacro %}{{ m() }}", "!TemplateError")
c("behind or", "{{ 1 or raise_exception('no') }}{{ 0 and raise_exception('no') }}", "10")
c("without argument", "{{ raise_exception() }}", "!TypeError")
c("with a number", "{{ raise_exception(5) }}")
c("in a set", "{% set x = raise_exception('s') %}", "!TemplateError")
c("in a loop's condition", "{% for i in [1] if raise_exception('c') %}{% endfor %}", "!TemplateError")
c("in an argument not used", "{{ 'v'|default(raise_exception('d')) }}", "!TemplateError")
c("a division by zero aborts", "abc{{ 1 // 0 }}", "!ZeroDivisionError")
c("in a comment it is nothing", "{# {{ raise_exception('no') }} #}a", "a")
c("defined", "{{ raise_exception is defined }}", "True")
c("an error in a generator that is never run", "{% set g = [none]|map('length') %}a", "a")
c("an error in a generator that is run", "{% set g = [none]|map('length') %}{{ g|list }}", "!TypeError")
c("endless recursion is an error", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "!RecursionError")

# ---------------------------------------------------------------- beyond the points
point(0)
c("dict as a function", "{{ dict(a=1, b='x') }}{{ dict({'a': 1}, b=2) }}{{ dict([['a', 1]]) }}{{ dict() }}", "{'a': 1, 'b': 'x'}{'a': 1, 'b': 2}{'a': 1}{}")
c("dict of pairs and its fromkeys", "{{ dict(d.items()) }}{{ dict.fromkeys(['a', 'b'], 1) }}", d={"q": 1})
c("dict merging two", "{{ dict(a, **b) }}", "{'x': 1, 'y': 2}", a={"x": 1}, b={"y": 2})
c("cycler", "{% set k = cycler('a', 'b') %}{{ k.next() }}{{ k.current }}{{ k.next() }}{{ k.next() }}{% set _ = k.reset() %}{{ k.next() }}")
c("joiner", "{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b{{ j() }}c", "a, b, c")
c("a call of an item", "{{ d['f']('a') }}", d={"f": 1})
c("a call of a method that is an item", "{{ d['get']('a') }}{{ 'x'['upper']() }}", "1X", d={"a": 1})
c("a call with a trailing comma", "{{ range(3,)|list }}{{ [1,2,] }}{{ {'a': 1,} }}", "[0, 1, 2][1, 2]{'a': 1}")
c("a filter without brackets and with empty ones", "{{ 'a'|upper }}{{ 'a'|upper() }}", "AA")
c("filters with white space", "{{ 'a' | upper | lower }}", "a")
c("a dotted filter name", "{{ 'a'|foo.bar }}")
c("test names with white space and brackets", "{{ 1 is number }}{{ 1 is number() }}", "TrueTrue")
c("an if with several elifs", "{% if a == 1 %}1{% elif a == 2 %}2{% elif a == 3 %}3{% else %}4{% endif %}", "3", a=3)
c("an if without else", "[{% if false %}x{% endif %}]", "[]")
c("truth of values", "{% for v in l %}{{ 1 if v else 0 }}{% endfor %}", l=[0, 1, 0.0, "", " ", [], [0], {}, {"a": 1}, None, True, False, -0.0, "0", "False"])
c("unpacking in a list is refused", "{{ [*l] }}", l=[1])
c("an expression of line statements", "# for i in x\n", "# for i in x")
c("two macros with one name", "{% macro m() %}1{% endmacro %}{% macro m() %}2{% endmacro %}{{ m() }}", "2")
c("a keyword argument before a positional one", "{{ range(stop=3, 1) }}", "!TemplateSyntaxError")
c("names in Unicode", "{% set größe = 1 %}{{ größe }}", "1")
c("self is defined and empty", "{{ self is defined }}")
c("varargs in a top-level text", "{{ varargs is defined }}{{ kwargs is defined }}{{ caller is defined }}", "FalseFalseFalse")
c("lipsum and range are callable", "{{ lipsum is callable }}{{ range is callable }}{{ dict is callable }}{{ namespace is callable }}{{ cycler is callable }}", "TrueTrueTrueTrueTrue")
c("equality of deep values", "{{ {'a': [1, {'b': 2.0}]} == {'a': [1, {'b': 2}]} }}", "True")
c("in with deep values", "{{ [1, 2] in [[1, 2]] }}{{ {'a': 1} in [{'a': 1}] }}{{ 1.0 in [1] }}{{ true in [1] }}{{ 'b' in ('a', 'b') }}", "TrueTrueTrueTrueTrue")
c("a list in a dictionary raises", "{{ [1] in {'a': 1} }}", "!TypeError")
c("chained filters over messages", "{{ messages|selectattr('role', 'equalto', 'system')|map(attribute='content')|join('\\n') }}", "a\nb", messages=[{"role": "system", "content": "a"}, {"role": "user", "content": "u"}, {"role": "system", "content": "b"}])
c("the last message that is a user's", "{% set ns = namespace(last=-1) %}{% for m in messages[::-1] %}{% set i = messages|length - 1 - loop.index0 %}{% if ns.last < 0 and m.role == 'user' %}{% set ns.last = i %}{% endif %}{% endfor %}{{ ns.last }}", "2",
  messages=[{"role": "user"}, {"role": "assistant"}, {"role": "user"}, {"role": "assistant"}])
c("content given as parts", "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% elif 'image' in p %}<image>{% endif %}{% endfor %}{% endif %}{% endfor %}", "a<image>b",
  messages=[{"content": "a"}, {"content": [{"type": "image", "image": "u"}, {"type": "text", "text": "b"}]}])
c("a loop in which roles must alternate", "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}{{ m.role }}{% endfor %}", "!TemplateError", messages=[{"role": "user"}, {"role": "user"}])
c("arguments that are an object or a string", "{% for a in l %}{% if a is string %}{{ a }}{% else %}{{ a|tojson }}{% endif %};{% endfor %}", l=["{\"a\": 1}", {"a": 1, "b": [True, None, 1.5]}])
c("a long condition over lines", "{%- if a is defined\n    and a is not none\n    and a|length > 0 -%}\nyes\n{%- endif %}", "yes", a="x")
c("a string that holds template marks in values", "{{ s }}", "{{ x }}{% if %}", s="{{ x }}{% if %}")
c("deep nesting of brackets", "{{ " + "(" * 50 + "1" + ")" * 50 + " }}", "1")
c("deep nesting of lists", "{{ " + "[" * 20 + "1" + "]" * 20 + " }}")
c("integers' division gives floats for large ones", "{{ 9007199254740993 / 1 }} {{ 10 ** 25 / 10 ** 5 }} {{ 1 / 3 * 3 }}")
c("an integer too large for a float", "{{ 10 ** 400 / 2 }}", "!OverflowError")
c("a float of a large integer", "{{ (10 ** 22)|float }} {{ 10 ** 22 * 1.0 }} {{ 1e22|int }} {{ 1.5e300|int|string|length }}")
c("an int that is compared with a float beyond its precision", "{{ 9007199254740993 == 9007199254740992.0 }}{{ 9007199254740993 > 9007199254740992.0 }}", "FalseTrue")

point(0)
# What a macro takes depends on what its body reads, the macros in it included, and not on what is set before it is read.
for program in (
    "{% macro o() %}{% macro i() %}{{ caller() }}{% endmacro %}{{ i.caller }}{% endmacro %}{{ o.caller }}{{ o() }}",
    "{% macro o() %}{% macro i() %}{{ varargs }}{% endmacro %}{{ i(1,2) }}{% endmacro %}{{ o.catch_varargs }}{{ o(1) }}",
    "{% macro o() %}{% macro i() %}{{ kwargs }}{% endmacro %}{{ i(a=1) }}{% endmacro %}{{ o.catch_kwargs }}{{ o(b=1) }}",
    "{% macro o() %}{% call w() %}{{ varargs }}{% endcall %}{% endmacro %}{% macro w() %}{{ caller(1) }}{% endmacro %}{{ o.catch_varargs }}{{ o() }}",
    "{% macro o(x=varargs) %}{{ x }}{% endmacro %}{{ o.catch_varargs }}{{ o() }}",
    "{% macro o() %}{% macro i(x=varargs) %}{{ x }}{% endmacro %}{{ i() }}{% endmacro %}{{ o.catch_varargs }}{{ o(1) }}",
    "{% macro o() %}{% macro i(x=caller) %}{{ x }}{% endmacro %}{{ i() }}{% endmacro %}{{ o.caller }}{{ o() }}",
    "{% macro o() %}{% macro i(x=caller) %}{{ x is defined }}{{ caller is defined }}{% endmacro %}{{ i() }}{{ i.caller }}{% endmacro %}{{ o.caller }}{{ o() }}",
    "{% macro o() %}{% set caller = 1 %}{{ caller }}{% endmacro %}{{ o.caller }}{{ o() }}",
    "{% macro o() %}{% for caller in [1] %}{{ caller }}{% endfor %}{% endmacro %}{{ o.caller }}{{ o() }}",
    "{% macro o() %}{% set ns=namespace(a=1) %}{% set varargs %}x{% endset %}{{ varargs }}{% endmacro %}{{ o.catch_varargs }}{{ o() }}",
    "{% macro o() %}{{ w(caller=1) }}{{ x.caller }}{% endmacro %}{{ o.caller }}",
    "{% macro o() %}{% if 0 %}{{ caller }}{% endif %}{% endmacro %}{{ o.caller }}",
    "{% macro o() %}{% macro caller() %}x{% endmacro %}{{ caller() }}{% endmacro %}{{ o.caller }}{{ o() }}",
    "{% macro o() %}{% macro i() %}{{ caller() }}{% endmacro %}{{ i() }}{% endmacro %}{% call o() %}Z{% endcall %}",
    "{% macro o() %}{{ caller() }}{% macro i() %}{{ caller() }}{% endmacro %}{{ i() }}{% endmacro %}{% call o() %}Z{% endcall %}",
    "{% macro o() %}{{ caller() }}{% call w() %}{{ caller() }}{% endcall %}{% endmacro %}{% macro w() %}<{{ caller() }}>{% endmacro %}{% call o() %}Z{% endcall %}",
    "{% macro o() %}{% macro i() %}{% endmacro %}{% endmacro %}{{ o.caller }}{{ o.catch_varargs }}{{ o.catch_kwargs }}",
    "{% macro o() %}{% macro i() %}{% endmacro %}{% endmacro %}{{ o(1) }}",
    "{% macro o() %}{% call w() %}z{% endcall %}{% endmacro %}{% macro w() %}<{{ caller() }}>{% endmacro %}{{ o(1) }}",
    "{% macro o() %}{% call w() %}z{% endcall %}{% endmacro %}{% macro w() %}<{{ caller() }}>{% endmacro %}{{ o(a=1) }}",
    "{% macro o() %}{% macro i(varargs) %}{% endmacro %}{{ varargs }}{% endmacro %}{{ o.catch_varargs }}",
    "{% macro o() %}{% set varargs = varargs %}{{ varargs }}{% endmacro %}{{ o.catch_varargs }}",
    "{% macro o() %}{{ kwargs }}{% set kwargs = 1 %}{% endmacro %}{{ o.catch_kwargs }}{{ o(a=1) }}",
    "{% macro o() %}{% for kwargs in kwargs %}{% endfor %}{% endmacro %}{{ o.catch_kwargs }}",
    "{% macro o() %}{% for a, kwargs in [(1, 2)] %}{{ kwargs }}{% endfor %}{% endmacro %}{{ o.catch_kwargs }}{{ o() }}",
    "{% macro o() %}{% block b %}{{ varargs }}{% endblock %}{% endmacro %}{{ o.catch_varargs }}",
    "{% macro o() %}{% set caller.x = 1 %}{% endmacro %}{{ o.caller }}",
    "{% macro o(caller=2) %}{{ caller }}{% endmacro %}{{ o() }}{{ o(3) }}{{ o(caller=4) }}",
    "{% macro o(caller=2) %}{{ caller() }}{% endmacro %}{% call o() %}q{% endcall %}",
    "{% macro o(caller) %}{% endmacro %}{{ o(1) }}",
):
    c('what a macro takes, by what its body reads', program)
# Floor and ceiling are integers.
for program in (
    "{{ -0.4|round }}|{{ (-0.04)|round(1) }}|{{ (-0.5)|round }}|{{ (-0.4)|round(0,'ceil') }}|{{ 0.4|round(0,'floor') }}|{{ (-0.0)|round }}|{{ -0.0|round(2) }}|{{ (-4)|round(-1) }}|{{ (-0.3)|round(-1) }}",
    "{{ (-0.4)|round(-2,'ceil') }} {{ -0.004|round(2,'ceil') }}",
    "{{ (-0.3)|round(-400) }}",
    "{{ (1e308*10)|round(0,'ceil') }}",
    "{{ 1e308|round(300,'floor') }}",
    "{{ (-2.5)|round(0,'floor') }}{{ -2.5|round(0, 'ceil') }}{{ 2.44|round(1,'ceil') }}",
    "{{ 5|round(0,'ceil') }}{{ (-0)|round(1,'floor') }}",
):
    c('rounding to nothing, and the sign of what is left', program)
for program in (
    "{{ 4 is divisibleby }}",
    "{{ 4 is divisibleby(2) }}",
    "{{ 4 is divisibleby(2,3) }}",
    "{{ 4 is divisibleby(num=2) }}",
    "{{ 4 is divisibleby() }}",
    "{{ 4 is eq }}",
    "{{ 4 is eq(1,2) }}",
    "{{ 4 is eq(b=1) }}",
    "{{ 4 is eq(other=1) }}",
    "{{ 4 is odd(1) }}",
    "{{ 4 is odd() }}",
    "{{ 4 is even(2) }}",
    "{{ 4 is defined(1) }}",
    "{{ 4 is undefined() }}",
    "{{ 4 is filter(1) }}",
    "{{ 4 is test }}",
    "{{ 4 is sameas }}",
    "{{ 4 is sameas(4,4) }}",
    "{{ 4 is sameas(other=4) }}",
    "{{ 4 is in }}",
    "{{ 4 is in([4],[5]) }}",
    "{{ 4 is in([4]) }}",
    "{{ 4 is in(seq=[4]) }}",
    "{{ 4 is number(1) }}",
    "{{ 4 is string(1) }}",
    "{{ 4 is none(1) }}",
    "{{ 4 is lower(1) }}",
    "{{ 4 is upper(2) }}",
    "{{ 4 is mapping(1) }}",
    "{{ 4 is sequence(1) }}",
    "{{ 4 is iterable(1) }}",
    "{{ 4 is callable(1) }}",
    "{{ 4 is escaped(1) }}",
    "{{ 4 is boolean(1) }}",
    "{{ 4 is true(1) }}",
    "{{ 4 is false(2) }}",
    "{{ 4 is integer(1) }}",
    "{{ 4 is float(1) }}",
    "{{ 4 is lt }}",
    "{{ 4 is gt(1,2) }}",
    "{{ 4 is ge }}",
    "{{ 4 is le() }}",
    "{{ 4 is ne }}",
    "{{ 4 is greaterthan }}",
    "{{ 4 is lessthan(1) }}",
    "{{ 4 is equalto }}",
    "{{ 4 is filter }}",
    "{{ 4 is odd 2 }}",
    "{{ 4 is odd(*[1]) }}",
    "{{ 4 is eq(*[4]) }}",
    "{{ 4 is eq(**{'b':4}) }}",
    "{{ 4 is odd(**{}) }}",
    "{{ [1,2,3]|select('odd', 1)|list }}",
    "{{ [1,2,3]|select('divisibleby')|list }}",
    "{{ [1,2,3]|select('divisibleby', 2)|list }}",
    "{{ [{'a':1},{'a':2}]|selectattr('a','eq',2)|list }}",
    "{{ [{'a':1},{'a':2}]|selectattr('a','eq')|list }}",
    "{{ [{'a':1},{}]|selectattr('a','defined')|list }}",
    "{{ [{'a':1},{}]|rejectattr('a','in',[1])|list }}",
    "{{ [1]|select('==', 1)|list }}{{ [1]|reject('>=', 1)|list }}",
    "{{ [1]|select('filter', 1, 2)|list }}",
):
    c('how many arguments a test takes', program)

# Programs that do not compile, each with the line that jinja2 names.
SYNTAX = [
    ("an unknown tag on the third line", "a\nb\n{% foo %}"),
    ("a stray end on the second line", "a\n{% endif %}"),
    ("an unclosed if", "a\n{% if 1 %}\nb\nc"),
    ("an unclosed for", "{% for i in x %}\n\n"),
    ("an unclosed expression", "a\n\n{{ 1"),
    ("an unclosed comment", "a\n{# b\nc"),
    ("an unclosed raw", "a\n{% raw %}\nb"),
    ("an unclosed string", "a\n{{ 'b\n }}"),
    ("a bad character", "a\n{{ 1 ? 2 }}"),
    ("a dollar sign", "{{ $x }}"),
    ("an unexpected bracket", "a\n{{ ) }}"),
    ("a bracket that does not match", "a\n\n{{ (1] }}"),
    ("two values in a row", "\n{{ 1 2 }}"),
    ("a dot without a name", "\n\n{{ a. }}"),
    ("a pipe without a name", "{{ a| }}"),
    ("is without a name", "{{ a is }}"),
    ("a set without a name", "{% set = 1 %}"),
    ("a set of a literal", "\n{% set 'a' = 1 %}"),
    ("a for without in", "\n{% for i x %}{% endfor %}"),
    ("a for over nothing", "{% for i in %}{% endfor %}"),
    ("a for with a literal as its name", "{% for 1 in x %}{% endfor %}"),
    ("a macro without brackets", "\n{% macro m %}{% endmacro %}"),
    ("a macro with a literal argument", "{% macro m(1) %}{% endmacro %}"),
    ("a macro without a name", "{% macro () %}{% endmacro %}"),
    ("an unknown filter after line breaks in an expression", "{{\n\n 1|nope }}"),
    ("an unknown test on line 2", "a\n{{ 1 is nope }}"),
    ("an unknown filter on line 4", "a\r\nb\rc\n{{ 1|nope }}"),
    ("an unknown filter after a literal with line breaks", "{{ 'a\nb' }}\n{{ 1|nope }}"),
    ("an unknown filter after strip marks", "a\n\n{%- if 1 -%}\n\n{%- endif -%}\n\n{{ 1|nope }}"),
    ("a bad escape on line 2", "\n{{ '\\u12' }}"),
    ("a bad name escape", "{{ '\\N{FOO BAR BAZ}' }}"),
    ("a lone backslash at the end of a literal", "{{ 'a\\' }}"),
    ("a break outside a loop on line 2", "\n{% break %}"),
    ("a continue outside", "{% continue %}"),
    ("an else outside", "\n\n{% else %}"),
    ("an elif outside", "{% elif 1 %}"),
    ("an if closed by endfor", "{% if 1 %}\n{% endfor %}"),
    ("a for closed by endif", "{% for i in x %}\n\n{% endif %}"),
    ("an inner if that is not closed", "{% for i in x %}\n{% if 1 %}\n{% endfor %}"),
    ("an empty tag", "a\n{% %}"),
    ("a tag that is a number", "{% 1 %}"),
    ("call without a call", "{% call m %}{% endcall %}"),
    ("a keyword argument twice", "{{ m(a=1, a=2) }}"),
    ("a positional argument after a keyword", "{{ m(a=1, 2) }}"),
    ("two starred arguments", "{{ m(*a, *b) }}"),
    ("a dictionary without a value", "{{ {'a'} }}"),
    ("a dictionary with one equals sign", "{{ {'a'=1} }}"),
    ("a list with two commas", "{{ [1,,2] }}"),
    ("not alone", "{{ not }}"),
    ("a binary operator alone", "{{ 1 + }}"),
    ("an operator in front", "{{ * 1 }}"),
    ("a ternary without a condition", "{{ 1 if }}"),
    ("else without if", "{{ 1 else 2 }}"),
    ("in without a right side", "{{ 1 in }}"),
    ("not in the wrong place", "{{ 1 not 2 }}"),
    ("assigning none", "{% set none = 1 %}"),
    ("a caller that a macro reads and that has no default", "{% macro o(caller) %}{{ caller }}{% endmacro %}"),
    ("the same of a call block", "{% macro o() %}{% call(caller) w() %}{{ caller }}{% endcall %}{% endmacro %}"),
    ("a test with two numbers", "{{ 4 is divisibleby 2 3 }}"),
    ("two tests in a row", "{{ 4 is defined is true }}"),
    ("an argument twice in a macro", "{% macro m(a, a) %}{% endmacro %}"),
    ("endmacro with another name", "{% macro m() %}{% endmacro n %}"),
    ("endset missing", "{% set a %}\nx\n"),
    ("generation missing its end", "\n{% generation %}\n{% if 1 %}{% endif %}"),
    ("a block of one name twice", "{% block a %}{% endblock %}\n{% block a %}{% endblock %}"),
    ("a slice with too many colons", "{{ a[1:2:3:4] }}"),
    ("with without equals", "{% with a 1 %}{% endwith %}"),
]


def main():
    if jinja2.__version__ != "3.1.6":
        raise SystemExit(f"jinja2 is {jinja2.__version__}; these records are of 3.1.6: pip install jinja2==3.1.6")
    transformers = Transformers(sys.argv[1] if len(sys.argv) > 1 else None)
    cases, surprises = [], 0
    for number, name, program, variables, says in CASES:
        result = outcome(lambda: transformers.compile(program).render(**variables))
        got = "!" + result["error"] if "error" in result else result["output"]
        if says is not None and got != says:
            surprises += 1
            print(f"point {number}: {name}: {program!r} gives {got!r} ({result.get('message')}), expected {says!r}", file=sys.stderr)
        if " object at 0x" in json.dumps(result) or " at 0x" in json.dumps(result):
            raise SystemExit(f"{name}: {program!r} writes an address, which differs from run to run: {result}")
        cases.append({"point": number, "name": name, "program": program, "variables": variables, **result})
    errors = []
    for name, program in SYNTAX:
        result = outcome(lambda: transformers.compile(program))
        if "error" not in result:
            print(f"compiles: {name}: {program!r}", file=sys.stderr)
            continue
        errors.append({"name": name, "program": program, **result})
    about = {"jinja2": jinja2.__version__, "transformers": VERSION, "python": sys.version.split()[0], "clock": CLOCK.isoformat()}
    lines = [json.dumps(case, ensure_ascii=False) for case in cases]
    syntax = [json.dumps(case, ensure_ascii=False) for case in errors]
    text = '{"about": ' + json.dumps(about) + ',\n"cases": [\n' + ",\n".join(lines) + '\n],\n"syntaxErrors": [\n' + ",\n".join(syntax) + "\n]}\n"
    json.loads(text)
    (pathlib.Path(__file__).parent / "points.json").write_text(text, encoding="utf-8")
    print(f"{len(cases)} cases, {len(errors)} programs that do not compile, {surprises} surprises", file=sys.stderr)


if __name__ == "__main__":
    main()
