-- Runs a policy over made rows until LuaJIT has compiled it, and listens to
-- what the compiler says about its traces.
--
-- SPDX-License-Identifier: MIT
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
  local function on_trace(what, _, _, _, code, info)
    if what == "stop" then
      stopped = stopped + 1
    elseif what == "abort" then
      aborts[tostring(code) .. (info and ": " .. tostring(info) or "")] = true
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
