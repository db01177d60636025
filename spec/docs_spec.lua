-- What the pages show runs. In README.md and docs/: each ```lua block is run
-- as it stands (a block that returns a table is a gateway's configuration,
-- and is checked as one), each ```nginx block is put into a configuration
-- that nginx tests, each ```sh block is run with port 8000 made a free one,
-- `drover serve` in the background. And examples/nginx.conf serves.
--
-- A ```text, ```json, ```ini … block is not run. A line <!-- prints: WORDS -->
-- above a block says what its output must have in it.
local nginx = require "spec.support.nginx"
local source = require "spec.support.source"

local PAGES = source.files("README.md docs", "%.md$")
local ROOT = nginx.shell("pwd"):gsub("%s+$", "")
local ENV = ("env -u DROVER_TEST_LIB -u DROVER_URL -u DROVER_KEY -u DROVER_MODEL"
             .. " DROVER_LIB='%s/build/libdrover.so' LUA_PATH='%s' "):format(
  ROOT, ("R/lua/?.lua;R/lua/?/init.lua;R/build/lua/?.lua;;"):gsub("R", ROOT))


-- Runs a command for a minute at most: its output, its exit status.
local function run(command)
  local text = nginx.shell("exec 2>&1; " .. ENV .. "timeout -k 5 60 "
                           .. command .. "; echo \"exit $?\"")
  return text, tonumber(text:match("exit (%d+)%s*$"))
end


-- The fenced blocks of a page: { language, text, line, prints }.
local function blocks_of(path)
  local out, open, number, prints = {}, nil, 0, nil
  for line in io.lines(path) do
    number = number + 1
    local language = line:match("^```(%w*)")
    if language and open then
      open.text = table.concat(open, "\n") .. "\n"
      out[#out + 1], open = open, nil
    elseif language then
      open = { language = language, line = number, prints = prints }
    elseif open then
      open[#open + 1] = line
    end
    prints = line:match("^<!%-%- prints: (.-) %-%->") or line == "" and prints or nil
  end
  return out
end


local runners = {}


function runners.lua(block, dir)
  local file = dir .. "/block.lua"
  nginx.write(file, block.text)
  if block.text:find("^return {") then
    return run(("luajit -e \"assert(require('drover.gateway.config').read('%s'))\"")
               :format(file))
  end
  return run("luajit " .. file)
end


function runners.nginx(block, dir)
  local conf = source.read("examples/nginx.conf"):match("^(.-http {).*")
  local inside = block.text:gsub("daemon off;", "")
  nginx.write(dir .. "/nginx.conf", conf:gsub("build/nginx.pid", dir .. "/pid")
    .. "\naccess_log off;\nlua_package_path 'lua/?.lua;lua/?/init.lua;"
    .. "build/lua/?.lua;;';\n" .. inside .. "}\n")
  return run(("nginx -t -p %s -c %s/nginx.conf"):format(ROOT, dir))
end


-- Servers in the background; the next line waits until they answer.
function runners.sh(block, dir)
  local port, script = nginx.port(), { "set -e" }
  for line in block.text:gmatch("[^\n]+") do
    line = line:gsub("%f[%d]8000%f[%D]", tostring(port))
    if line:find("drover serve", 1, true) then
      line = line:gsub("%s+#.*", "") .. " & trap \"kill $! 2> /dev/null; wait\" EXIT\n"
        .. ("for i in $(seq 200); do curl -sf http://127.0.0.1:%d/health > /dev/null "
            .. "&& break; sleep 0.05; done"):format(port)
    end
    script[#script + 1] = line
  end
  nginx.write(dir .. "/block.sh", table.concat(script, "\n") .. "\n")
  return run("bash " .. dir .. "/block.sh")
end


for _, path in ipairs(PAGES) do
  describe(path, function()
    for _, block in ipairs(blocks_of(path)) do
      local runner = runners[block.language]
      if runner then
        it(("runs its %s at line %d"):format(block.language, block.line), function()
          local text, status = runner(block, nginx.folder())
          assert.equal(0, status, text)
          if block.prints then
            assert.truthy(text:find(block.prints, 1, true), text)
          end
        end)
      end
    end
  end)
end


describe("README.md", function()
  it("has a program that runs by line 12", function()
    local first = blocks_of("README.md")[1]
    assert.equal("lua", first.language)
    assert.is_true(first.line + select(2, first.text:gsub("\n", "")) < 12)
  end)

  it("tells true about running from a checkout", function()
    local text, status = run("bash -c 'cd " .. ROOT .. " && eval \"$(make -s env)\" && "
      .. "luajit examples/hello.lua \"What is the capital of Norway?\"'")
    assert.equal(0, status, text)
    assert.truthy(text:find("Oslo", 1, true), text)
  end)

  it("links to what is there", function()
    for _, path in ipairs(PAGES) do
      local folder = path:match("^(.*/)") or ""
      for target in source.read(path):gmatch("%]%(([^)#:]+)[^)]*%)") do
        local there = os.execute("test -e '" .. folder .. target .. "'")
        assert.is_true(there == 0 or there == true, path .. " -> " .. target)
      end
    end
  end)
end)


describe("examples/nginx.conf", function()
  it("answers under nginx", function()
    local a, b = nginx.serve(), nginx.upstream()
    local port, dir = nginx.port(), nginx.folder()
    local user = nginx.shell("id -un"):gsub("%s+$", "")
    local conf = source.read("examples/nginx.conf")
      :gsub("build/nginx.pid", dir .. "/pid"):gsub("127.0.0.1:8001", "127.0.0.1:" .. a.port)
      :gsub("127.0.0.1:8002", "127.0.0.1:" .. b.port)
      :gsub("listen 127.0.0.1:8080", "listen 127.0.0.1:" .. port)
    nginx.write(dir .. "/nginx.conf",
                (user == "root" and "user root;\n" or "") .. conf)
    local server = nginx.start(("nginx -p %s -c %s/nginx.conf"):format(ROOT, dir), dir)
    local status, body
    nginx.until_true(function()
      status, body = nginx.get(("http://127.0.0.1:%d/ask?q=Who%%20are%%20you"):format(port))
      return status and status ~= 0 or not server:alive()
    end)
    for _, started in ipairs{ server, a, b } do
      started:stop()
    end
    assert.equal(200, status, server:log() .. (body or ""))
  end)
end)
