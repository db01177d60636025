-- base/err: the table of codes, and the text that a caller owns.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
int drover_fail(drover_err *err, int code, const char *fmt, ...);
int err_row(int code);
const char *err_row_word(int row);
int err_hurts_node(int code);
]]

local C = c.lib

-- In the order of DESIGN 3.1; the counters' rows follow it.
local KINDS = {
  "bad_request", "unauthorized", "quota", "rate_limited", "overloaded",
  "no_node", "unreachable", "tls", "timeout", "reset", "truncated",
  "malformed", "context_too_long", "content_policy", "not_found", "too_large",
  "cancelled", "closed", "resource", "internal",
}


local function kind(code)
  return ffi.string(C.drover_err_kind(code))
end


local function fail(text)
  local err = ffi.new("drover_err")
  assert.equal(-4, C.drover_fail(err, -4, "%s", text))
  return ffi.string(err.text), err.code
end


describe("drover_err_kind()", function()
  it("names each kind, in the order of the counters", function()
    for i, name in ipairs(KINDS) do
      assert.equal(name, kind(-i))
      assert.equal(i, C.err_row(-i))
      assert.equal(name, ffi.string(C.err_row_word(i)))
    end
    assert.equal("ok", kind(0))
    assert.equal("lost", kind(C.DROVER_ELOST))
    assert.equal("ok", ffi.string(C.err_row_word(0)))
    assert.equal("lost", ffi.string(C.err_row_word(21)))
    assert.equal(nil, C.err_row_word(22))
  end)

  it("gives a finer code the kind it belongs to", function()
    assert.equal("bad_request", kind(C.DROVER_EINVAL))
    assert.equal("resource", kind(C.DROVER_ENOMEM))
    assert.equal("malformed", kind(C.DROVER_EFORMAT))
    assert.equal("overloaded", kind(C.DROVER_EAGAIN))
  end)

  it("calls a number that is no code internal", function()
    for _, code in ipairs{ 1, -26, 2 ^ 31 - 1, -2 ^ 31 } do
      assert.equal("internal", kind(code))
      assert.equal(0, C.drover_err_retryable(code))
    end
  end)
end)


describe("drover_err_retryable()", function()
  it("is no for what another node would refuse as well", function()
    for _, name in ipairs{ "EBADREQUEST", "ECONTEXT", "EPOLICY", "ENOTFOUND",
                           "ETOOLARGE", "ECANCELLED", "ECLOSED", "EINVAL" } do
      assert.equal(0, C.drover_err_retryable(C["DROVER_" .. name]), name)
    end
  end)

  it("is yes for a failure of one node", function()
    for _, name in ipairs{ "EUNREACHABLE", "ETIMEOUT", "ERESET", "ETRUNCATED",
                           "EOVERLOADED", "ERATELIMITED", "ETLS" } do
      assert.equal(1, C.drover_err_retryable(C["DROVER_" .. name]), name)
      assert.equal(1, C.err_hurts_node(C["DROVER_" .. name]), name)
    end
  end)
end)


describe("drover_phase_name()", function()
  it("has a word for each phase and none past the last", function()
    local words = {}
    for i = 0, 7 do
      words[i + 1] = ffi.string(C.drover_phase_name(i))
    end
    assert.equal("config limit pick connect send first_token stream decode",
                 table.concat(words, " "))
    assert.equal(nil, C.drover_phase_name(8))
    assert.equal(nil, C.drover_phase_name(-1))
  end)
end)


describe("drover_fail()", function()
  it("takes no error object for an answer", function()
    assert.equal(-7, C.drover_fail(nil, -7, "x"))
  end)

  it("keeps a text that fits", function()
    local text, code = fail(("x"):rep(251))
    assert.equal(("x"):rep(251), text)
    assert.equal(-4, code)
  end)

  it("never cuts a UTF-8 sequence", function()
    for _, char in ipairs{ "\195\169", "\226\130\172", "\240\157\132\158" } do
      for before = 240, 252 do
        local text = fail(("x"):rep(before) .. char .. "tail" .. ("y"):rep(20))
        local whole = ("x"):rep(before) .. char
        if #whole > 251 then
          whole = ("x"):rep(math.min(before, 251))
        end
        assert.equal(whole, text:sub(1, #whole))
        assert.is_true(#text <= 251)
        assert.is_nil(text:find("[\194-\244]$"))
      end
    end
  end)
end)
