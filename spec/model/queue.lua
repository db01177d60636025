-- The queue, slowly: the words of src/limit/queue.h as one list that is
-- walked anew for every question. What is not here: whether a deadline can be
-- met at the rate of late, which the driver asks of the code.
local _M = {}
local mt = {}
mt.__index = mt

local INF = math.huge
local ANSWER, RING, BEAT = 1, 0.25, 0.25


function _M.new(max)
  return setmetatable({ max = max, places = {}, seq = 0, round = { [0] = 0, 0,
                        0 }, moved = {}, beat = 0, beat_at = 0 }, mt)
end


-- The name of a limit: all that it holds up have the same.
local function cause(scope, e)
  if scope == "router" then
    return "router"
  elseif scope == "tenant" then
    return "tenant " .. e.tenant
  elseif scope == "model" then
    return "model " .. e.model
  end
  return "node " .. e.model .. " " .. e.only
end


-- How often a slot of that cause was given back: what is not a tenant's or a
-- model's may be freed by anything.
function mt:count(name)
  local own = name:find("^tenant") or name:find("^model")
  return self.moved[own and name or "any"] or 0
end


function mt:give_back(tenant, model)
  for _, name in ipairs { "any", "tenant " .. tenant, "model " .. model } do
    self.moved[name] = (self.moved[name] or 0) + 1
  end
end


-- ---- the owner's steps ----

-- ask: tenant, model, only, priority, tokens, deadline, wait, scope (nil:
-- nothing is known), kind. The place, or nil: full.
function mt:enter(ask, now)
  for place = 1, self.max do
    if not self.places[place] then
      self.seq = self.seq + 1
      local e = {
        place = place, state = "waiting", seq = self.seq, tenant = ask.tenant,
        model = ask.model, only = ask.only, priority = ask.priority,
        tokens = math.max(1, ask.tokens), deadline = ask.deadline,
        tag = self.round[ask.priority],
      }
      self.places[place] = e
      self:refused(e, ask, now)
      if ask.scope and ask.wait <= 0 then
        e.mark = nil                  -- it may be over: it is tried at once
      end
      return place
    end
  end
end


-- What refused it, and since when it counts what is given back.
function mt:refused(e, ask, now)
  e.scope, e.kind = ask.scope, ask.kind
  e.cause = ask.scope and cause(ask.scope, e) or nil
  e.ready_at = ask.wait > 0 and now + ask.wait or e.cause and INF or now
  e.mark = e.cause and (e.seen and e.seen[e.cause] or self:count(e.cause))
  e.beat = e.ready_at == INF and self.beat or nil
end


function mt:again(place, ask, now)
  local e = self.places[place]
  local what = ask.scope and ask or { scope = "node", wait = ask.wait }
  self:refused(e, what, now)
  e.state = "waiting"
end


function mt:leave(place)
  self.places[place] = nil
end


-- ---- who may run ----

function mt:held(e, now)
  if e.ready_at <= now then
    return false
  end
  return not e.cause or self:count(e.cause) == e.mark
         and (e.ready_at < INF or e.beat == self.beat)
end


-- Before all that share its cause.
function mt:stands(e, now)
  if not e.cause then
    return false
  elseif e.state == "waiting" then
    return e.deadline > now and self:held(e, now)
  end
  return e.scope ~= "node"
         and not (e.scope == "router" and e.kind == "concurrent")
end


function mt:behind(e, now)
  local own = { cause("router", e), cause("tenant", e), cause("model", e),
                cause("node", e) }
  for place = 1, self.max do
    local other = self.places[place]
    if other and other ~= e and other.priority <= e.priority
       and self:stands(other, now) then
      for _, name in ipairs(own) do
        if name == other.cause then return true end
      end
    end
  end
  return false
end


-- ---- one look ----

function mt:sweep(now)
  if math.abs(now - self.beat_at) >= BEAT then
    self.beat_at, self.beat = now, self.beat + 1
  end
  local rung = {}
  for place = 1, self.max do
    local e = self.places[place]
    local over = e and e.state == "called" and now - e.called_at >= ANSWER
    if e and e.deadline <= now and (e.state == "waiting" or over) then
      self.places[place] = nil
    elseif over then
      e.state, e.cause, e.ready_at = "waiting", nil, now + ANSWER
    elseif e and e.state == "called" and now - e.rung_at >= RING then
      e.rung_at = now
      rung[#rung + 1] = place
    end
  end
  return rung
end


function mt:called()
  local out = { [0] = 0 }
  for place = 1, self.max do
    local e = self.places[place]
    if e and e.state == "called" then
      out[0] = out[0] + 1
      out[e.row] = (out[e.row] or 0) + 1
    end
  end
  return out
end


local function earlier(a, b)
  if a.deadline ~= b.deadline then
    return a.deadline < b.deadline
  end
  return a.seq < b.seq
end


-- By tenant, what may run in one priority: its head and its least tag.
local function tenants_of(self, priority, row, now)
  local tenants = {}
  for place = 1, self.max do
    local e = self.places[place]
    if e and e.state == "waiting" and e.priority == priority
       and e.deadline > now and not self:held(e, now)
       and not self:behind(e, now) then
      local at = row(e, self:called())
      local t = tenants[e.tenant] or { tag = INF }
      if at then
        tenants[e.tenant] = t
        t.tag = math.min(t.tag, e.tag)
        if not t.head or earlier(e, t.head) then
          t.head, t.row = e, at
        end
      end
    end
  end
  return tenants
end


-- Pops one: its place and row, or nil. row(e, called) finds one for it.
function mt:pop(row, now)
  for priority = 0, 2 do
    local best, finish
    for _, t in pairs(tenants_of(self, priority, row, now)) do
      local f = math.max(t.tag + t.head.tokens, self.round[priority])
      if not best or f < finish or f == finish
                                   and earlier(t.head, best.head) then
        best, finish = t, f
      end
    end
    if best then
      local e = best.head
      e.state, e.row, e.called_at, e.rung_at = "called", best.row, now, now
      e.seen = {}                     -- ahead of the claim that may fail
      for _, scope in ipairs { "router", "tenant", "model", "node" } do
        local name = cause(scope, e)
        e.seen[name] = self:count(name)
      end
      self.round[priority] = finish
      for place = 1, self.max do
        local other = self.places[place]
        if other and other.tenant == e.tenant and other.state == "waiting"
           and other.priority == priority then
          other.tag = finish
        end
      end
      return e.place, e.row
    end
  end
end


function mt:waiting()
  local n = 0
  for place = 1, self.max do
    n = n + (self.places[place] and 1 or 0)
  end
  return n
end


return _M
