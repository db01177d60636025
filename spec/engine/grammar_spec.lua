-- engine/grammar: which texts a schema lets through, byte by byte.
local ffi = require "ffi"
local c = require "spec.support.c"
local grammar = require "spec.support.grammar"

local C = c.lib


local function takes(schema, texts, others)
  local g = assert(grammar.new(schema))
  for _, text in ipairs(texts) do
    assert.is_true(g:takes(text), tostring(schema) .. " must take " .. text)
  end
  for _, text in ipairs(others) do
    assert.is_false(g:takes(text), tostring(schema) .. " must not take " .. text)
  end
  g:free()
end


local rows = {
  { "any object", nil, { "{}", "{ }", '{"a":1}', '{"a":[1,2,{"b":null}]}',
      '{"":"","x": true,\n "y":-0.5e+10}' },
    { "", "[]", " {}", "{} ", "{,}", '{"a"}', '{"a":}', '{"a":1,}', '{a:1}',
      '{"a":01}', '{"a":1.}', '{"a":nul}', '{"a":1}}', '{   }', "{", '{"a":1' } },
  { "strings", '{"type":"string"}', { '""', '"a"', '"\\n\\u00e9\\ud83d\\ude00"',
      '"é€😀"', '"\\\\\\""' },
    { '"', 'a', '"\n"', '"\\x"', '"\\u12g4"', '"\\ud83d"', '"\\ude00"',
      '"\128"', '"\192\128"', '"\237\160\128"', '"\244\144\128\128"', '"\195"',
      '"a" ' } },
  { "lengths in characters", '{"type":"string","minLength":2,"maxLength":3}',
    { '"ab"', '"abc"', '"é€😀"', '"\\n\\ud83d\\ude00"' },
    { '""', '"a"', '"abcd"', '"é"' } },
  { "no characters", '{"type":"string","maxLength":0}', { '""' }, { '"a"' } },
  { "numbers", '{"type":"number"}',
    { "0", "-0", "12", "-1.5", "1e5", "1E-05", "0.25", "999999999999999" },
    { "", "-", "01", "1.", ".5", "1e", "+1", "1e+", "0x1", "1e100",
      "1000000000000000", "NaN" } },
  { "integers", '{"type":"integer"}', { "0", "-7", "120" },
    { "1.0", "1e3", "-", "00", "" } },
  { "words", '{"enum":["a","ab","abc",1,12,null,true,{"x": [1, 2]}]}',
    { '"a"', '"ab"', '"abc"', "1", "12", "null", "true", '{"x":[1,2]}' },
    { '"', '"abcd"', '"b"', "2", "123", "false", '{"x": [1,2]}', "nul" } },
  { "a constant", '{"const":"x y"}', { '"x y"' }, { '"xy"', '"x"' } },
  { "enums of a type", '{"type":["integer","null"],"enum":["a",1,1.5,2.0,null]}',
    { "1", "2.0", "null" }, { '"a"', "1.5" } },
  { "types", '{"type":["string","null","boolean"]}',
    { '"x"', "null", "true", "false" }, { "1", "{}", "nulltrue" } },
  { "objects", '{"type":"object","properties":{"a":{"type":"integer"},'
      .. '"b":{"type":"boolean"}},"required":["a","b"],"additionalProperties":false}',
    { '{"a":1,"b":true}', '{ "a": 1,\n"b": false }', '{\n\n"a":1,"b":true\n}' },
    { "{}", '{"a":1}', '{"b":true,"a":1}', '{"a":1,"b":true,"c":1}',
      '{"a":1,"b":1}', '{"a":1,"a":1}', '{   "a":1,"b":true}' } },
  { "optional members", '{"properties":{"a":{"const":1},"b":{"const":2},'
      .. '"c":{"const":3},"d":{"const":4}},"required":["c"]}',
    { '{"c":3}', '{"a":1,"c":3}', '{"a":1,"b":2,"c":3,"d":4}', '{"b":2,"c":3}',
      '{"c":3,"d":4}' },
    { "{}", '{"a":1}', '{"a":1,"b":2}', '{"c":3,"a":1}', '{"c":3,}',
      '{,"c":3}', '{"d":4}' } },
  { "only optional members", '{"type":"object","properties":{"a":{"const":1},'
      .. '"b":{"const":2}},"additionalProperties":false}',
    { "{}", "{ }", '{"a":1}', '{"b":2}', '{"a":1,"b":2}' },
    { '{"b":2,"a":1}', '{"a":1,}', '{"c":1}' } },
  { "no members", '{"type":"object","additionalProperties":false}', { "{}" },
    { '{"a":1}' } },
  { "maps", '{"type":"object","additionalProperties":{"type":"integer"}}',
    { "{}", '{"x":1,"y":2}' }, { '{"x":"1"}' } },
  { "required of any value", '{"type":"object","required":["x"]}',
    { '{"x":1}', '{"x":{"y":[]}}' }, { "{}" } },
  { "lists", '{"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3}',
    { "[1]", "[1,2]", "[ 1,\n2, 3 ]" }, { "[]", "[1,2,3,4]", "[1,]", "[,1]" } },
  { "lists of any length", '{"type":"array","items":{"type":"null"}}',
    { "[]", "[ ]", "[null]", "[null,null,null,null,null,null]" }, { "[1]", "[" } },
  { "at least so many", '{"type":"array","items":{"const":1},"minItems":2}',
    { "[1,1]", "[1,1,1,1,1]" }, { "[]", "[1]" } },
  { "empty lists", '{"type":"array","maxItems":0}', { "[]" }, { "[1]" } },
  { "choices", '{"anyOf":[{"type":"object","properties":{"k":{"const":"a"},'
      .. '"n":{"type":"integer"}},"required":["k","n"]},{"type":"object",'
      .. '"properties":{"k":{"const":"ab"},"s":{"type":"string"}},'
      .. '"required":["k","s"]},{"type":"null"}]}',
    { '{"k":"a","n":1}', '{"k":"ab","s":"x"}', "null" },
    { '{"k":"a","s":"x"}', '{"k":"ab","n":1}', "{}" } },
  { "references", '{"$defs":{"p":{"type":"integer"}},"type":"array",'
      .. '"items":{"$ref":"#/$defs/p"}}', { "[1,2]" }, { '["a"]' } },
  { "recursion", '{"$defs":{"n":{"type":"object","properties":{"v":{"type":'
      .. '"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},'
      .. '"required":["v","next"],"additionalProperties":false}},'
      .. '"$ref":"#/$defs/n"}',
    { '{"v":1,"next":null}', '{"v":1,"next":{"v":2,"next":{"v":3,"next":null}}}' },
    { '{"v":1,"next":1}', '{"v":1}' } },
  { "the whole in itself", '{"type":"object","properties":{"kids":{"type":'
      .. '"array","items":{"$ref":"#"}}},"required":["kids"]}',
    { '{"kids":[]}', '{"kids":[{"kids":[]},{"kids":[{"kids":[]}]}]}' },
    { "{}", '{"kids":[1]}' } },
  { "a pointer with escapes", '{"$defs":{"a/b~c":{"const":1}},'
      .. '"anyOf":[{"const":2},{"$ref":"#/$defs/a~1b~0c"},{"$ref":"#/anyOf/0"}]}',
    { "1", "2" }, { "3" } },
  { "names with escapes", '{"properties":{"a\\"b":{"const":1}},"required":["a\\u0022b"]}',
    { '{"a\\"b":1}' }, { "{}" } },
  { "a tool's call", '{"type":"object","properties":{"name":{"const":"go"},'
      .. '"arguments":{"type":"object","properties":{"to":{"enum":["n","s"]}},'
      .. '"required":["to"],"additionalProperties":false}},'
      .. '"required":["name","arguments"],"additionalProperties":false}',
    { '{"name":"go","arguments":{"to":"n"}}' },
    { '{"name":"stop","arguments":{"to":"n"}}' } },
}

