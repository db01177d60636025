-- Many requests at once: so many in flight, started so many a second, their
-- results in the order of the requests.
--
-- SPDX-License-Identifier: MIT
local check = require "drover.check"
local err = require "drover.err"
local loops = require "drover.loop"
local opts_fields = require("drover.request").opts_fields

local _M = {}

local MAX_CONCURRENT = 10

local fields = {
  max_concurrent = { "number", 1, 100000, integer = true },
  rps = { "number", 0.001, 1e6 },
  stream = { "boolean" },
  on_done = { "function" },
}
local all_fields = {}           -- with those of each request
for name, row in pairs(opts_fields) do
  all_fields[name] = row
end
for name, row in pairs(fields) do
  all_fields[name] = row
end


-- Wait for this request's turn: starts are spread evenly, from now on.
local function pace(run)
  if not run.step then
    return
  end
  local loop = loops.get()
  local now = loop.now()
  local at = math.max(run.next_start or now, now)
  run.next_start = at + run.step
  if at > now then
    loop.sleep(at - now)
  end
end


local function one(run, request)
  local flight, e = run.router:begin(request, run.opts, run.stream)
  if not flight then
    return e
  end
  local reply
  if run.stream then
    local stream
    flight.whole = true         -- no text is seen before all of it is here
    stream, e = flight:stream()
    if stream then
      reply, e = stream:join()
    end
  else
    reply, e = flight:reply()
  end
  return reply or e
end


-- A worker: takes the next request until none is left.
local function work(run)
  while run.next <= run.count do
    local i = run.next
    run.next = i + 1
    pace(run)
    local result = one(run, run.requests[i])
    run.results[i] = result
    if err.is(result) then
      run.failed = run.failed + 1
    end
    if run.on_done then
      local ok, raised = pcall(run.on_done, i, result)
      if not ok and run.raised == nil then
        run.raised = raised
      end
    end
  end
end


-- Check the arguments. Returns nil or what is wrong.
function _M.check(requests, opts)
  if type(requests) ~= "table" then
    return "requests: must be a list, " .. check.is(requests)
  end
  local why = check.list(requests, 0, "requests")
  if not why and opts ~= nil then
    if type(opts) ~= "table" then
      return "opts: must be a table, " .. check.is(opts)
    end
    why = check.fields(opts, all_fields, "opts")
  end
  return why
end


-- The options of each request: what is not the batch's own. Where a request
-- may wait, a batch lets others go first; where none may, it would lose what
-- it gives way to.
function _M.request_opts(opts, router)
  local rest = router.wait > 0 and { priority = "batch" } or nil
  for name, value in pairs(opts or {}) do
    if not fields[name] then
      rest = rest or {}
      rest[name] = value
    end
  end
  return rest
end


-- Run them all; `own` are the options of each. Returns results, the count of
-- errors among them, and the first thing that on_done raised, if it did.
function _M.run(router, requests, opts, own)
  opts = opts or {}
  local run = {
    router = router, requests = requests, count = #requests, next = 1,
    results = {}, failed = 0, stream = opts.stream, on_done = opts.on_done,
    step = opts.rps and 1 / opts.rps, opts = own,
  }
  local loop = loops.get()
  local tasks = {}
  for i = 1, math.min(opts.max_concurrent or MAX_CONCURRENT, run.count) do
    tasks[i] = loop.spawn(work, run)
  end
  for i = 1, #tasks do
    local ok, raised = loop.join(tasks[i])
    if not ok then
      error(raised, 0)
    end
  end
  return run.results, run.failed, run.raised
end


return _M
