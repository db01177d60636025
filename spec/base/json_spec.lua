-- base/json and the JSON part of the door: what is accepted, what is found.
local ffi = require "ffi"
local c = require "spec.support.c"
local guard = require "spec.support.guard"
local oracle = require "spec.support.oracle"

local C = c.lib
local EFORMAT, ENOTFOUND, EINVAL = C.DROVER_EFORMAT, C.DROVER_ENOTFOUND, C.DROVER_EINVAL
local REPLACEMENT = "\239\191\189"

local page = guard.new(65536)
local err = ffi.new("drover_err")

-- What RFC 8259 leaves free: what we do about it. All that is not here and
-- free is accepted: numbers of any size, lone surrogates as escapes,
-- duplicate keys.
local REFUSED = {
  ["i_string_UTF-16LE_with_BOM"] = true,
  ["i_string_UTF-8_invalid_sequence"] = true,
  ["i_string_UTF8_surrogate_U+D800"] = true,
  ["i_string_invalid_utf-8"] = true,
  ["i_string_iso_latin_1"] = true,
  ["i_string_lone_utf8_continuation_byte"] = true,
  ["i_string_not_in_unicode_range"] = true,
  ["i_string_overlong_sequence_2_bytes"] = true,
  ["i_string_overlong_sequence_6_bytes"] = true,
  ["i_string_overlong_sequence_6_bytes_null"] = true,
  ["i_string_truncated-utf-8"] = true,
  ["i_string_utf16BE_no_BOM"] = true,
  ["i_string_utf16LE_no_BOM"] = true,
  ["i_structure_500_nested_arrays"] = true,     -- deeper than 128
  ["i_structure_UTF-8_BOM_empty_object"] = true,
  ["string_1_invalid_codepoint"] = true,
  ["string_2_invalid_codepoints"] = true,
  ["string_3_invalid_codepoints"] = true,
}


-- Short texts lie against the guard page.
local function check(text)
  local at, size = text, #text
  if size <= page.max then
    at, size = page:put(text)
  end
  return C.drover_json_check(at, size, err)
end


local function path_of(steps)
  local out = {}
  for i, step in ipairs(steps) do
    out[i] = (type(step) == "number" and "i" or "k") .. step .. "\0"
  end
  return table.concat(out)
end


