-- Writes the nginx configuration of a gateway: text in, text out. It knows
-- no router and reads no file.
--
-- SPDX-License-Identifier: MIT
local concat, format, min = table.concat, string.format, math.min

local _M = {}

local BUFFER = 1024 * 1024            -- larger bodies go through a file

local MAIN = [[
# Written by `drover serve`; it is read again on HUP.
daemon off;
%sworker_processes %d;
worker_rlimit_nofile 16384;
pid %s;
error_log stderr warn;
%senv DROVER_LIB;

events {
  worker_connections 8192;
}

http {
  server_tokens off;
  tcp_nodelay on;
  keepalive_timeout 75s;
  keepalive_requests 1000000;
  client_max_body_size %d;
  client_body_buffer_size %d;
  client_body_temp_path %s;
  proxy_temp_path %s;
  fastcgi_temp_path %s;
  uwsgi_temp_path %s;
  scgi_temp_path %s;
  default_type application/json;
  log_format drover '$time_iso8601 $sent_http_x_request_id $request_method '
                    '$uri $status $request_time';
  access_log %s;

  lua_package_path %s;
  lua_package_cpath %s;
  lua_code_cache on;
  lua_check_client_abort on;
  lua_socket_log_errors off;
  lua_max_running_timers 64;

  init_by_lua_block {
    require("drover.resty.gateway").init(%s, %s)
  }
  init_worker_by_lua_block {
    require("drover.resty.gateway").init_worker()
  }

%s}
]]

local SERVER = [[
  server {
    listen %s backlog=4096;
    server_name _;
    error_page 404 405 408 411 413 431 495 496 497 500 501 @refused;
    # The request line itself may be bad: no path yet for a named location.
    error_page 400 414 494 505 /refused;

    location / {
      content_by_lua_block { require("drover.resty.gateway").serve() }
    }

    # Where each piece goes out as it is printed, the head at once too.
    location @stream {
      postpone_output 0;
      content_by_lua_block { require("drover.resty.gateway").stream() }
    }

    location = /refused {
      internal;
      content_by_lua_block { require("drover.resty.gateway").refused() }
    }

    location @refused {
      content_by_lua_block { require("drover.resty.gateway").refused() }
    }
  }
]]


-- A word of nginx's language: quoted, with its own escapes.
local function quote(text)
  if text:find("[%z\1-\31\127]") then
    error("a path holds a control character", 3)
  end
  return '"' .. text:gsub('[\\"]', "\\%0"):gsub("%$", "${dollar}") .. '"'
end


-- A string of Lua's inside a block: braces would end the block, so bytes that
-- mean something to nginx's reader are written as numbers.
local function lua_quote(text)
  return '"' .. text:gsub("[^%w%._/ @:=,+-]", function(c)
    return format("\\%03d", c:byte())
  end) .. '"'
end


-- The configuration as text.
--   dir       a folder of the server's own, owned by its user
--   config    path of the gateway's configuration
--   listen, workers, max_body    as gateway.config gives them
--   user      to run workers as; nil when not root
--   modules   paths of modules to load
--   path, cpath    Lua's search paths, absolute
--   access_log     true: log requests, without bodies, to stdout
function _M.write(p)
  local modules = {}
  for i, module in ipairs(p.modules) do
    modules[i] = "load_module " .. quote(module) .. ";\n"
  end
  local function within(name) return quote(p.dir .. "/" .. name) end
  return format(MAIN,
    p.user and "user " .. p.user .. ";\n" or "", p.workers,
    within("nginx.pid"), concat(modules), p.max_body,
    min(p.max_body, BUFFER),
    within("body"), within("proxy"), within("fastcgi"), within("uwsgi"),
    within("scgi"), p.access_log and "/dev/stdout drover" or "off",
    quote(p.path), quote(p.cpath), lua_quote(p.config), lua_quote(p.dir),
    format(SERVER, p.listen))
end


return _M
