-- net/url and net/host: which URLs are taken, and that we read them as
-- everybody else does, libcurl first of all.
local ffi = require "ffi"
local c = require "spec.support.c"
local guard = require "spec.support.guard"
local oracle = require "spec.support.oracle"

c.cdef[[
int net_url_call(const char *url, size_t size, drover_url *out, drover_err *err);
void *curl_url(void);
void curl_url_cleanup(void *handle);
int curl_url_set(void *handle, int part, const char *content, unsigned flags);
int curl_url_get(void *handle, int part, char **content, unsigned flags);
void curl_free(void *p);
]]

local C = c.lib
local page = guard.new(4096)
local url, err = ffi.new("drover_url"), ffi.new("drover_err")
local PART_URL, PART_HOST, PART_PORT = 0, 5, 6
local DEFAULT_PORT = 1


local function check(text, of)
  local at, size = text, #text
  if size <= page.max then
    at, size = page:put(text)
  end
  local code = C[of or "drover_url_check"](at, size, url, err)
  if code == 0 then
    return { host = ffi.string(url.host), port = url.port, local_ = url["local"] == 1,
             path = ffi.string(url.path), https = url.https == 1,
             unix = ffi.string(url.unix_path), is_unix = url.is_unix == 1 }
  end
  assert.equal(C.DROVER_EINVAL, code)
  assert.is_true(err.text[0] ~= 0)
  return nil, ffi.string(err.text)
end


local function of_curl(handle, part)
  local out = ffi.new("char *[1]")
  assert.equal(0, C.curl_url_get(handle, part, out, DEFAULT_PORT))
  local text = ffi.string(out[0])
  C.curl_free(out[0])
  return text
end


-- The host and port that libcurl reads in the same text.
local function libcurl(text)
  local handle = C.curl_url()
  assert.equal(0, C.curl_url_set(handle, PART_URL, text, 0))
  local host, port = of_curl(handle, PART_HOST), of_curl(handle, PART_PORT)
  C.curl_url_cleanup(handle)
  return host:lower(), tonumber(port)
end


describe("a node's URL #oracle", function()
  it("means what the web platform tests say, or is refused", function()
    local taken = 0
    for _, row in ipairs(oracle.rows("http/wpt_urls.jsonl")) do
      local got = check(row.input)
      if got and row.failure then
        assert.is_nil(got, row.input)
      elseif got and type(row.base) ~= "string" then
        taken = taken + 1
        local port = row.port == "" and (got.https and 443 or 80)
                     or tonumber(row.port)
        assert.equal(row.hostname, got.host, row.input)
        assert.equal(port, got.port, row.input)
        assert.equal((row.pathname:gsub("/$", "")), got.path, row.input)
      end
    end
    assert.is_true(taken > 20, "taken: " .. taken)
  end)

  it("is never taken for a name or a public address when it is none", function()
    local may = { loopback = true, private = true, public = true, name = true }
    for _, row in ipairs(oracle.rows("http/ssrf.jsonl")) do
      local got = check(row.url)
      if got then
        assert.is_true(may[row.reaches] or false, row.url)
        assert.equal(row.host, got.host, row.url)
        assert.equal(row.reaches == "loopback", got.local_, row.url)
      end
    end
  end)

  it("has for libcurl the host and port that we checked", function()
    local rows = oracle.rows("http/wpt_urls.jsonl")
    for _, row in ipairs(oracle.rows("http/ssrf.jsonl")) do
      rows[#rows + 1] = { input = row.url }
    end
    for _, row in ipairs(rows) do
      local got = check(row.input)
      if got and not got.is_unix then
        local host, port = libcurl(row.input)
        assert.equal(got.host, host, row.input)
        assert.equal(got.port, port, row.input)
      end
    end
  end)
end)


describe("a node's URL", function()
  local good = {
    ["http://10.0.0.7:8000/v1"] = { host = "10.0.0.7", port = 8000, path = "/v1" },
    ["https://API.example.com/v1/"] = { host = "api.example.com", port = 443,
                                        path = "/v1", https = true },
    ["http://[2001:DB8:0:0:1:0:0:1]:81"] = { host = "[2001:db8::1:0:0:1]", port = 81 },
    ["http://[::1]/a%20b"] = { host = "[::1]", path = "/a%20b", local_ = true },
    ["unix:/run/w.sock:/v1"] = { unix = "/run/w.sock", path = "/v1",
                                 is_unix = true, local_ = true },
    ["unix:/run/w.sock"] = { unix = "/run/w.sock", path = "" },
    ["http://node_1.svc/"] = { host = "node_1.svc", path = "" },
    ["http://localhost"] = { host = "localhost", local_ = true, port = 80 },
  }
  for text, want in pairs(good) do
    it("may be " .. text, function()
      local got = assert(check(text))
      for field, value in pairs(want) do
        assert.equal(value, got[field], field)
      end
    end)
  end

  local bad = {
    ["http://user:secret@host/"] = "user name", ["http://h/?a=1"] = "query",
    ["http://h/#x"] = "fragment", ["http://h\\@x/"] = "backslash",
    ["http://h/a b"] = "space", ["http://h/\0"] = "control", ["http://"] = "no host",
    ["http://0177.0.0.1/"] = "four decimal", ["http://1.2.3/"] = "four decimal",
    ["http://h:0/"] = "port", ["http://h:65536/"] = "port", ["http://h:/"] = "port",
    ["http://h:080/"] = "port", ["http://h:1:2/"] = "port", ["ftp://h/"] = "begins",
    ["http:/h"] = "begins", ["http://[::1"] = "IPv6", ["http://[::1]x/"] = "IPv6",
    ["http://[::ffff:1.2.3.4]/"] = "IPv4", ["http://a..b/"] = "label",
    ["http://a./"] = "label", ["http://%61/"] = "character", ["http://0.0.0.0/"] = "0/8",
    ["http://169.254.169.254/"] = "metadata", ["http://h/../x"] = "..",
    ["http://h/%2E%2e/x"] = "..", ["http://h/a/."] = "..", ["http://h/%zz"] = "hex",
    ["http://h/a//b"] = "//", ["http://h/<"] = "percent", ["unix:x"] = "full path",
    ["unix:/x:y"] = "slash", ["http://h/" .. ("a"):rep(300)] = "255",
    ["unix:/" .. ("a"):rep(200)] = "107", ["http://xn--a.com/"] = "xn--",
    ["http://h/" .. ("a"):rep(3000)] = "2048", ["http://" .. ("a"):rep(64)] = "label",
    ["http://\195\164/"] = "ASCII",
  }
  for text, why in pairs(bad) do
    it("may not be " .. text:sub(1, 40):gsub("%c", "?"), function()
      local got, reason = check(text)
      assert.is_nil(got)
      assert.is_truthy(reason:find(why, 1, true), reason)
      assert.is_nil(reason:find("secret", 1, true))
    end)
  end

  it("of a call may have a query", function()
    assert.equal("h", check("http://h/v1?a=b/../c&d=%20?", "net_url_call").host)
    assert.is_nil(check("http://h/?a=<", "net_url_call"))
    assert.is_nil(check("unix:/x:/v1", "net_url_call"))
    assert.is_nil(check("http://h/v1?a#b", "net_url_call"))
  end)
end)
