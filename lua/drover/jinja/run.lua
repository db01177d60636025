-- Runs a template's tree: output and depth bounded (steps are counted in
-- eval.lua).
--
-- SPDX-License-Identifier: MIT
local evals = require "drover.jinja.eval"
local filters = require "drover.jinja.filters"
local value = require "drover.jinja.value"

local eval, lookup, scope, step = evals.eval, evals.lookup, evals.scope,
                                  evals.step
local kind, fail, truth, text_of = value.kind, value.fail, value.truth,
                                   value.text

local _M = {}

local STEPS, OUTPUT, DEPTH = evals.STEPS, evals.OUTPUT, 64

local E = evals.E
local X = {}                            -- statements by the node's word


local function write(run, text)
  run.size = run.size + #text
  if run.size > OUTPUT then
    fail("limit", ("more than %d bytes"):format(OUTPUT))
  end
  run.out[#run.out + 1] = text
end


-- Returns "break" or "continue" where a loop is to stop or go on.
local function body(run, env, nodes)
  run.depth = run.depth + 1
  if run.depth > DEPTH then
    fail("limit", ("nested more than %d deep"):format(DEPTH))
  end
  local signal
  for _, node in ipairs(nodes) do
    step(run)
    signal = X[node[1]](run, env, node)
    if signal then
      break
    end
  end
  run.depth = run.depth - 1
  return signal
end


-- What nodes print, as a text.
local function captured(run, env, nodes)
  local out = run.out
  run.out = {}
  body(run, env, nodes)
  local text = table.concat(run.out)
  run.out = out
  return text
end


function E.body(run, env, node)
  return captured(run, env, node[2])
end


function X.text(run, _, node) write(run, node[2]) end


function X.print(run, env, node)
  write(run, text_of(eval(run, env, node[2])))
end


function X.block(run, env, node) return body(run, env, node[2]) end
X["break"] = function() return "break" end
X["continue"] = function() return "continue" end


X["if"] = function(run, env, node)
  for _, branch in ipairs(node[2]) do
    if truth(eval(run, env, branch[1])) then
      return body(run, env, branch[2])
    end
  end
  if node[3] then
    return body(run, env, node[3])
  end
end


local function assign(env, names, got)
  if #names == 1 then
    env.vars[names[1]] = got
    return
  end
  local list = filters.items(got)
  if list.n ~= #names then
    fail("type", ("%d values for %d names"):format(list.n, #names))
  end
  for i, name in ipairs(names) do
    env.vars[name] = list[i]
  end
end


function X.set(run, env, node)
  local got = eval(run, env, node[4])
  if not node[3] then
    assign(env, node[2], got)
    return
  end
  local space = lookup(env, node[2][1])
  if kind(space) ~= "namespace" then
    fail("type", ("%s is no namespace"):format(node[2][1]))
  end
  space.map[node[3]] = got
end


local function loop_vars(list, i)
  local cycle = { kind = "function", call = function(args)
    return args[(i - 1) % #args + 1]
  end }
  return { kind = "loop", map = {
    index = i, index0 = i - 1, first = i == 1, last = i == list.n,
    length = list.n, revindex = list.n - i + 1, revindex0 = list.n - i,
    previtem = i > 1 and list[i - 1] or nil, nextitem = list[i + 1],
    depth = 1, depth0 = 0, cycle = cycle,
  } }
end


-- The items that pass the loop's `if`.
local function passing(run, env, node, list)
  if not node[4] then
    return list
  end
  local out = value.list({})
  for i = 1, list.n do
    local inner = scope(env)
    assign(inner, node[2], list[i])
    if truth(eval(run, inner, node[4])) then
      out.n = out.n + 1
      out[out.n] = list[i]
    end
  end
  return out
end


X["for"] = function(run, env, node)
  local list = passing(run, env, node,
                       filters.items(eval(run, env, node[3])))
  for i = 1, list.n do
    step(run)
    local inner = scope(env)
    assign(inner, node[2], list[i])
    inner.vars.loop = loop_vars(list, i)
    if body(run, inner, node[5]) == "break" then
      break
    end
  end
  if list.n == 0 and node[6] then
    return body(run, scope(env), node[6])
  end
end


function X.macro(_, env, node)
  local params = node[3]
  env.vars[node[2]] = { kind = "macro", call = function(args, named, run)
    local inner = scope(env)
    for i, param in ipairs(params) do
      local got = args[i]
      if got == nil then
        got = named[param[1]]
      end
      if got == nil and param[2] then
        got = eval(run, inner, param[2])
      end
      inner.vars[param[1]] = got == nil and value.undefined(param[1]) or got
    end
    return captured(run, inner, node[4])
  end }
end


-- ---- globals ----

local function native(f)
  return { kind = "function", call = f }
end


local function range(args)
  local first, last, by = 0, args[1], 1
  if args[2] then
    first, last, by = args[1], args[2], args[3] or 1
  end
  if type(first) ~= "number" or type(last) ~= "number" or by == 0
     or math.abs((last - first) / by) > STEPS then
    fail("limit", "range: too long, or not of numbers")
  end
  local out = {}
  for i = first, by > 0 and last - 1 or last + 1, by do
    out[#out + 1] = i
  end
  return value.list(out)
end


local function globals(now)
  return {
    range = native(range),
    namespace = native(function(_, named)
      return { kind = "namespace", map = named }
    end),
    dict = native(function(_, named)
      return value.from_lua(named)
    end),
    raise_exception = native(function(args)
      fail("raise", text_of(args[1] or ""))
    end),
    strftime_now = native(function(args)
      return os.date("!" .. text_of(args[1]), now)
    end),
  }
end


-- The text that a tree gives with `vars` (name -> value). `now`: seconds since
-- 1970, what strftime_now tells. Raises a table { jinja = kind, message }.
function _M.render(tree, vars, now)
  local run = { steps = 0, size = 0, depth = 0, out = {} }
  run.attr = evals.item_of
  run.filter = function(name, x, args)
    local f = filters.filters[name]
              or fail("template", ("no filter %q"):format(text_of(name)))
    return f(x, args, {}, run)
  end
  run.test = function(name, x, args)
    local f = filters.tests[name]
              or fail("template", ("no test %q"):format(text_of(name)))
    return f(x, args)
  end
  local outer = { vars = globals(now) }
  local env = scope(outer)
  for name, x in pairs(vars) do
    env.vars[name] = x
  end
  body(run, env, tree)
  return table.concat(run.out)
end


return _M
