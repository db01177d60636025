-- One node's configuration: checked, completed, and told to the zone. A
-- configured node is a list of rows, one for each of its keys. A row knows
-- its provider, its key and where to send; it knows no state.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local check = require "drover.check"
local json = require "drover.json"
local key_source = require "drover.key"
local limits = require "drover.limits"
local openai = require "drover.provider.openai"
local engine = require "drover.provider.engine"

local _M = {}

local MODELS_MAX = 64
local CAPACITY, CAPACITY_LOCAL = 50, 256

local shared_fields = {
  id = { "string" },
  url = { "string" },
  weight = { "number", 0.001, 1000 },
  capacity = { "number", 1, 1000000, integer = true },
  memory_gb = { "number", 0, 1e6 },
  tier = { "number", 0, 1000, integer = true },
  models = { "table" },
  price = { "number|table", 0 },
  limits = { "table" },
}

local http_fields = {
  key = { "string|table|boolean", empty = true },
  keys = { "table" },
  ca_file = { "string" },
}

local local_fields = {
  device = { "string", one_of = { "cpu" } },
  batch = { "number", 1, 256, integer = true },
  context = { "number", 16, 1048576, integer = true },
  memory_cap_gb = { "number", 0.001, 1e6 },
  threads = { "number", 1, 64, integer = true },
  template = { "string", one_of = { "chatml" } },
  kv = { "string", one_of = { "f16", "q8_0", "f32" } },
  step_ms = { "number", 1, 60000, integer = true },
}

local price_fields = {
  input = { "number", 0 }, output = { "number", 0 },
  cached = { "number", 0 },
}

for name, row in pairs(shared_fields) do
  http_fields[name] = row
  local_fields[name] = row
end


-- "lambkin-q8_0.gguf" -> "lambkin".
local function model_of_path(path)
  local name = path:match("([^/]*)$"):gsub("%.gguf$", "")
  local lower = name:lower()
  for _, suffix in ipairs { "[-._]i?q%d[%w_]*$", "[-._]b?f%d+$" } do
    local at = lower:find(suffix)
    if at and at > 1 then
      return name:sub(1, at - 1)
    end
  end
  return name
end


-- models = { "a", ours = "theirs" } -> { a = "a", ours = "theirs" }, or nil
-- and what is wrong.
local function read_models(models, where)
  local names, count = {}, 0
  for name, value in pairs(models) do
    local ours = type(name) == "number" and value or name
    if type(ours) ~= "string" or type(value) ~= "string" or ours == ""
       or value == "" then
      return nil, where .. ".models: must hold names of models"
    end
    names[ours] = value
    count = count + 1
  end
  if count == 0 then
    return nil, where .. ".models: must not be empty (leave it out for any)"
  end
  if count > MODELS_MAX then
    return nil, where .. ".models: at most " .. MODELS_MAX
  end
  return names
end


local function read_price(price, where)
  if type(price) == "number" then
    return { input = price, output = price }
  end
  local why = check.fields(price, price_fields, where .. ".price")
  if why then
    return nil, why
  end
  if not price.input or not price.output then
    return nil, where .. ".price: must have input and output"
  end
  return { input = price.input, output = price.output, cached = price.cached }
end


-- Where a node's calls go: base URL with its path, and the socket if any.
local function endpoint(text, url)
  if url.is_unix == 1 then
    local path = ffi.string(url.path)
    return "http://localhost" .. (path == "" and "/v1" or path),
           ffi.string(url.unix_path)
  end
  local base = text:gsub("/+$", "")
  return url.path[0] == 0 and base .. "/v1" or base
end


local function default_id(url)
  if url.is_unix == 1 then
    return (ffi.string(url.unix_path):match("[^/]*$"))
  end
  local host = ffi.string(url.host)
  return #host <= 56 and host .. ":" .. url.port or host:sub(1, 63)
end


-- The keys of an http node: a list of { source, text }, text nil for none.
local function read_keys(n, url, where)
  if n.key ~= nil and n.keys then
    return nil, where .. ".keys: give key or keys, not both"
  end
  if n.keys then
    local why = check.list(n.keys, 1, where .. ".keys")
    if why then
      return nil, why
    end
  elseif n.key == false or n.key == nil and url.https == 0 then
    return { {} }
  elseif n.key == nil then
    return nil, where .. ".key: an https node needs one, or key = false"
  elseif n.key == true then
    return nil, where .. ".key: must be a string, a table or false"
  end
  local list = {}
  for i, source in ipairs(n.keys or { n.key }) do
    local text, why = key_source.read(source)
    if not text then
      return nil, where .. (n.keys and ".keys[" .. i .. "]: " or ".key: ")
                  .. why
    end
    list[i] = { source = source, text = text }
  end
  return list
end


local function copy(t)
  local to = {}
  for name, value in pairs(t) do
    to[name] = value
  end
  return to
end


