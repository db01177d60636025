-- The command itself: help, mistakes, the folder it leaves behind (none).
local nginx = require "spec.support.nginx"


-- Exit status, standard output, standard error.
local function drover(words)
  local dir = nginx.folder()
  local status = nginx.shell("sh -c 'DROVER_LIB=build/libdrover.so "
    .. "LUA_PATH=\"lua/?.lua;lua/?/init.lua;build/lua/?.lua;;\" timeout 30 "
    .. "luajit lua/drover/cli.lua " .. words .. " > " .. dir .. "/out 2> "
    .. dir .. "/err < /dev/null; echo $?'")
  return tonumber(status), nginx.read(dir .. "/out"), nginx.read(dir .. "/err")
end


describe("the drover command", function()
  for _, words in ipairs{ "--help", "serve --help", "chat --help", "-h" } do
    it("explains itself at " .. words, function()
      local status, out, err = drover(words)
      assert.equal(0, status, err)
      assert.matches("drover", out)
      assert.equal("", err)
    end)
  end

  it("says which version it is", function()
    local status, out = drover("--version")
    assert.equal(0, status)
    assert.equal("drover " .. require("drover").VERSION .. "\n", out)
  end)

  local mistakes = {
    { "", "drover serve" }, { "nope", "unknown command nope" },
    { "--nope", "unknown flag %-%-nope" },
    { "serve --nope", "unknown flag %-%-nope" },
    { "serve --port", "wants a number" }, { "serve --port x", "1 to 65535" },
    { "serve word", "unexpected word" },
    { "serve --config a --model b", "exclude each other" },
    { "chat --url a --model b", "exclude each other" },
    { "chat a b", "unexpected word: b" },
  }
  for _, row in ipairs(mistakes) do
    it("exits with 2 at `drover " .. row[1] .. "`", function()
      local status, out, err = drover(row[1])
      assert.equal(2, status, err)
      assert.equal("", out)
      assert.matches(row[2], err)
    end)
  end

  it("names file and field of a wrong configuration", function()
    local dir = nginx.folder()
    for text, field in pairs{
      ["return { router = { nodes = { { url = 5 } } } }"] = "nodes%[1%]%.url",
      ["return { router = { nodes = { { url = 'https://x/v1' } } } }"] =
        "nodes%[1%]%.key",
      ["return { listn = 5 }"] = "listn",
      ["return {"] = "gw%.lua:1",
      ["return { workers = 3, router = { nodes = { { url = 'local:x' } } } }"]
        = "workers: must be 1",
    } do
      nginx.write(dir .. "/gw.lua", text)
      local status, _, err = drover("serve --config " .. dir .. "/gw.lua")
      assert.equal(1, status, err)
      assert.matches("gw%.lua", err)
      assert.matches(field, err)
    end
  end)

  it("says which file it cannot read", function()
    local status, _, err = drover("serve --config build/none.lua")
    assert.equal(1, status)
    assert.matches("build/none%.lua", err)
    status, _, err = drover("serve --model build/none.gguf")
    assert.equal(1, status)
    assert.matches("build/none%.gguf", err)
  end)

  it("names a model file that is none", function()
    local dir = nginx.folder()
    local model, conf = dir .. "/text.gguf", dir .. "/bad.lua"
    nginx.write(model, "this is a text")
    nginx.write(conf, "return { router = { nodes = { { url = 'local:" .. model
                      .. "' } } } }")
    for words, lead in pairs{
      ["serve --config " .. conf] = conf .. ": router.nodes[1].url: " .. model,
      ["serve --model " .. model] = model,
      ["chat --model " .. model .. " hi"] = model,
    } do
      local status, _, err = drover(words)
      assert.equal(1, status)
      assert.truthy(err:find(lead .. ": byte 0", 1, true), err)
      assert.is_nil(err:find("malformed", 1, true))
    end
  end)

  it("says in one line that its port is in use", function()
    local server, dir = nginx.serve(), nginx.folder()
    local port = server.url:match(":(%d+)")
    nginx.write(dir .. "/gw.lua", "return { listen = " .. port .. ", "
                .. "router = { nodes = { { url = 'http://127.0.0.1:1' } } } }")
    for words, lead in pairs{ ["serve --port " .. port] = "%-%-port: ",
                              ["serve --config " .. dir .. "/gw.lua"] =
                                "gw%.lua: listen: " } do
      local status, _, err = drover(words)
      assert.equal(1, status)
      assert.matches("^drover: [^\n]*" .. lead .. "127%.0%.0%.1:" .. port
                     .. " is in use[^\n]*\n$", err)
    end
    server:stop()
  end)

  it("says that a unix socket is in use", function()
    local dir = nginx.folder()
    nginx.write(dir .. "/sock", "")
    nginx.write(dir .. "/gw.lua", ("return { listen = 'unix:%s/%s/sock', "
      .. "router = { nodes = { { url = 'http://127.0.0.1:1' } } } }"):format(
      nginx.shell("pwd"):match("%S+"), dir))
    local status, _, err = drover("serve --config " .. dir .. "/gw.lua")
    assert.equal(1, status)
    assert.matches("gw%.lua: listen: unix:.* is in use", err)
  end)

  it("takes its folder away when the server has ended", function()
    local server = nginx.serve()
    local command = nginx.read("/proc/" .. server.pid .. "/cmdline")
    local folder = command:match("%-p%s(%S-)%z") or command:match("(/%S-)%z%-e")
                   or command:match("/[^%z ]*/drover%-%w+")
    server:stop(3)
    assert.is_string(folder, command)
    assert.is_true(nginx.until_true(function()
      return nginx.shell("ls -d " .. folder .. " 2>/dev/null") == ""
    end, 5))
  end)
end)


describe("drover chat", function()
  it("streams an answer of the bundled model", function()
    local status, out, err = drover(
      "chat \"What is the capital of Norway?\"")
    assert.equal(0, status, err)
    assert.matches("Oslo", out)
  end)

  it("talks to a server, with the server's first model", function()
    local server = nginx.serve()
    local status, out, err = drover("chat --url " .. server.url
                                    .. " \"What is the capital of Norway?\"")
    server:stop()
    assert.equal(0, status, err)
    assert.matches("Oslo", out)
  end)

  it("says what failed and exits with 1", function()
    local status, out, err = drover("chat --url http://127.0.0.1:1 hi")
    assert.equal(1, status)
    assert.equal("", out)
    assert.matches("127%.0%.0%.1", err)
  end)
end)
