-- One decision: which node takes a request, and its ticket. A built-in
-- policy runs in C; one of Lua's runs here under pcall, and where it raises
-- or answers nonsense that is counted and the built-in default decides.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local err = require "drover.err"
local limits = require "drover.limits"
local policies = require "drover.policy"
local view = require "drover.policy.view"

local _M = {}

local c_err = ffi.new("drover_err")


-- A limit refused: its word, its sentence, and when it would pass.
local function limited(code, p)
  local word, sentence = limits.refusal(p.refused_scope, p.refused_kind)
  if not word then
    return err.from_c(code, c_err, { phase = "limit" })
  end
  return err.new(err.kind(code), sentence, { phase = "limit", code = word })
end


local at_limits = { [tonumber(C.DROVER_EOVERLOADED)] = true,
                    [tonumber(C.DROVER_ERATELIMITED)] = true,
                    [tonumber(C.DROVER_EQUOTA)] = true }


local function refused(code, call, p, word)
  if err.kind(code) == "not_found" and call.model then
    return nil, err.new("not_found", "the model '" .. call.model:sub(1, 64)
                                     .. "' does not exist", {
      phase = "pick", code = "model_not_found", param = "model",
    })
  end
  local e = at_limits[code] and limited(code, p)
            or err.from_c(code, c_err, { phase = "pick" })
  if p.wait > 0 then
    e.retry_after = p.wait
  end
  e.code = e.code or word
  return nil, e
end


-- What a Lua policy answers: a row, or 0 for none; nil when it is not to be
-- trusted.
local function ask(router, f, p)
  local ok, answer = pcall(f, router.view, router.policy_request)
  if ok and answer == nil or router.closed then
    return 0
  end
  if not ok or type(answer) ~= "number" or answer % 1 ~= 0 or answer < 1
     or answer > router.view.count
     or C.drover_pick_may(router.handle, p, answer) ~= 1 then
    C.drover_count(router.handle, C.DROVER_POLICY_ERROR)
    return nil
  end
  return answer
end


-- No row may be chosen. The built-in policy knows when too few are up, and
-- rows that are out take part.
local function in_need(handle, p)
  local code = C.drover_pick_choose(handle, p, c_err)
  if code == 0 then
    code = C.drover_pick_claim(handle, p, p.node, c_err)
  end
  if code == C.DROVER_EAGAIN then
    return C.drover_pick_why(handle, p, c_err)
  end
  return code
end


-- Why there is no node after a policy said nil.
local function none(router, p)
  for i = 1, router.view.count do
    if C.drover_pick_may(router.handle, p, i) == 1 then
      ffi.copy(c_err.text, "the policy takes none of the nodes")
      return C.DROVER_ENONODE, "policy_none"
    end
  end
  return in_need(router.handle, p)
end


local function choose_lua(router, p, policy, call, opts)
  local handle = router.handle
  C.drover_pick_begin(handle, p, C.drover_clock(), router.random())
  router.view.count = C.drover_node_count(handle)
  view.set(router.policy_request, router.policy_state, p, call, opts)
  for _ = 1, router.view.count do
    local row = p.node                -- a probe that is due goes first
    if row == 0 then
      row = ask(router, policy.f, p)
      if router.closed then             -- by the policy, or while it waited
        return C.DROVER_ECLOSED
      end
    end
    if row == 0 then
      return none(router, p)
    end
    if not row then
      return C.drover_pick_node(handle, p, p.now, p.rnd, c_err)
    end
    local code = C.drover_pick_claim(handle, p, row, c_err)
    if code ~= C.DROVER_EAGAIN then
      return code
    end
  end
  return in_need(handle, p)
end


local function choose(router, p, policy, call, opts)
  if policy.f then
    return choose_lua(router, p, policy, call, opts)
  end
  local handle, now, rnd = router.handle, C.drover_clock(), router.random()
  if policy == router.chosen then
    return C.drover_pick_node(handle, p, now, rnd, c_err)
  end
  C.drover_router_policy(handle, policy.number)
  local code = C.drover_pick_node(handle, p, now, rnd, c_err)
  C.drover_router_policy(handle, router.chosen.number or router.default)
  return code
end


-- The policy that opts.policy asks for, tried once and kept; or nil and what
-- is wrong with it.
function _M.policy(router, spec)
  local policy = router.policies[spec]
  if not policy then
    local why
    policy, why = policies.new(spec)
    if not policy then
      return nil, "opts.policy: " .. why
    end
    router.policies[spec] = policy
  end
  return policy
end


-- Decide and claim. Returns what this process knows of the chosen row, or
-- nil and an error. `p` holds the ticket.
function _M.node(router, p, call, opts)
  local policy = router.chosen
  if opts.policy ~= nil then
    policy = _M.policy(router, opts.policy) or policy   -- checked before
  end
  if opts.node then
    local row = opts.node:find("%z") and 0    -- C would read up to it
                or C.drover_node_find(router.handle, opts.node)
    if row < 1 then
      return nil, err.new("not_found", "no node has the id " .. opts.node,
                          { phase = "pick", param = "opts.node" })
    end
    p.only = row
  end
  local code, word = choose(router, p, policy, call, opts)
  if code < 0 then
    return refused(code, call, p, word)
  end
  local row, why = router.fleet:row(router.handle, p.node, p.version)
  if not row then
    local outcome = ffi.new("drover_outcome")
    outcome.code = C.DROVER_ECANCELLED
    outcome.first_token_ms, outcome.token_ms = 0 / 0, 0 / 0
    C.drover_ticket_done(router.handle, p, outcome, C.drover_clock())
    return nil, err.new("internal", why, { phase = "pick" })
  end
  return row
end


return _M
