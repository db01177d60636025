-- The trial of a policy written in Lua, before it may decide anything: run
-- over made rows of the true FFI type, with the JIT off and an instruction
-- hook, so that an endless loop ends and a Lua error shows now.
--
-- What it cannot catch: a loop that is endless only on other rows, once
-- compiled. docs/LUA-API.md says so.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local bounded = require "drover.bounded"
local view = require "drover.policy.view"

local _M = {}

local COUNTS = { 0, 1, 16, 256 }
local NAN = 0 / 0


local function usual(row, i)
  row.state, row.capacity, row.inflight = C.DROVER_UP, 50, i % 7
  row.inflight_tokens = row.inflight * 200
  row.first_token_ms, row.token_ms = 20 + i * 3 % 90, 5 + i % 11
  row.error_rate, row.waiting, row.kv_used = 0.01 * (i % 3), i % 4, 0.3
  row.memory_gb, row.load, row.weight = 10 + i % 30, i * 13 % 100, 1 + i % 2
  row.price_input, row.price_output = 1 + i % 5, 4 + i % 9
  row.tier, row.version = i % 3, 1
end


local function down(row, i)
  usual(row, i)
  row.state = C.DROVER_OUT
end


local function unknown(row, i)
  usual(row, i)
  row.first_token_ms, row.token_ms, row.waiting = NAN, NAN, NAN
  row.kv_used, row.memory_gb, row.load = NAN, NAN, NAN
  row.price_input, row.price_output = NAN, NAN
end


-- Made rows: `fill` writes row 1 to `count`.
function _M.rows(count, fill)
  local rows = ffi.new("drover_node[?]", count + 1)
  for i = 1, count do
    (fill or usual)(rows[i], i)
  end
  return rows
end


-- One question to the policy. Returns nil or what was wrong.
local function ask(f, rows, count)
  local request = view.request(nil)
  request.model, request.prompt_tokens, request.max_tokens = "m", 100, 64
  request.now, request.random, request.prefix = 1, 0.5, 12345
  local ok, answer = pcall(f, view.nodes(rows, count), request)
  if not ok then
    return "raised with " .. count .. " nodes: " .. tostring(answer)
  end
  if answer ~= nil and (type(answer) ~= "number" or answer % 1 ~= 0
                        or answer < 1 or answer > count) then
    return "answered " .. tostring(answer) .. " for " .. count .. " nodes"
  end
end


local function all(f)
  for _, count in ipairs(COUNTS) do
    for _, fill in ipairs { usual, down, unknown } do
      local why = ask(f, _M.rows(count, fill), count)
      if why then
        return why
      end
    end
  end
end


-- Returns true, or nil and what is wrong with the policy.
function _M.run(f)
  local ok, why = bounded.call(all, f)
  if not ok then
    why = "raised: " .. tostring(why)
  end
  if why then
    return nil, why
  end
  return true
end


return _M
