-- The text of nginx's configuration.
local conf = require "drover.gateway.nginx"


local function write(more)
  local p = { dir = "/tmp/d", config = "/etc/gw.lua", listen = "127.0.0.1:1",
              workers = 2, max_body = 8192, modules = { "/m/a.so" },
              path = "/l/?.lua", cpath = "/l/?.so" }
  for name, value in pairs(more or {}) do p[name] = value end
  return conf.write(p)
end


describe("gateway.nginx", function()
  it("says what was asked", function()
    local text = write{ user = "ann staff" }
    for _, line in ipairs{
      "daemon off;", "user ann staff;", "worker_processes 2;",
      'load_module "/m/a.so";', "listen 127.0.0.1:1 ", "access_log off;",
      "lua_check_client_abort on;", "client_max_body_size 8192;",
      'init("/etc/gw.lua", "/tmp/d")', 'pid "/tmp/d/nginx.pid";',
    } do
      assert.truthy(text:find(line, 1, true), line)
    end
  end)

  it("runs workers as nobody else when not root", function()
    assert.is_nil(write():find("\nuser "))
  end)

  it("logs no body and no query", function()
    local text = write{ access_log = true }
    assert.truthy(text:find("access_log /dev/stdout drover", 1, true))
    assert.is_nil(text:find("$request_body", 1, true))
    assert.is_nil(text:find("$args", 1, true))
  end)

  it("keeps a strange path inside its quotes", function()
    local text = write{ config = '/a"}; return; {' }
    assert.truthy(text:find('init("/a\\034\\125\\059 return\\059 \\123"',
                            1, true))
    assert.has_error(function() write{ dir = "/a\nb" } end)
  end)
end)
