-- The fault matrix's harness: a request through a real router to the fault
-- server, in one shape and one way, and what must hold after any fault:
-- one record a send, bodies received = records that sent, counters that agree,
-- nothing in flight or reserved, descriptors as before.
--
-- A row of the tables in spec/fault/:
--   row     its number in the matrix
--   fault   what the node's path asks of the fault server, or
--   url     the node's url itself, or a function that gives it
--   class   what the router makes of it, see CLASSES
--   kind    the err.kind of an attempt that met it
--   phase, status, code, billed, retryable, retry_after   of the error, where
--           it is the last one (nil: not asserted)
--   way     "chat" or "stream"; nil: both
--   timeout, retry, limits, queue, policy   of the router
--   headers, deadline   of the request
--   seen    events that a stream gave before it failed
--   text    what the caller sees, where it is not the usual; false: whatever
--   whole   the text is that of a plain chat
--   sends   of one node, where the class does not tell; false: not asserted
--   reads   a set of node fields wanted of n1 afterwards (router:nodes())
--   check   function(result, shape): more to assert
local ffi = require "ffi"
local assert = require "luassert"
local c = require "spec.support.c"
local drover = require "drover"
local core = require "drover.core"
local calls = require "drover.loop.calls"
local loops = require "drover.loop"
local fault_server = require "spec.support.fault_server"
local nginx = require "spec.support.nginx"

c.cdef[[
void net_loop_stop(void);
int fcntl(int fd, int command, ...);
]]

local _M = {}

local KEY, PROMPT = "sk-matrix-Key0Canary", "canary-Prompt0Words"
local number = 0                -- of the request: its canary comes back

-- Sends with one node; with three of which one fails; with all failing; and
-- whether the second shape ends well.
local CLASSES = {
  good = { 1, 1, 1, ok = true },
  unsent = { 3, 2, 3, rescued = true },       -- surely not begun
  refused = { 3, 2, 3, rescued = true },      -- answered, and not worked on
  ambiguous = { 2, 2, 2, rescued = true },    -- may be billed: once more
  elsewhere = { 1, 2, 3, rescued = true },    -- the key's trouble
  final = { 1, 1, 1 },                        -- the caller's, or too late
}

_M.SHAPES = { "one node", "one of three", "all of three" }

local server


function _M.server()
  if not server then
    server = fault_server.start{ "--quiet" }
  end
  return server
end


function _M.stop()
  if server then
    server:stop()
    server = nil
  end
end


-- Open descriptors of this process.
function _M.fds()
  local count = 0
  for fd = 0, 255 do
    if ffi.C.fcntl(fd, 1) >= 0 then
      count = count + 1
    end
  end
  return count
end


-- The url of a node that has this fault.
function _M.url(fault)
  return _M.server().url .. "/f/" .. fault .. "/v1"
end


local function bad_url(row)
  if type(row.url) == "function" then
    return row.url()
  end
  return row.url or _M.url(row.fault)
end


local function nodes(row, shape)
  local list = {}
  for i = 1, shape == 1 and 1 or 3 do
    local bad = i == 1 or shape == 3
    local url = bad and bad_url(row) or _M.url("ok")
    if bad and i > 1 and row.fault then
      url = _M.url(row.fault .. ";node=" .. i)
    end
    list[i] = { id = "n" .. i, url = url, key = KEY .. i, price = 2,
                ca_file = bad and row.ca_file and row.ca_file() or nil }
  end
  return list
end


-- The text of a good reply, or of the first `count` events of a stream.
local function text_of(way, count)
  local text = PROMPT .. number
  if way == "stream" then
    text = count == 0 and "" or text .. " "
    for i = 2, count or 3 do
      text = text .. "w" .. i .. " "
    end
  end
  return text
end


function _M.request(row)
  local r = { model = "m", max_tokens = 64,
              messages = { { role = "user", content = PROMPT .. number } } }
  for name, value in pairs(row and row.request or {}) do
    r[name] = value
  end
  return r
end


