-- Our JSON encoder, and the decoder's treatment of null.
local json = require "drover.json"


describe("json.encode()", function()
  local rows = {
    { { b = 1, a = "x" }, '{"a":"x","b":1}' },
    { { 1, 2, { 3 } }, "[1,2,[3]]" },
    { {}, "{}" },
    { json.array {}, "[]" },
    { { x = json.array {} }, '{"x":[]}' },
    { json.null, "null" },
    { { x = json.null }, '{"x":null}' },
    { json.raw('{"deep": 1e3}'), '{"deep": 1e3}' },
    { 9007199254740992, "9007199254740992" },
    { -9007199254740991, "-9007199254740991" },
    { 1234567890123456, "1234567890123456" },
    { 0.1, "0.1" },
    { 1e300, "1e+300" },
    { 1 / 3, "0.33333333333333331" },
    { "a\"b\\c\n\1\127", '"a\\"b\\\\c\\n\\u0001\\u007f"' },
    { "\0", '"\\u0000"' },
    { "grüße 日本", '"grüße 日本"' },
    { true, "true" },
    { require("cjson").null, "null" },
  }
  for i, row in ipairs(rows) do
    it("writes case " .. i .. " as " .. row[2], function()
      assert.equal(row[2], (json.encode(row[1])))
    end)
  end

  local loop = {}
  loop.x = { loop }
  local deep = {}
  for _ = 1, 200 do
    deep = { deep }
  end
  local refused = {
    { { a = 0 / 0 }, "a: a number is not finite" },
    { { 1 / 0 }, "[1]: a number is not finite" },
    { loop, "a table holds itself" },
    { deep, "nested too deep" },
    { { f = print }, "a function is no JSON" },
    { { 1, x = 2 }, "neither a list nor an object" },
    { { [1] = 1, [3] = 3 }, "neither a list nor an object" },
    { { [true] = 1 }, "a key is not a string" },
  }
  for _, row in ipairs(refused) do
    it("refuses where " .. row[2], function()
      local text, why = json.encode(row[1])
      assert.is_nil(text)
      assert.truthy(why:find(row[2], 1, true), why)
    end)
  end

  it("writes the same table twice where it is no cycle", function()
    local one = { 1 }
    assert.equal('[[1],[1]]', json.encode { one, one })
  end)
end)


describe("json.raw() and json.array()", function()
  it("want a text and a table", function()
    assert.has_error(function() json.raw(5) end,
                     "drover.raw: a string is wanted, got number")
    assert.has_error(function() json.array("x") end,
                     "drover.array: a table is wanted, got string")
  end)
end)


describe("json.decode()", function()
  it("drops null members, at every depth", function()
    assert.same({ a = 1, c = { d = { { f = "g" } } } },
                json.decode '{"a":1,"b":null,"c":{"d":[{"e":null,"f":"g"}]}}')
  end)

  it("keeps the places of a list", function()
    local list = json.decode "[1,null,3,null]"
    assert.equal(4, #list)
    assert.equal(json.null, list[2])
    assert.equal(3, list[3])
  end)

  it("says why a text is none", function()
    local value, why = json.decode "{"
    assert.is_nil(value)
    assert.is_string(why)
  end)

  it("stops at 128 levels", function()
    assert.truthy(json.decode(("["):rep(128) .. ("]"):rep(128)))
    assert.is_nil((json.decode(("["):rep(129) .. ("]"):rep(129))))
  end)
end)
