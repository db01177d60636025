-- The retry budget, slowly: the words of src/limit/budget.h over lists of all
-- first sends and retries; and the back-off and the rules of a retry, as
-- docs/FAULTS.md gives them.
local _M = {}
local mt = {}
mt.__index = mt


-- `milli` retries for 1000 first sends, and `reserve` in any ten seconds.
function _M.new(milli, reserve)
  return setmetatable({ milli = milli, reserve = reserve, sends = {},
                        retries = {} }, mt)
end


-- Of whole seconds: this one, the nine before it, and the one behind it.
local function recent(list, now)
  local at, n = math.floor(now), 0
  for second = at - 9, at + 1 do
    n = n + (list[second] or 0)
  end
  return n
end


local function add(list, now)
  local at = math.floor(now)
  list[at] = (list[at] or 0) + 1
end


function mt:sent(now)
  add(self.sends, now)
end


function mt:allowed(now)
  return math.floor(recent(self.sends, now) * self.milli / 1000)
         + self.reserve
end


function mt:take(now)
  if recent(self.retries, now) >= self:allowed(now) then
    return false
  end
  add(self.retries, now)
  return true
end


return _M
