-- Runs a policy over made rows until LuaJIT has compiled it, and listens to
-- what the compiler says about its traces.
--
-- SPDX-License-Identifier: MIT
local jit_util = require "jit.util"
local trial = require "drover.policy.trial"
local view = require "drover.policy.view"

local _M = {}

local ROUNDS, NODES = 2000, 16


local function run(policy, rows, request)
  local nodes = view.nodes(rows, NODES)
  for i = 1, ROUNDS do
    request.random = i / ROUNDS
    policy(nodes, request)
  end
end


-- What the compiler's number means; nil where it only means "not from here".
-- Leaving or entering a loop while recording is how traces find their shape.
local function reason_of(code, info)
  local ok, vmdef = pcall(require, "jit.vmdef")
  local text = ok and vmdef.traceerr[code] or "reason " .. tostring(code)
  if not text:find("NYI", 1, true) and not text:find("blacklisted", 1, true)
     and not text:find("bad argument type", 1, true) then
    return nil
  end
  if type(info) == "number" and text:find("bytecode", 1, true) and ok then
    info = vmdef.bcnames:sub(info * 6 + 1, info * 6 + 6):gsub("%s+$", "")
  end
  return (text:gsub("%%[ds]", tostring(info)))
end


-- Names of the reasons that traces were aborted for.
local function reasons_of(aborts)
  local list = {}
  for reason in pairs(aborts) do
    list[#list + 1] = reason
  end
  table.sort(list)
  return list
end


-- true, or false and a list of reasons.
function _M.check(policy)
  if type(policy) ~= "function" then
    error("testing.compiles: a function is wanted", 2)
  end
  local stopped, aborts = 0, {}
  local function on_trace(what, trace, _, _, code, info)
    if what == "stop" then
      stopped = stopped + 1
      local shape = jit_util.traceinfo(trace)
      if shape and shape.linktype == "stitch" then
        aborts["calls a function that is not compiled"] = true
      end
    elseif what == "abort" then
      local reason = reason_of(code, info)
      if reason then
        aborts[reason] = true
      end
    end
  end
  local request = view.request(nil)
  request.model, request.prompt_tokens, request.max_tokens = "m", 10, 10
  request.now, request.prefix = 1, 1
  local rows = trial.rows(NODES)
  jit.flush()
  jit.attach(on_trace, "trace")
  local ok, raised = pcall(run, policy, rows, request)
  jit.attach(on_trace)
  if not ok then
    error(raised, 2)
  end
  local reasons = reasons_of(aborts)
  return stopped > 0 and #reasons == 0, reasons
end


return _M
