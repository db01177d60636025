-- The nodes as this process knows them: which configured row stands behind
-- each row of the shared table, with its key, its provider, its engine. Rows
-- that another worker added are learnt from the zone.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local err = require "drover.err"
local loops = require "drover.loop"
local key_source = require "drover.key"
local node = require "drover.node"
local tokens = require "drover.tokens"

local _M = {}

local mt = {}
mt.__index = mt

local GIB = 2 ^ 30


local ALL_BUT_ONE = 2 ^ 32 - 1   -- cores: a server's own loop has one
local KV = { f16 = C.DROVER_KV_F16, q8_0 = C.DROVER_KV_Q8_0,
             f32 = C.DROVER_KV_F32 }


-- Open a local row's model. Returns true, or nil and an error.
local function open_engine(row)
  local config, e = ffi.new("drover_engine_config"), ffi.new("drover_err")
  local out = ffi.new("drover_engine *[1]")
  config.path = row.engine_path
  config.context, config.batch = row.context or 0, row.batch or 0
  config.memory_cap_bytes = (row.memory_cap_gb or 0) * GIB
  config.kv = KV[row.kv or "f16"]
  config.step_ms = row.step_ms or 0
  config.threads = row.threads or loops.get().spare and ALL_BUT_ONE or 0
  local code = C.drover_engine_open(out, config, e)
  if code ~= 0 then
    local text = ffi.string(e.text)
    if not text:find(row.engine_path, 1, true) then
      text = row.engine_path .. ": " .. text
    end
    return nil, err.new(err.kind(code), row.where .. ".url: " .. text, {
      node = row.id, phase = "config",
    })
  end
  row.engine = ffi.gc(out[0], C.drover_engine_close)
  return true
end


local function counter(engine)
  return function(text)
    local count = tonumber(C.drover_engine_tokens(engine, text, #text))
    return count > 0 and count or tokens.of_text(text)
  end
end


-- A fleet of these configured rows; opens the models of the local ones. Or
-- nil and an error.
function _M.new(rows)
  local self = setmetatable({ rows = {}, known = {}, versions = {},
                              engines = {} }, mt)
  for _, row in ipairs(rows) do
    local ok, e = self:take(row)
    if not ok then
      return nil, e
    end
  end
  return self
end


-- Take a row in (its place in the table comes later).
function mt:take(row)
  if row.engine_path and not row.engine then
    local ok, e = open_engine(row)
    if not ok then
      return nil, e
    end
    row.count = counter(row.engine)
  end
  self:forget(row.id)
  self.rows[row.id] = row
  if row.engine then
    self.engines[#self.engines + 1] = row
  end
  return true
end


function mt:forget(id)
  local row = self.rows[id]
  self.rows[id] = nil
  for i = #self.engines, 1, -1 do
    if self.engines[i] == row then
      table.remove(self.engines, i)
    end
  end
end


local function place(self, number, row, version)
  self.known[number], self.versions[number] = row, version
end


-- Find the places of the rows that we configured.
function mt:locate(handle)
  local text = ffi.new("drover_node_text")
  for id, row in pairs(self.rows) do
    local number = C.drover_node_find(handle, id)
    if number > 0 and C.drover_node_read(handle, number, text) == 0 then
      place(self, number, row, text.version)
    end
  end
end


-- Add our rows to the table under a configuration's number. Returns true, or
-- nil and an error.
function _M.apply(handle, generation, order)
  local e = ffi.new("drover_err")
  for _, row in ipairs(order) do
    local code = node.add(handle, row, generation, e)
    if code < 0 then
      return nil, err.from_c(code, e, { node = row.id, phase = "config" })
    end
  end
  return true
end


-- What stands in the table at `number` and is not known here.
local function learn(self, handle, number, version)
  local text = ffi.new("drover_node_text")
  if C.drover_node_read(handle, number, text) ~= 0
     or text.version ~= version then
    return nil, "the node was replaced while it was being chosen"
  end
  local id = ffi.string(text.id)
  local row = self.rows[id]
  if not row or row.url ~= ffi.string(text.url) then
    local why
    row, why = node.from_spec(ffi.string(text.spec))
    if not row then
      return nil, "node " .. id .. " cannot be used here: " .. why
    end
    local ok, e = self:take(row)
    if not ok then
      return nil, tostring(e)
    end
  end
  place(self, number, row, version)
  return row
end


-- The configured row behind a row of the table, or nil and why not.
function mt:row(handle, number, version)
  if self.versions[number] == version then
    return self.known[number]
  end
  return learn(self, handle, number, version)
end


-- A function that counts a text's tokens exactly, where a local node takes the
-- model; else nil.
function mt:tokenizer(model)
  for i = 1, #self.engines do
    local row = self.engines[i]
    if not model or row.models[model] then
      return row.count
    end
  end
end


-- Tell the table how busy the local engines are.
function mt:report(handle, now)
  local load, report
  for id, row in pairs(self.rows) do
    if row.engine then
      load = load or ffi.new("drover_engine_load")
      report = report or ffi.new("drover_report")
      C.drover_engine_busy(row.engine, load)
      report.memory_gb, report.load = 0 / 0, 0 / 0
      report.waiting, report.running = load.waiting, load.running
      report.kv_used = load.kv_tokens > 0
                       and load.kv_tokens_used / load.kv_tokens or 0
      C.drover_node_report(handle, id, report, now)
    end
  end
end


-- Keys in files: read again; one that became unreadable stays as it was. A
-- new one has not been refused yet, so its row is asked again.
function mt:refresh_keys(handle, now)
  for id, row in pairs(self.rows) do
    local source = row.key_source
    local key = type(source) == "table" and source.file
                and key_source.read(source)
    if key and key ~= row.key then
      row.key = key
      C.drover_node_clear(handle, id, now)
    end
  end
end


return _M