local function find(text, steps)
  local path, span = path_of(steps), ffi.new("drover_span")
  local at, size = text, #text
  if size <= page.max then
    at, size = page:put(text)
  end
  local rc = C.drover_json_find(at, size, path, #path, span, err)
  return rc, tonumber(span.start), tonumber(span.stop), string.char(span.type)
end


local function unescape(text)
  local at, size = page:put(text)
  local out = ffi.new("char[?]", #text + 1)
  local wrote = tonumber(C.drover_json_unescape(at, size, out))
  return wrote >= 0 and ffi.string(out, wrote) or nil, wrote
end


local function in_array(depth)
  return ("["):rep(depth) .. ("]"):rep(depth)
end


describe("drover_json_check() #oracle", function()
  for _, row in ipairs(oracle.rows("json/jsontestsuite.jsonl")) do
    local refuse = row.expect == "refuse" or REFUSED[row.name]
    it((refuse and "refuses " or "accepts ") .. row.name, function()
      assert.equal(refuse and EFORMAT or 0, check(oracle.bytes(row)))
    end)
  end

  for _, row in ipairs(oracle.rows("json/depth.jsonl")) do
    it("answers for " .. row.name, function()
      local open = row.name:find("open")
      local text = oracle.bytes(row)
      assert.equal((open or row.depth > 128) and EFORMAT or 0, check(text))
      assert.equal((open or row.depth > 1024) and EFORMAT or ENOTFOUND,
                   (find(text, { "none" })))
    end)
  end
end)


describe("drover_json_find() #oracle", function()
  local words = { string = '"', number = "0", object = "{", array = "[",
                  ["true"] = "t", ["false"] = "f", null = "n" }
  for _, row in ipairs(oracle.rows("json/spans.jsonl")) do
    it("says " .. row.result .. " for " .. row.name, function()
      local rc, start, stop, kind = find(oracle.bytes(row), row.path)
      if row.result == "found" then
        assert.same({ 0, row.start, row.stop, words[row.type] },
                    { rc, start, stop, kind })
      else
        assert.equal(row.result == "absent" and ENOTFOUND or EFORMAT, rc)
      end
    end)
  end
end)


describe("drover_json_check()", function()
  it("takes 128 levels and refuses the next", function()
    assert.equal(0, check(in_array(128)))
    assert.equal(EFORMAT, check(in_array(129)))
    assert.equal("not JSON: nested too deep, at byte 128",
                 ffi.string(err.text))
    assert.equal(0, check(('{"a":'):rep(128) .. "1" .. ("}"):rep(128)))
    assert.equal(EFORMAT, check(('{"a":'):rep(129) .. "1" .. ("}"):rep(129)))
  end)

  it("says at which byte a text is wrong", function()
    assert.equal(EFORMAT, check('{"a":[1,2,}'))
    assert.equal("not JSON: a value is missing, at byte 10", ffi.string(err.text))
  end)

  it("refuses every prefix of a text, up to its last byte", function()
    local text = '{"k\\u00e9y":[-1.5e+3,"\195\169\240\157\132\158\\n",true,false,null,{}]}'
    assert.equal(0, check(text))
    for i = 0, #text - 1 do
      assert.equal(EFORMAT, check(text:sub(1, i)), "prefix of " .. i)
    end
  end)

  it("tells containers apart at every depth", function()
    for _, text in ipairs{ "[}", "{]", '{"a":[}', "[{]", '[{"a":1]', "[[]" } do
      assert.equal(EFORMAT, check(text), text)
    end
  end)

  it("takes any string length around the vector's width", function()
    for size = 0, 40 do
      for _, last in ipairs{ "", "\\n", "\195\169", "\\u0041" } do
        local inside = ("x"):rep(size) .. last
        assert.equal(0, check('"' .. inside .. '"'))
        assert.equal(EFORMAT, check('"' .. inside))
        assert.equal(EFORMAT, check('"' .. inside .. '\1"'))
        assert.equal(EFORMAT, check('"' .. inside .. '\255"'))
      end
    end
  end)
end)


describe("drover_json_find()", function()
  it("passes over values that are deeper than what check() takes", function()
    for depth, want in pairs{ [128] = 0, [1023] = 0, [1024] = EFORMAT } do
      assert.equal(want, (find('{"s":' .. in_array(depth) .. ',"a":1}', { "a" })))
    end
  end)

  it("gives the whole value for an empty path", function()
    assert.same({ 0, 1, 3, "[" }, { find(" [] ", {}) })
  end)

  it("checks what stands behind the field", function()
    assert.equal(EFORMAT, (find('{"a":1,"b":}', { "a" })))
    assert.equal(EFORMAT, (find('{"a":{"b":1},"c":[}', { "a", "b" })))
    assert.equal(EFORMAT, (find('{"b":1} {"a":2}', { "a" })))
    assert.equal(EFORMAT, (find('[1] 5', { "a" })))
  end)

  it("refuses a path that is none", function()
    for _, path in ipairs{ "ka", "xa\0", "\0", "i\0", "i1x\0", "i-1\0",
                           "i99999999999999999999\0" } do
      assert.equal(EINVAL, C.drover_json_find('{"a":1}', 7, path, #path, nil, nil))
    end
  end)

  it("finds an escaped key outside the basic plane", function()
    assert.same({ 0, 16, 17, "0" },
                { find('{"\\ud834\\udd1e":1}', { "\240\157\132\158" }) })
  end)
end)


describe("drover_json_members()", function()
  local names = "a\0bc\0"


  -- Code, and the texts of both members; nil for an absent one.
  local function members(text)
    local at, size = page:put(text)
    local spans, out = ffi.new("drover_span[2]"), {}
    local rc = C.drover_json_members(at, size, names, 2, spans, err)
    for i = 0, 1 do
      local span = spans[i]
      out[i + 1] = span.type ~= 0
        and text:sub(tonumber(span.start) + 1, tonumber(span.stop)) or nil
    end
    return rc, out[1], out[2]
  end


  it("gives the first of equal keys, whatever their order and escapes", function()
    assert.same({ 0, "0", '"x"' }, { members('{"bc":"x","a":0,"a":2}') })
    assert.same({ 0, "[1]", "null" },
                { members(' {"b\\u0063" :null, "\\u0061": [1] ,"bc":3}') })
  end)

  it("says what is absent", function()
    assert.same({ 0, nil, "{}" }, { members('{"ab":1,"bc":{},"":2,"bcd":3}') })
    for _, text in ipairs{ "{}", "[]", '"a"', '[{"a":1}]', '{"x":{"a":1}}' } do
      assert.same({ 0 }, { members(text) })
    end
  end)

  it("checks the whole text, 128 deep", function()
    for _, text in ipairs{ "", '{"a":1', '{"a":1}}', '{"a":1,"z":}', '{"a" 1}' } do
      assert.equal(EFORMAT, (members(text)))
    end
    assert.equal(0, (members('{"z":' .. in_array(127) .. "}")))
    assert.equal(EFORMAT, (members('{"z":' .. in_array(128) .. "}")))
  end)
end)


describe("drover_json_unescape()", function()
  local rows = {
    { "", "" },
    { "plain", "plain" },
    { '\\"\\\\\\/\\b\\f\\n\\r\\t', '"\\/\b\f\n\r\t' },
    { "\\u0041\\u00e9\\u20AC", "A\195\169\226\130\172" },
    { "\\u0000", "\0" },
    { "\\uD834\\uDD1E", "\240\157\132\158" },
    { "\\ud800", REPLACEMENT },
    { "\\udc00x", REPLACEMENT .. "x" },
    { "\\ud800\\ud800", REPLACEMENT .. REPLACEMENT },
    { "\\ud800\\u0041", REPLACEMENT .. "A" },
    { "\\ud800\\n", REPLACEMENT .. "\n" },
    { "\195\169 \\u00e9", "\195\169 \195\169" },
    { ("x"):rep(100) .. "\\n" .. ("y"):rep(100),
      ("x"):rep(100) .. "\n" .. ("y"):rep(100) },
  }
  for _, row in ipairs(rows) do
    it(("reads %q"):format(row[1]), function()
      assert.equal(row[2], (unescape(row[1])))
    end)
  end

  for _, text in ipairs{ "\\", "\\x", "\\u", "\\u12", "\\u12g4", 'a"b', "\1",
                         "\255", "\195", "\192\175", "\237\160\128" } do
    it(("refuses %q"):format(text), function()
      local _, rc = unescape(text)
      assert.equal(EFORMAT, rc)
    end)
  end

  it("works in place", function()
    local text = "a\\n\\u00e9b"
    local buf = ffi.new("char[?]", #text + 1, text)
    local wrote = tonumber(C.drover_json_unescape(buf, #text, buf))
    assert.equal("a\n\195\169b", ffi.string(buf, wrote))
  end)
end)
