-- Callers' keys. A key is looked up by a hash with a secret of this process,
-- then compared in a time that does not depend on where it differs.
--
-- SPDX-License-Identifier: MIT
local bit = require "bit"
local C = require "drover.core"

local bxor, bor, byte = bit.bxor, bit.bor, string.byte

local _M = {}
local mt = { __index = _M }


-- 1 bit a difference, over all bytes of both.
local function same(a, b)
  local diff = bxor(#a, #b)
  for i = 1, #a do
    diff = bor(diff, bxor(byte(a, i), byte(b, i) or 0))
  end
  return diff == 0
end
_M.same = same


local function fingerprint(self, key)
  local text = self.secret .. key
  return tostring(C.drover_hash(text, #text))
end


-- `list` as the configuration has it; nil lets everybody in. A key without a
-- name is a tenant too, called by its place.
function _M.new(list)
  if not list then return nil end
  local self = setmetatable({ rows = {} }, mt)
  self.secret = tostring(C.drover_entropy())
                .. tostring(C.drover_entropy())
  for i, entry in ipairs(list) do
    self.rows[fingerprint(self, entry.key)] = {
      key = entry.key, tenant = entry.name or "keys[" .. i .. "]",
      priority = entry.priority,
    }
  end
  return self
end


-- The { key, tenant, priority } of an Authorization header, or nil. Unknown
-- keys cost the same.
function _M:find(authorization)
  local key = authorization and authorization:match("^[Bb]earer +(%S+)$")
  if not key or #key > 512 then return nil end
  local entry = self.rows[fingerprint(self, key)]
  return entry and same(entry.key, key) and entry or nil
end


return _M
