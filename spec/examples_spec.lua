-- Every example runs as it stands, on the bundled model, and is short.
local nginx = require "spec.support.nginx"

local LINES_MAX = 40


local function run(command)
  local pipe = io.popen("exec 2>&1; " .. command .. "; echo \"exit $?\"")
  local text = pipe:read("*a")
  pipe:close()
  return text, tonumber(text:match("exit (%d+)%s*$"))
end


local function luajit(file)
  return run("env -u DROVER_URL -u DROVER_KEY -u DROVER_MODEL luajit examples/"
             .. file)
end


local rows = {
  { "hello.lua", "Oslo" },
  { "stream.lua", "fox.*first token after" },
  { "batch.lua", "Kenya%s+The capital of Kenya is Nairobi" },
  { "fallback.lua", "azul%s+attempt 1%s+first%s+unreachable%s+attempt 2"
                    .. "%s+bundled%s+ok" },
  { "policy.lua", "%d+ requests" },
  { "pipeline.lua", "Oslo%. Dress code: azul.*6 calls" },
  { "local_model.lua", "lambkin: .*tokens a second" },
  { "tenants.lua", "ann%s+answered%s+8.*bob%s+answered%s+8.*trial%s+tenant_rpm" },
}


describe("the example", function()
  for _, row in ipairs(rows) do
    it(row[1] .. " runs", function()
      local text, status = luajit(row[1])
      assert.matches(row[2], text)
      assert.equal(0, status, text)
    end)
  end

  it("gateway.lua serves, each caller by its own limits", function()
    local port = nginx.port()
    local dir = nginx.folder()
    local server = nginx.start("luajit lua/drover/cli.lua serve --config "
      .. "examples/gateway.lua --port " .. port, dir)
    local url = "http://127.0.0.1:" .. port .. "/v1/chat/completions"
    nginx.until_true(function()
      return nginx.get("http://127.0.0.1:" .. port .. "/health") == 200
             or not server:alive()
    end)
    local function ask(key)
      return nginx.post(url, '{"model":"lambkin","max_tokens":4,"messages":'
        .. '[{"role":"user","content":"Hi"}]}', "-H 'authorization: Bearer "
        .. key .. "'")
    end
    local statuses = { (ask "nobodys-key"), (ask "key-of-bob-x0Lw"),
                       (ask "key-of-trial-4t") }
    local status, text, head = ask "key-of-trial-4t"
    server:stop()
    assert.same({ 401, 200, 200 }, statuses, server:log())
    assert.equal(429, status, text)
    assert.matches('"tenant_rpm"', text)
    assert.matches("[Rr]etry%-[Aa]fter: %d+", head)
  end)

  local pipe = io.popen("ls examples/*.lua examples/*.conf")
  for path in pipe:lines() do
    it(path .. " is at most " .. LINES_MAX .. " lines long", function()
      local count = 0
      for _ in io.lines(path) do
        count = count + 1
      end
      assert.is_true(count <= LINES_MAX)
    end)
  end
  pipe:close()
end)
