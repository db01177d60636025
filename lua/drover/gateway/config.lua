-- The gateway's configuration: a Lua file that returns a table. It is run
-- without os, io, require or debug, so that reading it changes nothing.
-- Here are the fields of the gateway; `router` is checked by drover.new.
--
--   return { listen = "127.0.0.1:8000", workers = 4,
--            router = { nodes = { … } },
--            keys = { { key = "…", name = "ann", limits = { rpm = 60 } } } }
--
-- SPDX-License-Identifier: MIT
local bounded = require "drover.bounded"
local key_source = require "drover.key"
local limits = require "drover.limits"

local _M = {}

_M.KEYS_MAX = 4096
_M.BODY_MAX = 8 * 1024 * 1024
_M.WORKERS_MAX = 256

local KEY_MAX = 512
local FIELDS = { key = true, name = true, limits = true, priority = true }
local PRIORITIES = { interactive = true, default = true, batch = true }
local FILE_MAX = 1024 * 1024
local NAMES = { "ipairs", "pairs", "next", "select", "tonumber", "tostring",
                "type", "unpack", "math", "string", "table", "error", "assert" }


-- What a configuration may call: copies, so that it cannot reach ours.
local function environment()
  local env = {}
  for _, name in ipairs(NAMES) do
    local value = _G[name]
    if type(value) == "table" then
      local copy = {}
      for k, v in pairs(value) do copy[k] = v end
      value = copy
    end
    env[name] = value
  end
  env.string.dump = nil
  return env
end


local function integer(value, low, high)
  return type(value) == "number" and value % 1 == 0
         and value >= low and value <= high
end


-- "host:port", ":port", "port" or "unix:/path" -> the same for nginx.
local function check_listen(value)
  if integer(value, 1, 65535) then return "127.0.0.1:" .. value end
  if type(value) ~= "string" then
    return nil, "must be \"host:port\" or \"unix:/path\""
  end
  if value:match("^unix:/[%w%._/-]+$") then return value end
  local host, port = value:match("^([%w%.-]*):?(%d+)$")
  if not host then host, port = value:match("^(%[[%x:%.]+%]):(%d+)$") end
  if not host or not integer(tonumber(port), 1, 65535) then
    return nil, "must be \"host:port\" or \"unix:/path\""
  end
  if value:match("^%d+$") then return "127.0.0.1:" .. value end
  return (host == "" and "0.0.0.0" or host) .. ":" .. port
end


-- A key as it stands, or out of { env = } or { file = }: read once, here.
local function check_text(entry)
  local key = entry.key
  if type(key) == "table" then
    local why
    key, why = key_source.read(key)
    if not key then return why end
    entry.key = key
  end
  if type(key) ~= "string" or #key < 8 or #key > KEY_MAX
     or not key:match("^[\33-\126]+$") then
    return "must be a text of 8 to " .. KEY_MAX .. " visible ASCII characters, "
           .. "{ env = NAME } or { file = PATH }"
  end
end


