-- The measured loops of bench/pick.lua, run in each nginx worker: one decision
-- with take and give back, beside one `ngx.shared` incr, in one process and at
-- the same time in all. CPU time of the thread; rounds are interleaved.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local view = require "drover.policy.view"

local floor, random = math.floor, math.random
local NAN = 0 / 0

ffi.cdef[[
  struct bench_time { long sec, nsec; };
  int clock_gettime(int clock, struct bench_time *out);
  int usleep(unsigned us);
]]

local _M = {}

local ROUNDS, TURNS = 15, 20480
local SIZES = { 16, 256 }
local POLICIES = { "round_robin", "two_choices", "peak_ewma", "least_inflight",
                   "weighted_random", "health_score", "fallback" }
local FAST = { round_robin = true, two_choices = true, peak_ewma = true }

local time = ffi.new("struct bench_time")
local err = ffi.new("drover_err")


local function cpu_ns()
  ffi.C.clock_gettime(3, time)                    -- this thread's
  return tonumber(time.sec) * 1e9 + tonumber(time.nsec)
end


-- ---- routers: made in the master, opened in each worker ----

local function name_of(policy, size)
  return policy .. "-" .. size
end


local function open(policy, size)
  local out = ffi.new("drover_router *[1]")
  local builtin = policy:match("^lua") and "peak_ewma" or policy
  local config = ffi.new("drover_router_config", {
    name = name_of(policy, size), shared = 1, create = 1, concurrent = 1000,
    policy = C.drover_policy(builtin),
  })
  assert(C.drover_router_open(out, config, err) == 0)
  return ffi.gc(out[0], C.drover_router_close)
end


local function fill(r, size)
  for i = 1, size do
    local id, url = "n" .. i, "http://10.0.0.1:" .. 9000 + i
    local node = ffi.new("drover_node_config")
    node.id, node.url, node.capacity, node.weight = id, url, 50, 1
    node.memory_gb, node.price_input, node.price_output = 40, NAN, NAN
    assert(C.drover_node_add(r, node, C.drover_clock() + 3600, err) == i)
  end
end


local function each_router(f)
  for _, size in ipairs(SIZES) do
    for _, policy in ipairs(POLICIES) do
      f(policy, size)
    end
    f("lua_two", size)
    f("lua_scan", size)
  end
end


-- In the master: the zones.
function _M.make()
  each_router(function(policy, size) fill(open(policy, size), size) end)
end


-- ---- the loops ----

local function new_outcome()
  return ffi.new("drover_outcome", {
    first_token_ms = 20, token_ms = 10, prompt_tokens = 100,
    completion_tokens = 50,
  })
end


local function new_pick()
  local p = ffi.new("drover_pick")
  p.prompt_tokens, p.max_tokens, p.again = 100, 100, 1
  return p
end


-- Decide, take, give back.
local function builtin(r)
  local p, outcome, now = new_pick(), new_outcome(), C.drover_clock()
  return function(turns)
    local refused = 0
    for _ = 1, turns do
      now = now + 1e-6
      if C.drover_pick_node(r, p, now, random(), err) ~= 0 then
        refused = refused + 1
      end
      C.drover_ticket_done(r, p, outcome, now)
    end
    assert(refused == 0, "a decision was refused")
  end
end


-- The same, marked as sent and counted, as a request does. A loop of its own:
-- as a branch of the other it would be a side trace, which costs 10 ns a turn.
local function sent(r)
  local p, outcome, now = new_pick(), new_outcome(), C.drover_clock()
  return function(turns)
    local refused = 0
    for _ = 1, turns do
      now = now + 1e-6
      if C.drover_pick_node(r, p, now, random(), err) ~= 0 then
        refused = refused + 1
      end
      C.drover_ticket_sent(r, p)
      C.drover_ticket_done(r, p, outcome, now)
    end
    assert(refused == 0, "a decision was refused")
  end
end


-- Policies in Lua. One that looks at two nodes is compiled into its caller. One
-- that walks over all is not: LuaJIT leaves a loop of more than 15 turns to a
-- trace of its own, and returns from that to the interpreter.
local in_lua = {}

function in_lua.lua_two(nodes, request)
  local x = request.random * nodes.count
  local i = floor(x)
  local j = floor((x - i) * (nodes.count - 1))
  if j >= i then
    j = j + 1
  end
  local a, b = nodes[i + 1], nodes[j + 1]
  if (a.inflight + 1) * b.weight <= (b.inflight + 1) * a.weight then
    return i + 1
  end
  return j + 1
end


function in_lua.lua_scan(nodes)
  local best, least = nil, math.huge
  for i = 1, nodes.count do
    local node = nodes[i]
    local on = node.inflight
    if on < least and node.state == 0 and on < node.capacity then
      best, least = i, on
    end
  end
  return best
end


local function lua_policy(r, policy)
  local p, outcome = ffi.new("drover_pick"), new_outcome()
  local nodes = view.nodes(C.drover_nodes(r), C.drover_node_count(r))
  local request = { model = "m", random = 0 }
  local now = C.drover_clock()
  p.prompt_tokens, p.max_tokens = 100, 100
  return function(turns)
    local refused = 0
    for _ = 1, turns do
      now = now + 1e-6
      C.drover_pick_begin(r, p, now, random())
      request.random = p.rnd
      local ok, row = pcall(policy, nodes, request)
      if not ok or C.drover_pick_may(r, p, row) ~= 1
         or C.drover_pick_claim(r, p, row, err) ~= 0 then
        refused = refused + 1
      end
      C.drover_ticket_done(r, p, outcome, now)
    end
    assert(refused == 0, "a decision was refused")
  end
end


-- What a Lua balancer would count its nodes with: a key for each, in turn.
-- (A key that is missing answers "not found" in half the time.)
local function incr(dict, size)
  local keys = {}
  for i = 1, size do
    keys[i] = "n" .. i
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
  local list = {}
  for _, size in ipairs(SIZES) do
    list[#list + 1] = { name = "incr-" .. size,
                        run = incr(dicts["bench_" .. size], size) }
  end
  each_router(function(policy, size)
    local r = open(policy, size)
    local f = in_lua[policy]
    list[#list + 1] = { name = name_of(policy, size),
                        run = f and lua_policy(r, f) or builtin(r) }
    if FAST[policy] then
      list[#list + 1] = { name = name_of(policy, size) .. "-sent",
                          run = sent(r) }
    end
  end)
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


-- In a worker, with ngx.shared: one line of nanoseconds for each case, written to `path`.
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
