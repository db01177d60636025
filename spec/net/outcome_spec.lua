-- net/outcome: codes of libcurl that no server can bring about here, because
-- the libcurl of this machine does not know them.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
void net_outcome_done(void *call, int rc, drover_event *ev, drover_err *text);
]]

local C = c.lib


-- The code and the words of a call, all zeroes, that libcurl ends with `rc`.
local function outcome(rc)
  local call = ffi.new("char[65536]")   -- more than a struct net_call
  local ev, text = ffi.new("drover_event"), ffi.new("drover_err")
  C.net_outcome_done(call, rc, ev, text)
  return ev.code, ffi.string(ev.data, ev.data_size)
end


describe("the outcome of a call", function()
  it("is malformed when a libcurl since 8.6 refuses the headers", function()
    local code, words = outcome(100)
    assert.equal(C.DROVER_EMALFORMED, code)
    assert.equal("the reply's headers are too large", words)
  end)

  it("is internal when a libcurl says what we do not know", function()
    local code, words = outcome(250)
    assert.equal(C.DROVER_EINTERNAL, code)
    assert.equal("transport error 250", words)
  end)
end)