-- One request, to its end. Returns the reply, or nil and the error; and the
-- text that the caller saw.
local function ask(router, row, way)
  local opts = { headers = row.headers, key = "tenant",
                 timeout = row.deadline }
  if way == "chat" then
    local reply, e = router:chat(_M.request(row), opts)
    return reply, e, reply and reply.choices[1].message.content
  end
  local stream, e = router:stream(_M.request(row), opts)
  if not stream then
    return nil, e
  end
  local text = {}
  for event in stream:events() do
    text[#text + 1] = event.text
  end
  local reply, failed = stream:join()
  return reply, failed, table.concat(text)
end


-- The sum of a counter's series, by the value of its label `by`.
local function counted(metrics, name, by)
  local sums = {}
  for labels, n in metrics:gmatch("\n" .. name .. "{([^}]*)} (%d+)") do
    local word = labels:match(by .. "=\"([^\"]*)\"")
    sums[word] = (sums[word] or 0) + tonumber(n)
  end
  for word, n in pairs(sums) do
    sums[word] = n > 0 and n or nil
  end
  return sums
end


-- Did this attempt's body go out? Answers that refuse it came to one.
local early = { unreachable = true, tls = true, timeout = true, reset = true }

local function was_sent(record)
  return record.maybe_billed or not early[record.kind]
end


-- Nothing in flight, booked or waiting, on any node.
function _M.assert_settled(router)
  local totals = ffi.new("drover_totals")
  core.drover_router_totals(router.handle, totals, core.drover_clock())
  assert.same({ inflight = 0, waiting = 0, reserved = 0 },
    { inflight = totals.inflight, waiting = totals.waiting,
      reserved = totals.reserved_tokens })
  for _, node in ipairs(router:nodes()) do
    assert.equal(0, node.inflight)
  end
  assert.is_nil(next(router.active))
  assert.equal(0, calls.count())
end


-- Metrics, ledger and the server's log say the same.
local function assert_counted(result)
  local ledger, kinds, sent = result.ledger, {}, 0
  for _, record in ipairs(ledger) do
    kinds[record.kind] = (kinds[record.kind] or 0) + 1
    if was_sent(record) then
      sent = sent + 1
    end
  end
  assert.same(kinds, counted(result.metrics, "drover_attempts_total", "kind"))
  assert.same({ [result.err and result.err.kind or "ok"] = 1 },
              counted(result.metrics, "drover_requests_total", "outcome"))
  assert.equal(sent, result.log.bodies, "bodies at the server")
end


-- No key and no prompt in what an error says.
local function assert_silent(e)
  local text = { tostring(e) }
  for name, value in pairs(e) do
    text[#text + 1] = tostring(name) .. "=" .. tostring(value)
  end
  text = table.concat(text, "\n")
  assert.is_nil(text:find("Key0Canary", 1, true), text)
  assert.is_nil(text:find("Prompt0Words", 1, true), text)
end


-- A router over the nodes of a shape.
local function open(row, shape)
  return assert(drover.new{
    nodes = row.nodes or nodes(row, shape), policy = row.policy or "fallback",
    retry = row.retry or { min = 0, max = 0.01 }, queue = row.queue,
    timeout = row.timeout or { connect = 5, first_token = 5, idle = 5,
                               total = 20 },
    limits = row.limits or { rpm = 60000, tpm = 6000000 },
  })
end


-- f(router) with a router over the nodes of a shape; then all must have come
-- back. Returns what f does.
function _M.with(row, shape, f)
  _M.server():reset()
  loops.get().port()                -- descriptors that stay
  local before = _M.fds()
  local router = open(row, shape)
  local ok, result = xpcall(function()
    local out = f(router)
    _M.assert_settled(router)
    return out
  end, function(e)
    return type(e) == "string" and debug.traceback(e) or e
  end)
  router:close()
  core.net_loop_stop()
  if not ok then
    error(result, 0)
  end
  nginx.until_true(function()       -- events not read yet, resolvers' threads
    drover.sleep(0)
    return _M.fds() <= before
  end)
  assert.equal(before, _M.fds(), "descriptors")
  return result
end


-- One more request; all that was seen of it.
function _M.ask(router, row, way)
  number = number + 1
  local reply, e, text = ask(router, row, way)
  return { reply = reply, err = e, text = text, way = way,
           ledger = reply and reply.drover.attempts or e.attempts }
end


-- Run one row in one shape and way; all that was seen of it.
function _M.run(row, shape, way)
  return _M.with(row, shape, function(router)
    local result = _M.ask(router, row, way)
    result.metrics, result.nodes = router:metrics(), router:nodes()
    result.log = _M.server():log()
    return result
  end)
end


function _M.ledger(ledger)
  local words = {}
  for i, record in ipairs(ledger) do
    words[i] = record.node .. " " .. record.kind
  end
  return table.concat(words, ", ")
end


local function expected_ledger(row, class, shape)
  local words, count = {}, class[shape]
  if shape == 1 and row.sends then
    count = row.sends
  end
  for i = 1, count do
    local node = shape == 1 and 1 or i
    local bad = shape ~= 2 or i == 1
    words[i] = "n" .. node .. " " .. (bad and row.kind or "ok")
  end
  return table.concat(words, ", ")
end


local function assert_error(row, e)
  for _, name in ipairs{ "phase", "status", "code", "retryable",
                         "retry_after" } do
    if row[name] ~= nil then
      assert.equal(row[name], e[name], "err." .. name)
    end
  end
  if row.billed ~= nil then
    assert.equal(row.billed, e.maybe_billed, "err.maybe_billed")
  end
  assert.truthy(e.node, "err.node")
  assert.truthy(e.phase, "err.phase")
  assert_silent(e)
end


-- The whole of it: run, and assert what the row says.
function _M.prove(row, shape, way)
  local result = _M.run(row, shape, way)
  local class = assert(CLASSES[row.class], row.class)
  local well = class.ok or class.rescued and shape == 2
  local says = _M.ledger(result.ledger) .. "; "
               .. tostring(result.err or "ok")
  if well then
    assert.is_nil(result.err, says)
  else
    assert.truthy(result.err, says)
    assert.equal(row.kind, result.err.kind, says)
    assert_error(row, result.err)
  end
  if shape > 1 or row.sends ~= false then
    assert.equal(expected_ledger(row, class, shape),
                 _M.ledger(result.ledger), says)
  end
  for name, value in pairs(row.reads or {}) do
    assert.equal(value, result.nodes[1][name], "node." .. name)
  end
  if (well or row.seen) and row.text ~= false then
    assert.equal(row.text or text_of(row.whole and "chat" or way, row.seen),
                 result.text, says)
  end
  assert_counted(result)
  if row.check then
    row.check(result, shape, way)
  end
end


-- Declares a spec for each row, shape and way.
function _M.specs(it, rows)
  for _, row in ipairs(rows) do
    row.kind = row.kind or "ok"
    for shape, name in ipairs(_M.SHAPES) do
      for _, way in ipairs{ "chat", "stream" } do
        local wanted = (row.way == nil or row.way == way)
                       and (not row.shapes or row.shapes[shape])
        if wanted then
          it(("row %d: %s, %s, %s"):format(row.row, row.fault or row.name, way,
                                           name), function()
            _M.prove(row, shape, way)
          end)
        end
      end
    end
  end
end


return _M
