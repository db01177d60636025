-- `limits.redis` as a configuration says it: where the Redis is that several
-- hosts share their rates through. Connects to nothing.
--
-- SPDX-License-Identifier: MIT
local check = require "drover.check"
local key_source = require "drover.key"

local _M = {}

local PORT, HOSTS, LEASE, PREFIX = 6379, 2, 2, "drover"

local fields = {
  url = { "string" },
  password = { "table" },
  hosts = { "number", 1, 10000, integer = true },
  lease = { "number", 0.5, 60 },
  prefix = { "string" },
}


-- "redis://user:secret@host:6379/0" -> { host, port, db, user, password }, or
-- nil. The user may be left out.
local function read_url(url)
  local rest = url:match("^redis://([^%c%s]+)$")
  if not rest then
    return nil
  end
  local login, place = rest:match("^(.*)@([^@]*)$")
  local authority, db = (place or rest):match("^([^/]+)/?(%d*)$")
  if not authority then
    return nil
  end
  local host, port = authority:match("^(%[[%x:.]+%]):?(%d*)$")
  if not host then
    host, port = authority:match("^([%w._-]+):?(%d*)$")
  end
  local user, password = (login or ""):match("^([^:]*):(.+)$")
  port = port == "" and PORT or tonumber(port)
  if not host or not port or port < 1 or port > 65535
     or login and not password then
    return nil
  end
  return { host = (host:gsub("[%[%]]", "")), port = port, password = password,
           user = user ~= "" and user or nil, db = tonumber(db) or 0 }
end


-- Check the table. Returns { host, port, db, user, password, hosts, lease,
-- prefix }, or nil and what is wrong, without the password.
function _M.read(redis, where)
  local why = check.fields(redis, fields, where)
  if not why and not redis.url then
    why = where .. ".url: is missing"
  end
  local out = not why and read_url(redis.url) or nil
  if not why and not out then
    why = where .. ".url: must be redis://[[user]:password@]host[:port][/db]"
  end
  local prefix = redis.prefix or PREFIX
  if not why and not prefix:match("^[%w:._-]+$") then
    why = where .. ".prefix: letters, digits and :._- only"
  end
  if not why and redis.password then
    if out.password then
      why = "is in the url too"
    else
      out.password, why = key_source.read(redis.password)
    end
    why = why and where .. ".password: " .. why
  end
  if why then
    return nil, why
  end
  out.hosts, out.lease = redis.hosts or HOSTS, redis.lease or LEASE
  out.prefix = prefix
  return out
end


return _M
