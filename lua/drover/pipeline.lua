-- Pipelines: steps made out of steps, and a way to run them. A step is a
-- plain function(x, run) -> y | nil, err; any function of that form is one.
--
--   x --> chain: step 1 --> step 2 --> ... --> y      (the first error stops)
--
-- `run` goes through all steps of one p.run: router, deadline (on the loop's
-- clock), ledger, input (what the enclosing chain was given), emit(text).
-- Knows no node and no wire: each ask is one router:chat, or one
-- router:stream where its text is the pipeline's own end.
-- SPDX-License-Identifier: MIT
local err_new, is_err = require("drover.err").new, require("drover.err").is
local new_ask = require "drover.pipeline.ask"
local spread = require "drover.pipeline.spread"
local loop = require "drover.loop"

local _M = {}

local RUN_OPTIONS = {               -- of p.run; true: handed to the router
  timeout = false, emit = false, key = true, node = true, policy = true,
  headers = true, tags = true, priority = true,
}

local run_methods = {}
local run_mt = { __index = run_methods }


-- Hand a piece of text to whoever reads the pipeline's output.
function run_methods:emit(text)
  if self.sink then
    self.sink(text)
  end
end


-- Seconds left before the deadline; nil without one.
function run_methods:left()
  return self.deadline and self.deadline - loop.get().now()
end


-- Why no further call may start: an error, or nil.
function run_methods:ended()
  local group = self.group
  while group do
    if group.failed then
      return err_new("cancelled", "another step of the pipeline failed")
    end
    group = group.outer
  end
  local left = self:left()
  if left and left <= 0 then
    return err_new("timeout", "the pipeline's deadline has passed")
  end
end


-- The same run with some fields of its own.
function run_methods:with(fields)
  return setmetatable(fields, { __index = self })
end


-- What a step failed with, as an error object that can carry `step`.
local function as_error(why)
  if is_err(why) then
    return why
  elseif type(why) == "table" and why.kind then
    return err_new(why.kind, why.message, why)
  elseif why == nil then
    return err_new("malformed", "the step returned nothing")
  end
  return err_new("malformed", tostring(why))
end


local function check_step(name, step)
  if type(step) ~= "function" then
    error(name .. ": a step is a function, got " .. type(step), 3)
  end
end


-- p.chain(a, b, ...): each step's result goes to the next. The first error
-- stops it and gains `step`, its number in the outermost chain.
function _M.chain(...)
  local steps, count = { ... }, select("#", ...)
  if count == 0 then
    error("chain: at least one step expected", 2)
  end
  for i = 1, count do
    check_step("chain step " .. i, steps[i])
  end

  return function(x, run)
    local inner = run:with{ input = x, streams = false }
    local last = run:with{ input = x }
    for i = 1, count do
      local y, why = steps[i](x, i < count and inner or last)
      if y == nil then
        why = as_error(why)
        why.step = i
        return nil, why
      end
      x = y
    end
    return x
  end
end


-- p.ask{ model =, system =, prompt =, ... }: one chat; its text.
function _M.ask(options)
  if type(options) ~= "table" then
    error("ask: a table expected, got " .. type(options), 2)
  end
  local step = new_ask(options)     -- no tail call: errors count levels
  return step
end


-- p.parallel{ a = step, b = step, partial = true }: all at once over the same
-- x; a table of results by key. One failure cancels the rest, unless
-- partial: then the error stands in the place of that result.
function _M.parallel(steps)
  if type(steps) ~= "table" then
    error("parallel: a table of steps expected, got " .. type(steps), 2)
  end
  local keys, partial = {}, steps.partial
  if partial ~= nil and type(partial) ~= "boolean" then
    error("parallel.partial: true or false expected", 2)
  end
  for key, step in pairs(steps) do
    if key ~= "partial" then
      check_step("parallel." .. tostring(key), step)
      keys[#keys + 1] = key
    end
  end
  if #keys == 0 then
    error("parallel: at least one step expected", 2)
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)

  return function(x, run)
    local function work(i, inner)
      return steps[keys[i]](x, inner)
    end
    return spread(run, keys, { work = work, limit = #keys, partial = partial,
                               as_error = as_error })
  end
end


local function check_map(options)
  for name in pairs(options) do
    if name ~= "max_concurrent" and name ~= "partial" then
      error("map: unknown option " .. tostring(name), 3)
    end
  end
  local limit = options.max_concurrent or 8
  if type(limit) ~= "number" or limit < 1 or limit % 1 ~= 0 then
    error("map.max_concurrent: a whole number above 0 expected", 3)
  end
  if options.partial ~= nil and type(options.partial) ~= "boolean" then
    error("map.partial: true or false expected", 3)
  end
  return limit
end


-- p.map(step, { max_concurrent = 8, partial = false }): the step over a list;
-- results in the list's order. Failures as in parallel.
function _M.map(step, options)
  check_step("map", step)
  options = options or {}
  local limit, partial = check_map(options), options.partial

  return function(list, run)
    if type(list) ~= "table" then
      return nil, err_new("bad_request", "map: a list expected, got "
                                         .. type(list))
    end
    local keys = {}
    for i = 1, #list do
      keys[i] = i
    end
    local function work(i, inner)
      return step(list[i], inner:with{ input = list[i] })
    end
    return spread(run, keys, { work = work, limit = limit, partial = partial,
                               as_error = as_error })
  end
end


local function check_run(router, step, opts)
  if type(router) ~= "table" or type(router.chat) ~= "function" then
    error("run: a router expected, got " .. type(router), 3)
  end
  check_step("run", step)
  local passed = {}
  for name, value in pairs(opts) do
    if RUN_OPTIONS[name] == nil then
      error("run: unknown option " .. tostring(name), 3)
    elseif RUN_OPTIONS[name] then
      passed[name] = value
    end
  end
  local timeout, emit = opts.timeout, opts.emit
  if timeout ~= nil and (type(timeout) ~= "number" or timeout ~= timeout
                         or timeout <= 0) then
    error("run.timeout: seconds above 0 expected", 3)
  end
  if emit ~= nil and type(emit) ~= "function" then
    error("run.emit: a function expected, got " .. type(emit), 3)
  end
  return passed
end


-- p.run(router, step, x, opts) -> y, ledger | nil, err, ledger.
-- opts: timeout (seconds for the whole run), emit (function(text): gets what
-- run:emit gets, and the text of the last ask as it comes), and the request
-- options key, node, policy, headers, tags, priority for each call.
function _M.run(router, step, x, opts)
  opts = opts or {}
  local passed = check_run(router, step, opts)
  local began = loop.get().now()
  local ledger = { input_tokens = 0, output_tokens = 0, seconds = 0 }
  local run = setmetatable({
    router = router,
    deadline = opts.timeout and began + opts.timeout or nil,
    ledger = ledger,
    input = x,
    sink = opts.emit,
    streams = opts.emit ~= nil,
    options = passed,
  }, run_mt)
  local y, why = step(x, run)
  ledger.seconds = loop.get().now() - began
  if y == nil then
    return nil, as_error(why), ledger
  end
  return y, ledger
end


return _M