describe("a grammar", function()
  for _, row in ipairs(rows) do
    it("lets through " .. row[1], function()
      takes(row[2], row[3], row[4])
    end)
  end

  local refused = {
    { '{"type":"string","pattern":"a"}', "schema.pattern: this keyword" },
    { '{"type":"object","properties":{"d":{"type":"string","format":"date"}}}',
      "schema.properties.d.format: this keyword" },
    { '{"oneOf":[]}', "schema.oneOf" }, { '{"allOf":[{}]}', "schema.allOf" },
    { '{"type":"number","minimum":1}', "schema.minimum" },
    { '{"type":"text"}', "schema.type: string" }, { '{"type":[]}', "schema.type" },
    { "false", "schema: no value can meet it" }, { "1", "schema: a schema" },
    { '{"items":false}', "schema.items: no value" },
    { '{"enum":[]}', "schema.enum: no value" },
    { '{"type":"string","enum":[1]}', "schema.enum: no value" },
    { '{"const":1,"type":"null"}', "schema.const: no value" },
    { '{"type":"array","minItems":3,"maxItems":2}', "schema.minItems: no value" },
    { '{"type":"string","minLength":-1}', "schema.minLength: a whole" },
    { '{"type":"string","maxLength":1.5}', "schema.maxLength: a whole" },
    { '{"type":"object","properties":{"a":{}},"required":["b"],'
        .. '"additionalProperties":false}', "schema.required.b: no value" },
    { '{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}',
      "schema.properties.a.$ref: no value can meet it: it never" },
    { '{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},'
        .. '"$ref":"#/$defs/a"}', "leads back to itself" },
    { '{"anyOf":[{"$ref":"#"},{"type":"null"}]}', "schema.anyOf.0" },
    { '{"$ref":"#/$defs/x"}', "schema.$ref: the reference leads nowhere" },
    { '{"$ref":"other.json"}', "schema.$ref: only" },
    { '{"anyOf":[]}', "schema.anyOf: no value" },
    { '{"anyOf":[{"type":"null"}],"type":"null"}', "schema: enum, const" },
    { '{"type":"array","items":3}', "schema.items: a schema" },
    { "{", "the schema is no JSON" }, { "", "the schema is no JSON" },
    { '{"properties":{"a":{},"a":{}}}', "schema.properties: a property's name" },
    { ('{"items":'):rep(70) .. "{}" .. ("}"):rep(70), "nested too deep" },
  }
  for _, row in ipairs(refused) do
    it("refuses " .. row[1]:sub(1, 60), function()
      local g, why, code = grammar.new(row[1])
      assert.is_nil(g)
      assert.equal(C.DROVER_EBADREQUEST, code)
      assert.equal("response_format: ", why:sub(1, 17))
      assert.is_truthy(why:find(row[2], 1, true), why)
    end)
  end

  it("has a way out of every depth", function()
    local g = assert(grammar.new(nil))
    local text = '{"a":' .. ("["):rep(200)
    local state, n = g:start(), 0
    for i = 1, #text do
      local next_state = g:step(state, text:byte(i))
      if not next_state then
        break
      end
      state, n = next_state, i
    end
    assert.is_true(n > 20 and n < 100)
    for _ = 1, 300 do                  -- close what is open
      local closed = g:step(state, ("]"):byte()) or g:step(state, ("}"):byte())
        or g:step(state, ("1"):byte())
      if not closed then
        break
      end
      state = closed
    end
    assert.equal(2, C.engine_grammar_done(state))
    g:free()
  end)

  it("has room to end a number that it begins, at every depth", function()
    local g = assert(grammar.new(nil))
    for outer = 1, 4 do
      local state = g:start()
      local text = ('{"a":'):rep(outer) .. ("["):rep(100)
      for byte in text:gmatch(".") do
        state = g:step(state, byte:byte()) or state
        local number = g:step(state, ("1"):byte())
        local power = number and g:step(number, ("E"):byte())
        assert.is_truthy(not number or power and g:step(power, ("1"):byte()))
      end
      for _ = 1, 300 do
        state = g:step(state, ("]"):byte()) or g:step(state, ("}"):byte()) or state
      end
      assert.equal(2, C.engine_grammar_done(state))
    end
    g:free()
  end)

  it("keeps its stacks when it forgets the others", function()
    local g = assert(grammar.new('{"type":"array","items":{"type":"string",'
      .. '"maxLength":100000}}'))
    local state = g:start()
    for byte in ('["' .. ("x"):rep(40000) .. '","'):gmatch(".") do
      state = assert(g:step(state, byte:byte()))
      g:tidy(state)
    end
    assert.is_truthy(g.tidied)
    assert.is_nil(g:step(state, 1))
    for byte in ('y"]'):gmatch(".") do
      state = assert(g:step(state, byte:byte()))
    end
    assert.equal(2, C.engine_grammar_done(state))
    g:free()
  end)

  it("counts to the bound in a long string, over many forgettings", function()
    local g = assert(grammar.new('{"type":"string","maxLength":30000}'))
    local state = g:step(g:start(), ("\""):byte())
    for _ = 1, 30000 do
      state = assert(g:step(state, ("x"):byte()))
      g:tidy(state)
    end
    assert.is_nil(g:step(state, ("x"):byte()))
    assert.is_truthy(g:step(state, ("\""):byte()))
    g:free()
  end)

  it("frees all it takes", function()
    local before = C.mem_live()
    for _, row in ipairs(rows) do
      assert(grammar.new(row[2])):free()
    end
    for _, row in ipairs(refused) do
      grammar.new(row[1])
    end
    assert.equal(before, C.mem_live())
  end)

  it("takes a large enum", function()
    local words = {}
    for i = 1, 3000 do
      words[i] = ('"w%d"'):format(i)
    end
    local g = assert(grammar.new('{"enum":[' .. table.concat(words, ",") .. "]}"))
    assert.is_true(g:takes('"w2999"'))
    assert.is_true(g:takes('"w1"'))
    assert.is_false(g:takes('"w3001"'))
    g:free()
  end)
end)


describe("a grammar's state", function()
  it("is the same bytes after the same text", function()
    local g = assert(grammar.new(nil))
    local function after(text)
      local state = g:start()
      for byte in text:gmatch(".") do
        state = g:step(state, byte:byte())
      end
      return ffi.string(state, 4 + 8 * state.count)
    end
    assert.equal(after('{"a":["x","y'), after('{"b":["","zz'))
    assert.not_equal(after('{"a":["x"'), after('{"a":{"x"'))
    g:free()
  end)
end)
