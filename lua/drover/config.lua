-- What drover.new takes: checked field by field, completed with defaults.
--
-- SPDX-License-Identifier: MIT
local bundled = require "drover.bundled"
local check = require "drover.check"
local limits = require "drover.limits"
local node = require "drover.node"

local _M = {}

local NODES_MAX = 256

local fields = {
  name = { "string" }, shared = { "boolean" }, nodes = { "table" },
  policy = { "string|function|table" }, limits = { "table" },
  retry = { "table|function" }, timeout = { "table" },
  queue = { "table" }, hedge = { later = true },
  single_flight = { later = true }, cache = { later = true },
}

local retry_fields = {
  attempts = { "number", 1, 20, integer = true },
  min = { "number", 0, 3600 }, max = { "number", 0, 3600 },
  ambiguous = { "string", one_of = { "once", "never" } },
  budget = { "number", 0.01, 1 },
}

local queue_fields = {
  size = { "number", 1, 65536, integer = true },
  hold = { "number", 0, 86400 },
}

local timeout_fields = {
  connect = { "number", 0.001, 86400 },
  first_token = { "number", 0.001, 86400 },
  idle = { "number", 0.001, 86400 }, total = { "number", 0.001, 86400 },
}

local queue_defaults = { size = 1000, hold = 0 }
local timeout_defaults = { connect = 2, first_token = 60, idle = 60,
                           total = 600 }


-- A copy of `t` with what `defaults` has and `t` has not.
local function completed(t, defaults)
  local out = {}
  for name, value in pairs(defaults) do
    out[name] = value
  end
  for name, value in pairs(t or {}) do
    out[name] = value
  end
  return out
end


local function read_retry(retry)
  local defaults = { attempts = 3, min = 0.25, max = 8, ambiguous = "once",
                     budget = 0.2 }
  if type(retry) == "function" then
    defaults.decide = retry
    return defaults
  end
  local why = check.fields(retry or {}, retry_fields, "retry")
  if why then
    return nil, why
  end
  local out = completed(retry, defaults)
  if out.max < out.min then
    return nil, "retry.max: must be at least retry.min"
  end
  return out
end


local function read_queue(queue)
  local why = check.fields(queue or {}, queue_fields, "queue")
  if why then
    return nil, why
  end
  return completed(queue, queue_defaults)
end


-- Deadlines in seconds: of a router (`where` "timeout"), or of one request,
-- completed from the router's.
function _M.timeout(timeout, defaults, where)
  if type(timeout) == "number" then
    local why = check.value(timeout, timeout_fields.total)
    if why then
      return nil, where .. ": " .. why
    end
    timeout = { total = timeout }
  end
  local why = check.fields(timeout or {}, timeout_fields, where)
  if why then
    return nil, why
  end
  return completed(timeout, defaults or timeout_defaults)
end


-- Where no nodes are named, the model that comes with Drover is the one.
local function bundled_node()
  local path, why = bundled.path()
  if not path then
    return nil, "nodes: none is named and " .. why
  end
  return { { url = "local:" .. path } }
end


local function read_nodes(nodes)
  local why
  if nodes == nil then
    nodes, why = bundled_node()
  end
  why = why or check.list(nodes, 0, "nodes")
  if why then
    return nil, why
  end
  local rows, ids, urls = {}, {}, {}
  for i, n in ipairs(nodes) do
    local more, wrong = node.read(n, "nodes[" .. i .. "]", i - 1)
    if not more then
      return nil, wrong
    end
    for _, row in ipairs(more) do
      if ids[row.id] then
        return nil, "nodes[" .. i .. "].id: " .. row.id .. " is there twice"
      end
      ids[row.id] = true
      local own = row.url .. "\0" .. (row.key or "")
      if urls[own] then
        return nil, "nodes[" .. i .. "].url: the same url and key as "
                    .. urls[own] .. "; that is one node"
      end
      urls[own] = row.id
      rows[#rows + 1] = row
    end
  end
  if #rows > NODES_MAX then
    return nil, "nodes: at most " .. NODES_MAX .. " (urls times keys)"
  end
  return rows
end


-- Check a configuration. Returns a table of our own (the caller's is not
-- kept, nor changed), or nil and a sentence that names the field.
function _M.read(config)
  if type(config) ~= "table" then
    return nil, "drover.new: a table is wanted, got " .. type(config)
  end
  local why = check.fields(config, fields, "")
  if why then
    return nil, why
  end
  if config.name and (#config.name > 63 or config.name:find("[%c\"\\]")) then
    return nil, "name: must be at most 63 printable bytes"
  end
  local out = { name = config.name, policy = config.policy or "peak_ewma" }
  out.shared = config.name ~= nil and config.shared ~= false
  out.rows, why = read_nodes(config.nodes)
  if not why then
    out.limits, why = limits.read(config.limits, "limits")
  end
  why = why or limits.strangers(out.limits, out.rows)
        or limits.assign(out.limits, out.rows)
  if not why then
    out.queue, why = read_queue(config.queue)
  end
  if not why then
    out.retry, why = read_retry(config.retry)
  end
  if not why then
    out.timeout, why = _M.timeout(config.timeout, nil, "timeout")
  end
  if why then
    return nil, why
  end
  return out
end


return _M
