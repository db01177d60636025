-- net/header: nothing that could end a header line, or frame a second
-- request, gets through.
local ffi = require "ffi"
local c = require "spec.support.c"
local guard = require "spec.support.guard"

c.cdef[[
struct net_header { char name[48]; const char *value; size_t value_size; };
int net_header_check(const char *name, size_t name_size, const char *value,
                     size_t value_size, drover_err *err);
int net_header_lines(const char *text, size_t size, size_t *count, drover_err *err);
int net_header_read(const char *line, size_t size, struct net_header *out);
int net_header_kept(const struct net_header *h);
]]

local C = c.lib
local page = guard.new(16384)
local err = ffi.new("drover_err")
local count = ffi.new("size_t[1]")


local function check(name, value, of)
  local at, size = page:put(value)
  return C[of or "net_header_check"](name, #name, at, size, err) == 0
end


local function lines(text)
  local at, size = page:put(text)
  local code = C.net_header_lines(at, size, count, err)
  return code == 0 and tonumber(count[0]) or nil
end


describe("a request's header", function()
  it("is a token and visible text", function()
    assert.is_true(check("X-Trace!#$%&'*+-.^_`|~1", "a b\tc \195\164"))
    assert.is_true(check("Authorization", "Bearer sk-1"))
    assert.is_true(check("X-Empty", ""))
  end)

  it("has no byte in its name that is no token's, at any place", function()
    for byte = 0, 255 do
      local ok = string.char(byte):find("^[%w!#$%%&'*+%-.^_`|~]$") ~= nil
      for at = 1, 3 do
        local name = ("abc"):sub(1, at - 1) .. string.char(byte) .. ("abc"):sub(at + 1)
        assert.equal(ok, check(name, "v"), byte .. " at " .. at)
      end
    end
  end)

  it("has no control character in its value, at any place", function()
    for byte = 0, 255 do
      local ok = byte == 9 or byte >= 32 and byte ~= 127
      assert.equal(ok, check("x", "a" .. string.char(byte) .. "b"), byte)
      ok = ok and byte ~= 9 and byte ~= 32
      assert.equal(ok, check("x", string.char(byte) .. "b"), byte)
      assert.equal(ok, check("x", "a" .. string.char(byte)), byte)
    end
  end)

  it("has at most 8 KiB, and a name", function()
    assert.is_true(check("x", ("v"):rep(8191)))
    assert.is_false(check("x", ("v"):rep(8192)))
    assert.is_false(check(("n"):rep(9000), ""))
    assert.is_false(check("", "v"))
  end)

  for _, name in ipairs{ "Host", "content-length", "Transfer-Encoding", "CONNECTION",
                         "te", "Upgrade", "Expect", "Proxy-Authorization", "proxy-x",
                         "Keep-Alive", "Trailer" } do
    it("may not be " .. name, function()
      assert.is_false(check(name, "x"))
    end)
  end

  for _, name in ipairs{ "Authorization", "X-Api-Key", "api-key", "x-goog-api-key",
                         "Cookie", "host" } do
    it("of a caller may not be " .. name, function()
      assert.is_false(check(name, "secret", "drover_header_check"))
      assert.is_nil(ffi.string(err.text):find("secret", 1, true))
    end)
  end

  it("comes in lines, each of them checked", function()
    assert.equal(0, lines(""))
    assert.equal(2, lines("A: b\nC:d"))
    assert.equal(3, lines("A: b\nC: d\nE:\n"))
    for _, bad in ipairs{ "A: b\r\n", "A b\n", "\n", "A: b\n\nC: d", ": x\n", "A:  b\n",
                          "A: b\nHost: x\n", "A: b\0\n" } do
      assert.is_nil(lines(bad), bad)
    end
  end)
end)


describe("a reply's header", function()
  local header = ffi.new("struct net_header")

  local function read(line)
    local at, size = page:put(line)
    if C.net_header_read(at, size, header) == 0 then
      return nil
    end
    return ffi.string(header.name), ffi.string(header.value, header.value_size),
           C.net_header_kept(header) == 1
  end

  it("is shown by a list of names", function()
    assert.same({ "retry-after", "2", true }, { read("Retry-After:  2 \r\n") })
    assert.same({ "x-ratelimit-remaining-tokens", "9", true },
                { read("X-RateLimit-Remaining-Tokens: 9\n") })
    assert.same({ "set-cookie", "a=b", false }, { read("Set-Cookie: a=b\r\n") })
    assert.same({ "date", "", true }, { read("Date:") })
    assert.is_false(select(3, read("Retry-After: " .. ("9"):rep(2000))))
  end)

  it("is ignored when it is malformed", function()
    for _, line in ipairs{ "", "\r\n", "no colon\r\n", " folded: x\r\n", ": x\r\n",
                           "na me: x\r\n", "x: a\0b\r\n", "x: a\rb\r\n",
                           ("n"):rep(60) .. ": x\r\n" } do
      assert.is_nil(read(line), line)
    end
  end)
end)