local function http_rows(n, base, where)
  local url, err = ffi.new("drover_url"), ffi.new("drover_err")
  if C.drover_url_check(n.url, #n.url, url, err) ~= 0 then
    return nil, where .. ".url: " .. ffi.string(err.text)
  end
  local keys, why = read_keys(n, url, where)
  if not keys then
    return nil, why
  end
  base.provider = openai
  base.base_url, base.unix_path = endpoint(n.url, url)
  base.ca_file = n.ca_file
  base.capacity = n.capacity or CAPACITY
  base.id = n.id or default_id(url)
  base.group = base.id
  local rows = {}
  for i, key in ipairs(keys) do
    local row = copy(base)
    row.key, row.key_source = key.text, key.source
    row.id = i == 1 and base.id or base.id .. "#" .. i
    rows[i] = row
  end
  return rows
end


local function local_rows(n, base)
  local path = n.url:sub(7)
  base.provider = engine
  base.engine_path = path
  base.capacity = n.capacity or CAPACITY_LOCAL
  base.model = model_of_path(path)
  base.models = base.models or { [base.model] = base.model }
  base.id = n.id or base.model:sub(1, 63)
  base.group = base.id
  base.batch, base.context = n.batch, n.context
  base.memory_cap_gb = n.memory_cap_gb
  base.kv, base.step_ms, base.threads = n.kv, n.step_ms, n.threads
  base.template = n.template
  return { base }
end


-- Check one node's table. Returns its rows, or nil and what is wrong;
-- `tier` is the default, its place in the list.
function _M.read(n, where, tier)
  if type(n) ~= "table" then
    return nil, where .. ": must be a table"
  end
  if type(n.url) ~= "string" then
    return nil, check.fields(n, http_fields, where)
                or where .. ".url: is missing"
  end
  local is_local = n.url:sub(1, 6) == "local:"
  local why = check.fields(n, is_local and local_fields or http_fields, where)
  if why then
    return nil, why
  end
  if #n.url > 511 or n.url:find("%c") or n.url == "local:" then
    return nil, where .. ".url: not a URL"
  end
  if n.id and (#n.id > 60 or n.id:find("[%c\"\\]")) then
    return nil, where .. ".id: must be at most 60 printable bytes"
  end
  local base = {
    url = n.url, label = n.id, weight = n.weight or 1, where = where,
    tier = n.tier or tier, memory_gb = n.memory_gb,
  }
  if n.models then
    base.models, why = read_models(n.models, where)
  end
  if not why and n.price then
    base.price, why = read_price(n.price, where)
  end
  if not why and n.limits then
    base.own_limits, why = limits.read_node(n.limits, where .. ".limits")
  end
  if why then
    return nil, why
  end
  if is_local then
    return local_rows(n, base)
  end
  return http_rows(n, base, where)
end


-- ---- telling the zone ----

local NAN = 0 / 0


-- What another worker needs to use a row: its configuration, no key's text.
local function spec_of(row)
  local source = row.key_source
  return json.encode {
    id = row.id, url = row.url, weight = row.weight, tier = row.tier,
    capacity = row.capacity, memory_gb = row.memory_gb, models = row.models,
    price = row.price, ca_file = row.ca_file, batch = row.batch,
    context = row.context, memory_cap_gb = row.memory_cap_gb,
    kv = row.kv, step_ms = row.step_ms, threads = row.threads,
    template = row.template,
    key = type(source) == "table" and source or row.key and "literal" or nil,
    limits = row.node_limits,
  }
end


-- The limits of the node (all its keys together) and of this row.
local function set_limits(c, row)
  limits.fill(c.limit_node, row.node_limits or {}, row.shared_rates)
  limits.fill(c.limit_key, row.key_limits or {}, row.shared_rates)
  c.group = C.drover_hash(row.group, #row.group)
end


local function model_hashes(models)
  local count = 0
  local hashes = ffi.new("uint64_t[?]", MODELS_MAX)
  for name in pairs(models or {}) do
    hashes[count] = C.drover_hash(name, #name)
    count = count + 1
  end
  return hashes, count
end


-- Add a row to the table in the zone. Returns its number, or a negative
-- code; `err` is filled then.
function _M.add(handle, row, generation, err)
  local hashes, count = model_hashes(row.models)
  local spec = assert(spec_of(row))
  local c = ffi.new("drover_node_config")
  c.id, c.url = row.id, row.url
  c.key, c.key_size = row.key, row.key and #row.key or 0
  c.spec, c.spec_size = spec, #spec
  c.models, c.models_count = hashes, count
  c.capacity, c.tier, c.generation = row.capacity, row.tier, generation
  c.weight, c.memory_gb = row.weight, row.memory_gb or NAN
  c.price_input = row.price and row.price.input or NAN
  c.price_output = row.price and row.price.output or NAN
  set_limits(c, row)
  return C.drover_node_add(handle, c, C.drover_clock(), err)
end


-- A row again from the spec that another worker wrote, or nil and why not.
function _M.from_spec(text)
  local n = json.decode(text)
  if type(n) ~= "table" then
    return nil, "its configuration in the zone is not readable"
  end
  if n.key == "literal" then
    return nil, "its key is known only to the worker that added it"
  end
  if n.key == nil and n.url:sub(1, 6) ~= "local:" then
    n.key = false
  end
  local rows, why = _M.read(n, "node " .. tostring(n.id), n.tier)
  if rows then
    rows[1].node_limits = rows[1].own_limits
  end
  return rows and rows[1], why
end


_M.model_of_path = model_of_path

return _M
