-- Routers of the C library for specs, with made nodes and a made clock. Knows
-- the calls of drover.h, no Lua module of the library.
local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

local _M = {}

local err = ffi.new("drover_err")
local out = ffi.new("drover_router *[1]")
local NAN = 0 / 0

_M.err = err

c.cdef[[
struct node_row {
  uint64_t breaker, models_mask;
  double outcome_at, first_at;
  float tries, errors, token_n, token_sum, score_latency_ms, score_load;
  double seen_at, added_at;
  uint64_t identity, label, writer;
  uint32_t texts, generation;
  int32_t last_code;
  uint32_t models_count;
  uint64_t group;
  float weight;
  uint32_t spare;
  drover_limit limits[2];
  uint64_t upstream[6], share[10], pad[6], models[64];
};
]]


-- What apply_end reads of a configuration.
function _M.settings(concurrent)
  return ffi.new("drover_router_config", { concurrent = concurrent })
end


-- opts: name, shared, create, nodes_max, members_max, tickets_max, queue_max,
-- keys_max, concurrent, policy (a name). Returns the handle, or nil, code, text.
function _M.open(opts)
  opts = opts or {}
  local config = ffi.new("drover_router_config", {
    name = opts.name or "spec",
    shared = opts.shared and 1 or 0,
    create = opts.create == false and 0 or 1,
    nodes_max = opts.nodes_max or 0,
    members_max = opts.members_max or 0,
    tickets_max = opts.tickets_max or 0,
    queue_max = opts.queue_max or 0, keys_max = opts.keys_max or 0,
    concurrent = opts.concurrent or 0,
    policy = C.drover_policy(opts.policy or "round_robin"),
  })
  local rc = C.drover_router_open(out, config, err)
  if rc ~= 0 then
    return nil, rc, ffi.string(err.text)
  end
  return ffi.gc(out[0], C.drover_router_close)
end


function _M.close(r)
  C.drover_router_close(ffi.gc(r, nil))
end


-- A node's configuration; the texts are kept alive in the second value.
function _M.node(opts)
  local keep = { opts.id, opts.url or "http://" .. opts.id, opts.key, opts.spec }
  local n = ffi.new("drover_node_config")
  n.id, n.url = keep[1], keep[2]
  if opts.key then
    n.key, n.key_size = opts.key, #opts.key
  end
  if opts.spec then
    n.spec, n.spec_size = opts.spec, #opts.spec
  end
  if opts.models then
    local models = ffi.new("uint64_t[?]", #opts.models)
    for i, name in ipairs(opts.models) do
      models[i - 1] = C.drover_hash(name, #name)
    end
    n.models, n.models_count, keep.models = models, #opts.models, models
  end
  n.capacity = opts.capacity or 50
  n.tier = opts.tier or 0
  n.generation = opts.generation or 0
  n.weight = opts.weight or 1
  n.price_input = opts.price_input or NAN
  n.price_output = opts.price_output or NAN
  n.memory_gb = opts.memory_gb or NAN
  return n, keep
end


-- Add a node: its row, or nil, code, text.
function _M.add(r, opts, now)
  local n, keep = _M.node(opts)
  local row = C.drover_node_add(r, n, now or 1, err)
  assert(keep)
  if row < 0 then
    return nil, row, ffi.string(err.text)
  end
  return row
end


-- A router with `count` nodes n1, n2, … (opts also go to each node).
function _M.with(count, opts)
  local r = assert(_M.open(opts))
  for i = 1, count do
    local n = {}
    for k, v in pairs(opts and opts.node or {}) do
      n[k] = v
    end
    n.id = "n" .. i
    assert(_M.add(r, n, opts and opts.now))
  end
  return r
end


function _M.pick()
  return ffi.new("drover_pick")
end


-- fields: code, first_token_ms, token_ms, prompt_tokens, …
function _M.outcome(fields)
  local o = ffi.new("drover_outcome")
  o.first_token_ms, o.token_ms = NAN, NAN
  for k, v in pairs(fields or {}) do
    o[k] = v
  end
  return o
end


-- What the zone keeps of a row beside what policies see (the span behind the
-- rows). `nodes_max` is the router's.
function _M.own(r, row, nodes_max)
  local rows = ffi.cast("drover_node *", C.drover_nodes(r))
  return ffi.cast("struct node_row *", rows + nodes_max + 1) + row
end


-- Pick, send and settle at `now`; returns the row, or nil, code.
function _M.turn(r, now, rnd, fields)
  local p = _M.pick()
  local rc = C.drover_pick_node(r, p, now, rnd or 0, err)
  if rc ~= 0 then
    return nil, rc
  end
  local node = p.node
  assert(C.drover_ticket_sent(r, p) == 0)
  assert(C.drover_ticket_done(r, p, _M.outcome(fields), now) == 0)
  return node
end


-- One attempt on a row, whatever the policy would say.
function _M.hit(r, row, now, fields)
  local p = _M.pick()
  C.drover_pick_begin(r, p, now, 0.5)
  local rc = C.drover_pick_claim(r, p, row, err)
  if rc ~= 0 then
    return nil, rc
  end
  C.drover_ticket_sent(r, p)
  assert(C.drover_ticket_done(r, p, _M.outcome(fields), now) == 0)
  return true
end


function _M.expose(r)
  local need = tonumber(C.drover_expose(r, nil, 0))
  local buf = ffi.new("char[?]", need + 1)
  assert(tonumber(C.drover_expose(r, buf, need + 1)) == need)
  return ffi.string(buf, need)
end


-- The value of a series as Prometheus text has it, or nil.
function _M.series(text, name)
  for line in text:gmatch("[^\n]+") do
    if line:sub(1, #name + 1) == name .. " " then
      return tonumber(line:sub(#name + 2))
    end
  end
end


-- Run `f` in a forked child and wait; its exit status, or -signal. The child
-- leaves by _exit: no finalizer, no leak check, as a killed process does.
if not pcall(function() return ffi.C.fork end) then
  ffi.cdef[[ int fork(void); void _exit(int); int waitpid(int, int *, int);
             int kill(int, int); int getpid(void); int pause(void); ]]
end

function _M.child(f)
  local pid = ffi.C.fork()
  assert(pid >= 0, "fork")
  if pid == 0 then
    local ok, status = pcall(f)
    if not ok then
      io.stderr:write(tostring(status), "\n")
    end
    ffi.C._exit(ok and (tonumber(status) or 0) or 99)
  end
  local status = ffi.new("int[1]")
  assert(ffi.C.waitpid(pid, status, 0) == pid)
  local low = status[0] % 128
  return low == 0 and math.floor(status[0] / 256) % 256 or -low
end


return _M
