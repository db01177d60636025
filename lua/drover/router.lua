-- A router: nodes, a policy, and the calls that go through them. Node state,
-- limits and counters lie in a zone, which nginx's workers share; what this
-- process alone knows (keys, engines, running calls) lies here.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local batch = require "drover.batch"
local err = require "drover.err"
local flights = require "drover.flight"
local limits = require "drover.limits"
local loops = require "drover.loop"
local node = require "drover.node"
local open = require "drover.open"
local pick = require "drover.pick"
local policies = require "drover.policy"
local requests = require "drover.request"
local status = require "drover.status"
local streams = require "drover.stream"
local tickets = require "drover.ticket"
local waits = require "drover.wait"

local _M = {}

local mt = {}
mt.__index = mt


function mt:__tostring()
  return "drover router " .. self.name
end


-- A router of a checked configuration (config.lua). Returns it, or nil and an
-- error; or nil, nil and a sentence for the caller's own mistakes.
function _M.new(conf)
  local router, e, why = open.new(conf)
  if not router then
    return nil, e, why
  end
  return setmetatable(router, mt)
end


local function closed()
  return err.new("closed", "the router is closed", { phase = "pick" })
end


-- Ready for work in this process? Returns true, or nil and an error.
local function ready(self)
  if self.closed then
    return nil, closed()
  end
  if not self.prepared then
    return open.prepare(self)
  end
  return true
end


local function must_wait(name)
  local phase = loops.get().blocked()
  if phase then
    error("router:" .. name .. ": nothing may wait in " .. phase, 3)
  end
end


local function bad_request(why)
  return err.new("bad_request", why, {
    phase = "config", param = why:match("^([%w_%[%]%.]+):"),
  })
end


-- The options of a request, checked: nil and what is wrong.
local function check_opts(self, opts)
  if opts == nil then
    return self.plain
  end
  local options, why = requests.options(opts, self.timeout)
  if options and options.policy ~= nil then
    local policy, e = pick.policy(self, options.policy)
    if not policy then
      return nil, e
    end
  end
  return options, why
end


-- Begin a chat request without sending it: its flight, which has :reply(),
-- :stream() and :cancel(). nil and a bad_request error where it is not one.
function mt:begin(request, opts, stream)
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  local options, why = check_opts(self, opts)
  local call
  if options then
    call, why = requests.chat(request, stream)
  end
  if not call then
    return nil, bad_request(why)
  end
  return flights.new(self, call, options)
end


-- A caller's mistake raises; what the world does returns.
local function begin_or_raise(self, request, opts, stream)
  local flight, e = self:begin(request, opts, stream)
  if not flight and e.kind == "bad_request" then
    error(e.message, 3)
  end
  return flight, e
end


-- One answer: the OpenAI shape, with .drover; or nil and an error.
function mt:chat(request, opts)
  must_wait("chat")
  local flight, e = begin_or_raise(self, request, opts, false)
  if not flight then
    return nil, e
  end
  local guard = loops.get().killable and streams.guard(flight)
  local reply, failed = flight:reply()
  if guard then
    streams.release(guard)
  end
  return reply, failed
end


-- An answer as it comes: returns at the first content, or with the error of
-- the last attempt.
function mt:stream(request, opts)
  must_wait("stream")
  local flight, e = begin_or_raise(self, request, opts, true)
  if not flight then
    return nil, e
  end
  return flight:stream()
end


-- Many requests: results in order, and how many of them are errors.
function mt:batch(list, opts)
  must_wait("batch")
  local why = batch.check(list, opts)
  if why then
    error(why, 2)
  end
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  local own = batch.request_opts(opts, self)
  ok, why = check_opts(self, own)
  if not ok then
    error(why, 2)
  end
  return batch.run(self, list, opts, own)
end


function mt.complete()
  error("router:complete: not built yet, use router:chat", 2)
end


function mt.embed()
  error("router:embed: not built yet", 2)
