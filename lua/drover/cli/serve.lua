-- `drover serve`: checks the configuration, writes nginx's into a folder of
-- its own and becomes nginx.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local args = require "drover.cli.args"
local place = require "drover.cli.place"
local config = require "drover.gateway.config"
local nginx_conf = require "drover.gateway.nginx"
local redis = require "drover.redis"

local _M = {}

ffi.cdef[[
  int dup2(int from, int to);
  int fileno(void *file);
]]

local HELP = [[
drover serve [--config FILE | --model FILE.gguf] [--port 8000]

  --config FILE   the gateway's configuration: a Lua file that returns
                  { listen = "127.0.0.1:8000", workers = 4, router = { … },
                    keys = { { key = "…", name = "…" } } }
  --model FILE    serve this GGUF file (by default the one that comes along)
  --port N        listen on this port instead
  --access-log    one line a request on standard output, without prompts

It runs nginx in the foreground. HUP to its master reads FILE again, QUIT
lets running requests end.
]]

local FLAGS = { config = "a file", model = "a GGUF file", port = "a number",
                ["access-log"] = true, help = true }


local function write_file(path, text)
  local file, why = io.open(path, "wb")
  if not file then return nil, why end
  file:write(text)
  file:close()
  return true
end


local function model_config(path)
  if not path then
    local why
    path, why = place.model()
    if not path then return nil, why end
  elseif not place.readable(path) then
    return nil, path .. ": cannot be read"
  end
  return string.format("return { router = { nodes = { { url = %q } } } }\n",
                       "local:" .. place.absolute(path))
end


-- The text or file that was asked for, checked. Returns the settings, the
-- text of a generated configuration (or nil), and the file that owns it all.
local function settings_of(opts)
  if opts.config then
    local settings, why = config.read(opts.config)
    if not settings then return nil, why end
    return settings, nil, opts.config
  end
  local text, why = model_config(opts.model)
  if not text then return nil, why end
  local settings
  settings, why = config.parse(text, opts.model or "bundled model")
  return settings, settings and text or why, opts.model or place.model()
end


-- The router without what works inside nginx only; or nil, what is wrong
-- with that.
local function plain(router)
  local limits = router.limits
  local shared = type(limits) == "table" and limits.redis
  if type(shared) ~= "table" then return router end
  local ok, why = redis.read(shared, "limits.redis")
  if not ok then return nil, why end
  local copy = { limits = {} }
  for name, value in pairs(router) do
    if name ~= "limits" then copy[name] = value end
  end
  for name, value in pairs(limits) do
    if name ~= "redis" then copy.limits[name] = value end
  end
  return copy
end


-- What is wrong with `router`, or nil: drover.new checks it; the router itself
-- is nginx's to make. `file` is the configuration's; nil when it is ours.
local function check_router(settings, file)
  local given, wrong = plain(settings.router)
  if not given then return file .. ": " .. wrong end
  local ok, router, err = pcall(require("drover").new, given)
  local why = config.wrong(ok, router, err)
  if why then
    return file and file .. ": " .. why
           or (why:gsub("^router%.nodes%[1%]%.url: ", ""))
  end
  router:close()
end


local function owner_of(path)
  if place.ask("id -u") ~= "0" then return nil end
  local owner = place.ask("stat -c '%U %G' " .. place.quote(path))
  return owner and not owner:find("UNKNOWN") and owner or "root root"
end


-- A folder for this server alone. A shell takes it away again when the last
-- of the server's processes is gone: their standard input is a pipe to it.
local function make_folder(owner)
  local dir = place.ask("mktemp -d \"${TMPDIR:-/tmp}/drover-XXXXXXXX\"")
  if not dir or dir:sub(1, 1) ~= "/" then
    return nil, "no folder for nginx: " .. tostring(dir)
  end
  local quoted = place.quote(dir)
  if owner then
    os.execute("chown " .. place.quote(owner:gsub(" ", ":")) .. " " .. quoted)
  end
  local keeper = io.popen("trap '' INT TERM HUP QUIT; cat >/dev/null; rm -rf "
                          .. quoted, "w")
  ffi.C.dup2(ffi.C.fileno(keeper), 0)
  return dir
end


local function become_nginx(nginx, dir)
  local words = { nginx, "-p", dir, "-e", "stderr", "-c", dir .. "/nginx.conf" }
  local argv = ffi.new("char *[?]", #words + 1)
  local keep = {}
  for i, word in ipairs(words) do
    keep[i] = ffi.new("char[?]", #word + 1, word)
    argv[i - 1] = keep[i]
  end
  local err = ffi.new("drover_err")
  C.drover_exec(argv, err)
  return 1, ffi.string(err.text)
end


local function with_port(listen, port)
  local number = tonumber(port)
  if not port:match("^%d+$") or number < 1 or number > 65535 then return nil end
  if listen:sub(1, 5) == "unix:" then return "127.0.0.1:" .. port end
  return (listen:gsub(":%d+$", ":" .. port))
end


-- Why the port cannot be had, naming where it was chosen; or nil. Asked before
-- nginx starts, which would try for seconds.
local function check_listen(listen, opts)
  local why = place.not_free(listen)
  if not why or listen:sub(1, 5) == "unix:" then
    return why and opts.config .. ": listen: " .. why
  elseif opts.port then
    return "--port: " .. why
  end
  return (opts.config and opts.config .. ": listen: " or "") .. why
         .. "; --port names another port"
end


local function write_all(settings, text, opts, owner)
  local nginx, why = place.nginx()
  if not nginx then return nil, why end
  local modules, dir
  modules, why = place.modules(nginx)
  if not modules then return nil, why end
  dir, why = make_folder(owner)
  if not dir then return nil, why end
  local file = opts.config and place.absolute(opts.config)
               or dir .. "/gateway.lua"
  local conf = nginx_conf.write{
    dir = dir, config = file, modules = modules, user = owner,
    listen = settings.listen, workers = settings.workers,
    max_body = settings.max_body, access_log = opts["access-log"],
    path = place.absolute_path(package.path),
    cpath = place.absolute_path(package.cpath),
  }
  local ok = true
  if text then ok, why = write_file(file, text) end
  if ok then ok, why = write_file(dir .. "/nginx.conf", conf) end
  if not ok then return nil, why end
  return nginx, dir
end


function _M.run(argv)
  local opts, why = args.parse(argv, FLAGS, 0)
  if not opts then return 2, why end
  if opts.help then
    io.stdout:write(HELP)
    return 0
  end
  if opts.config and opts.model then
    return 2, "--config and --model exclude each other"
  end
  local settings, text, path = settings_of(opts)
  if not settings then return 1, text end
  if opts.port then
    settings.listen = with_port(settings.listen, opts.port)
    if not settings.listen then return 2, "--port must be 1 to 65535" end
  end
  settings.workers = settings.workers or place.cores()
  why = check_router(settings, opts.config)
        or check_listen(settings.listen, opts)
  if why then return 1, why end
  local nginx, dir = write_all(settings, text, opts, owner_of(path))
  if not nginx then return 1, dir end
  io.stderr:write(string.format("drover: serving on %s with %d worker%s\n",
    settings.listen, settings.workers, settings.workers > 1 and "s" or ""))
  return become_nginx(nginx, dir)
end


return _M