local function check_key(entry)
  if type(entry) ~= "table" then return "", "must be a table" end
  for field in pairs(entry) do
    if not FIELDS[field] then
      return "." .. tostring(field), "is no field of a key"
    end
  end
  local name, why = entry.name, check_text(entry)
  if why then return ".key", why end
  if entry.priority ~= nil and not PRIORITIES[entry.priority] then
    return ".priority", "must be one of interactive, default, batch"
  end
  if name ~= nil and (type(name) ~= "string" or not name:match("^[%w%._@-]+$")
                      or #name > 64) then
    return ".name", "must be 1 to 64 letters, digits and ._@-"
  end
  if entry.limits ~= nil and type(entry.limits) ~= "table" then
    return ".limits", "must be a table"
  elseif entry.limits and not name then
    return ".name", "is missing; limits go by it"
  end
end


local function check_keys(keys)
  if type(keys) ~= "table" or #keys == 0 then
    return "", "must be a list of { key =, name = }"
  end
  if #keys > _M.KEYS_MAX then return "", "has too many entries" end
  local seen = {}
  for field in pairs(keys) do
    if not integer(field, 1, #keys) then
      return "." .. tostring(field), "is no index of a list"
    end
  end
  for i, entry in ipairs(keys) do
    local field, why = check_key(entry)
    if why then return "[" .. i .. "]" .. field, why end
    if seen[entry.key] then
      return "[" .. i .. "].key", "is that of keys[" .. seen[entry.key] .. "]"
    end
    seen[entry.key] = i
  end
end


local CHECKS = {
  listen = function(out, value)
    local listen, why = check_listen(value)
    out.listen = listen
    if not listen then return "", why end
  end,
  workers = function(out, value)
    if not integer(value, 1, _M.WORKERS_MAX) then
      return "", "must be a whole number from 1 to " .. _M.WORKERS_MAX
    end
    out.workers = value
  end,
  router = function(out, value)
    if type(value) ~= "table" then
      return "", "must be a table: what drover.new takes"
    end
    out.router = value
  end,
  keys = function(out, value)
    out.keys = value
    return check_keys(value)
  end,
  mode = function(_, value)
    if value == "proxy" then
      return "", "\"proxy\" is not built yet; use \"client\""
    elseif value ~= "client" then
      return "", "must be \"client\""
    end
  end,
  max_body = function(out, value)
    if not integer(value, 1024, 1024 * 1024 * 1024) then
      return "", "must be a number of bytes from 1024 to 2^30"
    end
    out.max_body = value
  end,
}


-- Without `nodes` the router has the bundled model, which is local too.
local function has_local_node(router)
  if router.nodes == nil then return true end
  for _, node in ipairs(type(router.nodes) == "table" and router.nodes or {}) do
    local url = type(node) == "table" and node.url
    if type(url) == "string" and url:sub(1, 6) == "local:" then return true end
  end
  return false
end


-- keys[i].limits are those of the tenant of that name. nil, or what is wrong.
local function name_limits(keys, router)
  for i, entry in ipairs(keys or {}) do
    if entry.limits then
      local at = "keys[" .. i .. "].limits"
      local ok, why = limits.read_node(entry.limits, at)
      local all = router.limits
      all.per = ok and all.per or {}
      local tenant = type(all.per) == "table" and all.per.tenant or {}
      local named = type(tenant) == "table" and tenant.named or {}
      if not ok then
        return why
      elseif type(all.per) ~= "table" or type(tenant) ~= "table"
             or type(named) ~= "table" then
        return nil              -- drover.new says what is wrong
      elseif named[entry.name] then
        return at .. ": " .. entry.name .. " has limits already"
      end
      named[entry.name] = entry.limits
      tenant.named, all.per.tenant = named, tenant
    end
  end
end


-- Check what a file returned. Returns the gateway's settings, with `workers`
-- nil when the machine's cores shall decide; or nil, "field: why".
function _M.check(given)
  if type(given) ~= "table" then
    return nil, "must return a table"
  end
  local out = { max_body = _M.BODY_MAX }
  for field, value in pairs(given) do
    local check = CHECKS[field]
    if not check then
      return nil, tostring(field) .. ": is no field of the gateway"
    end
    local at, why = check(out, value)
    if why then return nil, field .. at .. ": " .. why end
  end
  if not out.router then return nil, "router: is missing" end
  out.listen = out.listen or "127.0.0.1:8000"
  if has_local_node(out.router) then
    if (out.workers or 1) > 1 then
      return nil, "workers: must be 1 while a node is `local:`; "
                  .. "several workers cannot share one engine yet"
    end
    out.workers = 1
  end
  if out.router.name == nil then out.router.name = "gateway" end
  if out.router.limits == nil then out.router.limits = {} end
  if type(out.router.limits) == "table"
     and out.router.limits.concurrent == nil then
    out.router.limits.concurrent = 256
  end
  local why = type(out.router.limits) == "table"
              and name_limits(out.keys, out.router)
  if why then return nil, why end
  return out
end


-- What is wrong with `router`, or nil, of what pcall(drover.new, router) gave.
function _M.wrong(ok, router, err)
  if ok and router then return nil end
  local why = tostring(ok and err.message or router)
  if not ok or why:find("^%l+[%.%[]") then return "router." .. why end
  return why
end


-- Run the text of a configuration. nil, reason on failure.
function _M.parse(text, name)
  local chunk, why = load(text, "=" .. name, "t", environment())
  if not chunk then return nil, why end
  local ok, given = bounded.call(chunk)
  if not ok then
    why = tostring(given)
    return nil, why:find(name, 1, true) == 1 and why or name .. ": " .. why
  end
  local out
  out, why = _M.check(given)
  if not out then return nil, name .. ": " .. why end
  return out
end


-- Read a configuration file. nil, reason on failure; it names the file.
function _M.read(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read(FILE_MAX + 1)
  file:close()
  if not text then return nil, path .. ": cannot be read" end
  if #text > FILE_MAX then return nil, path .. ": is too large" end
  return _M.parse(text, path)
end


return _M