end


-- The decision alone: a ticket, or nil and an error.
function mt:pick(request, opts)
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  local begun = C.drover_clock()
  local call, why = requests.decision(request or {})
  local options
  if call then
    options, why = check_opts(self, opts)
  end
  if not options then
    error(why, 2)
  end
  local p = requests.pick(call, options, self)
  local row
  row, e = waits.node(self, p, call, options)
  if not row then
    return nil, e
  end
  return tickets.new(self, row, p, call, C.drover_clock() - begun)
end


-- ---- nodes ----

-- Add a node, or take up again the one of the same url and key.
function mt:add(n)
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  local rows, why = node.read(n, "node", C.drover_node_count(self.handle))
  why = why or limits.assign(self.conf.limits, rows)
  if why then
    error(why, 2)
  end
  for _, row in ipairs(rows) do
    if type(row.key_source) == "string" and open.is_shared(self) then
      error("node.key: a shared router takes { env = } or { file = } here",
            2)
    end
  end
  return open.add(self, rows)
end


-- All rows of a node's id: it has one for each of its keys.
local function each_row(self, id, f)
  if type(id) ~= "string" then
    error("id: must be a string", 3)
  end
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  if f(id) ~= 0 then
    return nil, err.new("not_found", "no node has the id " .. id)
  end
  local i = 2
  while f(id .. "#" .. i) == 0 do
    i = i + 1
  end
  return true
end


-- No new requests; what runs goes on.
function mt:remove(id)
  return each_row(self, id, function(row)
    return C.drover_node_remove(self.handle, row)
  end)
end


-- As remove, but it can come back: drain(id, false).
function mt:drain(id, on)
  return each_row(self, id, function(row)
    return C.drover_node_drain(self.handle, row, on == false and 0 or 1)
  end)
end


-- A heartbeat: { memory_gb (free), load (0..100), waiting, kv_used, running }.
function mt:report(id, report)
  local why = status.check_report(report)
  if why then
    error(why, 2)
  end
  local c = status.report(report)
  return each_row(self, id, function(row)
    return C.drover_node_report(self.handle, row, c, C.drover_clock())
  end)
end


-- Change the policy: a name, a function or { file = PATH }.
function mt:policy(spec)
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  local policy, why = policies.new(spec)
  if not policy then
    error("policy: " .. why, 2)
  end
  open.use_policy(self, policy)
  return true
end


-- ---- figures ----

function mt:nodes()
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  return status.nodes(self)
end


function mt:stats()
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  return status.stats(self)
end


-- All counters as Prometheus text.
function mt:metrics()
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  local size = tonumber(C.drover_expose(self.handle, nil, 0))
  local buf
  repeat
    local cap = size + 4096
    buf = ffi.new("char[?]", cap)
    size = tonumber(C.drover_expose(self.handle, buf, cap))
  until size < cap
  return ffi.string(buf, size)
end


-- Names of the models that its nodes take, sorted.
function mt:models()
  local ok, e = ready(self)
  if not ok then
    return nil, e
  end
  return status.models(self)
end


-- End what runs (as closed) and leave the zone. Any number of times.
function mt:close()
  if self.closed then
    return
  end
  local running = {}
  for attempt in pairs(self.active) do
    running[#running + 1] = attempt
  end
  for _, attempt in ipairs(running) do
    attempt:cancel("closed")
  end
  open.close(self)
end


-- Each method, asking first whether it was called with a colon. A tail call,
-- so that the levels of error() are those of the method.
local function with_colon(name, method)
  return function(self, a, b, c)
    if getmetatable(self) ~= mt then
      error("use router:" .. name .. "(...) with a colon", 2)
    end
    return method(self, a, b, c)
  end
end


for name, method in pairs(mt) do
  if type(method) == "function" and name ~= "__tostring" then
    mt[name] = with_colon(name, method)
  end
end


return _M
