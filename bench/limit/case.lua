-- The measured loops of bench/limit.lua, run in each nginx worker: a decision
-- with its limits taken and settled, beside the same one without limits and
-- one `ngx.shared` incr, for one hot name and 10,000 in turn, in one process
-- and at the same time in all. CPU time of the thread; rounds are interleaved.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"

local NAN = 0 / 0

ffi.cdef[[
  struct bench_time { long sec, nsec; };
  int clock_gettime(int clock, struct bench_time *out);
  int usleep(unsigned us);
]]

local _M = {}

local ROUNDS, TURNS = 15, 40000
local SIZES = { 1, 10000 }
local MANY = 4000000000             -- a minute: nothing is refused

local time = ffi.new("struct bench_time")
local err = ffi.new("drover_err")


local function cpu_ns()
  ffi.C.clock_gettime(3, time)                    -- this thread's
  return tonumber(time.sec) * 1e9 + tonumber(time.nsec)
end


-- ---- the router: made in the master, opened in each worker ----

local function open()
  local out = ffi.new("drover_router *[1]")
  local config = ffi.new("drover_router_config", {
    name = "limit", shared = 1, create = 1, concurrent = 1000,
    policy = C.drover_policy("round_robin"),
  })
  assert(C.drover_router_open(out, config, err) == 0)
  return ffi.gc(out[0], C.drover_router_close)
end


-- In the master: the zone.
function _M.make()
  local r = open()
  for i = 1, 16 do
    local id, url = "n" .. i, "http://10.0.0.1:" .. 9000 + i
    local node = ffi.new("drover_node_config")
    node.id, node.url, node.capacity, node.weight = id, url, 50, 1
    node.memory_gb, node.price_input, node.price_output = 40, NAN, NAN
    assert(C.drover_node_add(r, node, C.drover_clock() + 3600, err) == i)
  end
end


-- ---- the loops ----

-- Bursts of a minute: clocks of two workers may be that far apart here.
local RPM = ffi.new("drover_limit", { rpm = MANY, burst_requests = MANY })
local THREE = ffi.new("drover_limit", {
  rpm = MANY, tpm = MANY, concurrent = 1000, burst_requests = MANY,
  burst_tokens = MANY,
})
-- The scopes that each case limits, and by what.
local LIMITS = {
  none = {}, rpm = { [1] = RPM }, three = { [1] = THREE },
  scopes = { [0] = RPM, [1] = RPM, [2] = RPM },
}
local ORDER = { "none", "rpm", "three", "scopes" }


-- Decide and take, send, settle: as a request does, of tenants in turn.
local function decide(r, limits, size)
  local p, names = ffi.new("drover_pick"), ffi.new("uint64_t[?]", size)
  local outcome = ffi.new("drover_outcome", {
    first_token_ms = 20, token_ms = 10, prompt_tokens = 100,
    completion_tokens = 50, tokens = 150,
  })
  for i = 1, size do
    names[i - 1] = C.drover_hash("tenant" .. i, #("tenant" .. i))
  end
  local now = C.drover_clock()
  p.prompt_tokens, p.max_tokens = 100, 100
  for scope, limit in pairs(limits) do
    p.limits[scope] = limit
  end
  return function(turns)
    local refused = 0
    for _ = 1, turns / size do
      for i = 0, size - 1 do
        now = now + 1e-6
        p.key = names[i]
        C.drover_pick_reset(p)
        if C.drover_pick_node(r, p, now, 0.5, err) ~= 0 then
          refused = refused + 1
        end
        C.drover_ticket_sent(r, p)
        C.drover_ticket_done(r, p, outcome, now)
      end
    end
    assert(refused == 0, "a decision was refused")
  end
end


-- What a Lua limiter would count its callers with: a key for each.
local function incr(dict, size)
  local keys = {}
  for i = 1, size do
    keys[i] = "tenant" .. i
    dict:set(keys[i], 0)
  end
  return function(turns)
    local last
    for _ = 1, turns / size do
      for i = 1, size do
        last = dict:incr(keys[i], 1)
      end
    end
    assert(last, "the key is there")
  end
end


local function cases(dicts)
  local list, r = {}, open()
  for _, size in ipairs(SIZES) do
    list[#list + 1] = { name = "incr-" .. size,
                        run = incr(dicts["bench_" .. size], size) }
    for _, name in ipairs(ORDER) do
      list[#list + 1] = { name = name .. "-" .. size,
                          run = decide(r, LIMITS[name], size) }
    end
  end
  return list
end


-- ---- all workers at the same time ----

-- Wait until `workers` have come to the step, without burning their core.
local function meet(dict, step, workers)
  dict:incr(step, 1, 0)
  while dict:get(step) < workers do
    ffi.C.usleep(50)
  end
end


-- In a worker, with ngx.shared: one line of nanoseconds for each case, written
-- to `path`.
function _M.run(dicts, workers, path)
  local list = cases(dicts)
  for _, case in ipairs(list) do
    case.run(TURNS)                               -- compiled from here on
  end
  for round = 1, ROUNDS do
    for i, case in ipairs(list) do
      meet(dicts.bench, round .. "." .. i, workers)
      local start = cpu_ns()
      case.run(TURNS)
      case[round] = (cpu_ns() - start) / TURNS
    end
  end
  local file = assert(io.open(path .. ".part", "w"))
  for _, case in ipairs(list) do
    table.sort(case)
    file:write(("%s %.1f %.1f\n"):format(case.name, case[1],
                                         case[(ROUNDS + 1) / 2]))
  end
  file:close()
  assert(os.rename(path .. ".part", path))
end


return _M
