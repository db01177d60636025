-- What the drivers of the models share: chance of a fixed seed, a memory of
-- the last steps, and a sentence when model and code part. Knows no model.
local bit = require "bit"

local _M = {}
local mt = {}
mt.__index = mt

local KEPT = 12                       -- steps that a failure shows


-- A run of steps. `seed` is a whole number; the same seed, the same steps.
function _M.new(name, seed)
  local self = setmetatable({ name = name, seed = seed, count = 0,
                              said = {} }, mt)
  self.word = bit.tobit(seed * 2654435 + 0x9e3779b)
  if self.word == 0 then self.word = 1 end
  for _ = 1, 8 do self:bits() end
  return self
end


-- 32 bits: xorshift (Marsaglia 2003).
function mt:bits()
  local x = self.word
  x = bit.bxor(x, bit.lshift(x, 13))
  x = bit.bxor(x, bit.rshift(x, 17))
  x = bit.bxor(x, bit.lshift(x, 5))
  self.word = x
  return x
end


-- A whole number from 0 to n - 1.
function mt:below(n)
  return bit.band(self:bits(), 0x7fffffff) % n
end


-- True once in `n` times.
function mt:one_in(n)
  return self:below(n) == 0
end


-- In [0, 1).
function mt:unit()
  return bit.band(self:bits(), 0x7fffffff) / 0x80000000
end


function mt:choose(list)
  return list[self:below(#list) + 1]
end


-- The next step, in words; what it found is added by note().
function mt:step(...)
  self.count = self.count + 1
  self.said[self.count % KEPT] = { ... }
end


function mt:note(...)
  local said = self.said[self.count % KEPT]
  for i = 1, select("#", ...) do
    said[#said + 1] = (select(i, ...))
  end
end


-- The same for a float of the code's.
function mt:near(what, model, code)
  if math.abs(model - code) > 1e-6 * math.max(1, math.abs(model)) then
    self:same(what, model, code)
  end
end


local function words(list)
  local out = {}
  for i = 1, #list do
    local x = list[i]
    out[i] = type(x) == "number" and string.format("%.17g", x) or tostring(x)
  end
  return table.concat(out, " ")
end


-- Raises when model and code differ; NaN equals NaN.
function mt:same(what, model, code)
  if model == code or model ~= model and code ~= code then
    return
  end
  local lines = {}
  for i = math.max(1, self.count - KEPT + 1), self.count do
    lines[#lines + 1] = "  step " .. i .. ": " .. words(self.said[i % KEPT])
  end
  error(string.format("%s, seed %d, step %d: %s is %s in the model, %s in the "
                      .. "code\n%s", self.name, self.seed, self.count, what,
                      words { model }, words { code },
                      table.concat(lines, "\n")), 0)
end


return _M
