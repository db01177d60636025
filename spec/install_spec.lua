-- make install, and the environment that a checkout sets: from elsewhere.
local nginx = require "spec.support.nginx"

local CLEAN = "env -u DROVER_LIB -u DROVER_TEST_LIB -u LUA_PATH -u MAKEFLAGS "
              .. "-u MFLAGS -u MAKELEVEL "
local QUESTION = "What is the capital of Norway?"


local function run(command)
  local text = nginx.shell("exec 2>&1; " .. command .. "; echo \"exit $?\"")
  return text, tonumber(text:match("exit (%d+)%s*$"))
end


describe("make install", function()
  it("gives a command and a library that work from any folder", function()
    local prefix = nginx.shell("pwd"):gsub("%s+$", "") .. "/" .. nginx.folder()
    local text, status = run(CLEAN .. "make -s install PREFIX=" .. prefix)
    assert.equal(0, status, text)
    text, status = run("cd / && " .. CLEAN .. prefix .. "/bin/drover chat '"
                       .. QUESTION .. "'")
    assert.equal(0, status, text)
    assert.truthy(text:find("Oslo", 1, true), text)
    local lua = prefix .. "/share/lua/5.1/?"
    text, status = run("cd / && " .. CLEAN .. "LUA_PATH='" .. lua .. ".lua;" .. lua
                       .. "/init.lua;;' luajit -e 'require \"drover\"'")
    assert.equal(0, status, text)
    nginx.shell("rm -rf " .. prefix)
  end)
end)


describe("build/bin/drover", function()
  it("answers from any folder, through a link too", function()
    local here = nginx.shell("pwd"):gsub("%s+$", "")
    local link = here .. "/" .. nginx.folder() .. "/drover"
    run("ln -s " .. here .. "/build/bin/drover " .. link)
    local text, status = run("cd / && " .. CLEAN .. link .. " chat '" .. QUESTION .. "'")
    assert.equal(0, status, text)
    assert.truthy(text:find("Oslo", 1, true), text)
  end)
end)
