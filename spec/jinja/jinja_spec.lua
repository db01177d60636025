-- The template language: what of it is there, what is refused by name, and what
-- a template cannot do.
local jinja = require "drover.jinja"


local function render(text, vars)
  local t = assert(jinja.compile(text))
  return assert(t:render(vars or {}, 0))
end


local function fails(text, vars)
  local t = assert(jinja.compile(text))
  local out, why, kind = t:render(vars or {}, 0)
  assert.is_nil(out)
  return kind, why
end


describe("jinja", function()
  for _, row in ipairs {
    { "{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 3 }}", "7 3 3 8" },
    { "{{ 1.5 }} {{ -2 }} {{ 3 / 2 }} {{ true }} {{ none }}", "1.5 -2 1.5 True None" },
    { "{{ 'a' ~ 1 ~ none }}{{ 'ab' * 2 }}", "a1Noneabab" },
    { "{{ 'x' if no is defined else 'y' }}", "y" },
    { "{{ not a is defined and 1 in [1, 2] and 3 not in (1, 2) }}", "True" },
    { "{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }}", "True False" },
    { "{% for x in [1, 2, 3] if x != 2 %}{{ loop.index }}:{{ x }}"
      .. "{{ ', ' if not loop.last }}{% else %}none{% endfor %}", "1:1, 2:3" },
    { "{% for x in [] %}{% else %}none{% endfor %}", "none" },
    { "{% for x in range(5) %}{% if x == 1 %}{% continue %}{% endif %}"
      .. "{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}", "02" },
    { "{% set x = 1 %}{% for y in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1" },
    { "{% set n = namespace(x=1) %}{% for y in [1] %}{% set n.x = 2 %}{% endfor %}{{ n.x }}", "2" },
    { "{% macro m(a, b='z') %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }}"
      .. "{{ m('x', b='y') }}", "xzxy" },
    { "{% set a, b = (1, 2) %}{{ a }}{{ b }}{% set c %}in{% endset %}{{ c }}", "12in" },
    { "{{ 'abcdef'[1:3] }}{{ [1,2,3][::-1] }}{{ 'héllo'[1] }}{{ 'abc'[-1] }}", "bc[3, 2, 1]éc" },
    { "{{ {'a': [1, 'b']} }}", "{'a': [1, 'b']}" },
    { "{{ {'a': [1, \"b\"], 'c': none} | tojson }}", '{"a": [1, "b"], "c": null}' },
    { "{{ ' a '|trim }}{{ 'x'.join(['1','2']) }}{{ 'a,b'.split(',')[1] }}", "a1x2b" },
    { "{{ [3,1,2]|sort|join('-') }} {{ ['b','a']|first }} {{ 'é'|length }}", "1-2-3 b 1" },
    { "{{ [{'r': 'u'}, {'r': 's'}]|selectattr('r', 'equalto', 's')|list|length }}", "1" },
    { "{{ [{'r': 'u'}]|map(attribute='r')|join }}", "u" },
    { "{{ 'a\\nb'|indent(2) }}", "a\n  b" },
    { "{{ {'b': 1, 'a': 2}|dictsort|first|first }}", "a" },
    { "a\n{% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc" },
    { "a  {%- if true -%}  b  {%- endif %}", "ab" },
    { "{# c #}{% raw %}{{ x }}{% endraw %}", "{{ x }}" },
    { "{{ x.y is defined }}{{ x['y']|default('d') }}", "Falsed" },
    { "{{ strftime_now('%Y') }}", "1970" },
    { "{% generation %}g{% endgeneration %}", "g" },
  } do
    it("renders " .. row[1]:sub(1, 60), function()
      assert.equal(row[2], render(row[1], { x = {} }))
    end)
  end

  for text, why in pairs {
    ["{% include 'x' %}"] = "statement \"include\"",
    ["{% import 'x' as y %}"] = "statement \"import\"",
    ["{{ x|xmlattr }}"] = "filter \"xmlattr\"",
    ["{{ x is sameas y }}"] = "test \"sameas\"",
    ["{% for a in b recursive %}{% endfor %}"] = "recursive",
    ["{{ x"] = "end", ["{% if x %}"] = "still open", ["{{ 'x }}"] = "string",
    ["{# x"] = "comment", ["{{ x ? y }}"] = "nothing that a tag holds",
    ["{{ (((((1 }}"] = "a tag without its end",
  } do
    it("refuses " .. text, function()
      local t, said = jinja.compile(text)
      assert.is_nil(t)
      assert.truthy(said:find(why, 1, true), said)
    end)
  end

  it("says what went wrong, and of which kind", function()
    assert.equal("raise", (fails "{{ raise_exception('no') }}"))
    assert.equal("template", (fails "{{ x.y.z }}"))
    assert.equal("type", (fails "{{ 1 + 'a' }}"))
    assert.equal("type", (fails "{{ 1 / 0 }}"))
    assert.equal("type", (fails "{{ [] < {} }}"))
  end)

  it("stops what would not end", function()
    for _, text in ipairs {
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{{ 'a' * 100000000 }}", "{{ range(10 ** 9) }}",
      "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}"
        .. "{% endfor %}{{ n.x }}",
    } do
      assert.equal("limit", (fails(text)))
    end
    assert.is_nil(jinja.compile(("{% if a %}"):rep(300)))
    assert.is_nil(jinja.compile("{{ " .. ("("):rep(300) .. "1" .. (")"):rep(300) .. " }}"))
    assert.is_nil(jinja.compile("{{ " .. ("not "):rep(300) .. "1 }}"))
  end)

  it("reaches nothing but its values", function()
    for _, text in ipairs {
      "{{ ''.__class__ }}", "{{ x.__index }}", "{{ [].__class__ }}",
      "{{ self }}", "{{ os }}", "{{ _G }}", "{{ request }}",
    } do
      assert.equal("", render(text, { x = {} }))
    end
    assert.equal("template", (fails "{{ ''.__class__.__mro__ }}"))
  end)

  it("keeps the order of keys of a JSON text", function()
    local v = jinja.value.from_json('{"b": 1, "a": [true, null, "\\u00e9\\ud83d\\ude00"]}')
    assert.equal('{"b": 1, "a": [true, null, "é😀"]}', render("{{ v|tojson }}", { v = v }))
  end)
end)
