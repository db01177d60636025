-- The error object: what went wrong, in one word for programs and one
-- sentence for people. The words come from the C table; no second list.
--
-- Fields: kind message status code param node phase retryable retry_after
-- maybe_billed attempts. `message` may hold an upstream's own words (then
-- `said` is true); tostring() never shows those, as they may echo a prompt.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"

local ffi_string = ffi.string

local _M = {}

local mt = {}
mt.__index = mt

local codes = {}                -- kind -> its C code
for code = 0, -20, -1 do
  codes[ffi_string(C.drover_err_kind(code))] = code
end


local function plain(kind)
  return (kind:gsub("_", " "))
end


function mt:__tostring()
  local parts = {}
  if self.node then
    parts[#parts + 1] = self.node .. ": "
  end
  parts[#parts + 1] = self.kind
  if not self.said and self.message ~= plain(self.kind) then
    parts[#parts + 1] = ": " .. self.message
  end
  local notes = {}
  if self.status then
    notes[#notes + 1] = "HTTP " .. self.status
  end
  if self.code and self.code ~= self.kind then
    notes[#notes + 1] = self.code
  end
  if self.attempts and #self.attempts > 1 then
    notes[#notes + 1] = #self.attempts .. " attempts"
  end
  if #notes > 0 then
    parts[#parts + 1] = " (" .. table.concat(notes, ", ") .. ")"
  end
  return table.concat(parts)
end


-- A new error of a kind of the table; without a message it says its kind.
-- `fields` (may be nil) is taken over.
function _M.new(kind, message, fields)
  local self = fields or {}
  assert(codes[kind], kind)
  self.kind = kind
  self.message = message or plain(kind)
  if self.retryable == nil then
    self.retryable = C.drover_err_retryable(codes[kind]) == 1
  end
  if self.maybe_billed == nil then
    self.maybe_billed = false
  end
  self.attempts = self.attempts or {}
  return setmetatable(self, mt)
end


-- The same once more: changing one does not change the other.
function _M.copy(e)
  local fields = {}
  for name, value in pairs(e) do
    fields[name] = value
  end
  return setmetatable(fields, mt)
end


-- The error of a C call that returned a negative code and filled `err`.
function _M.from_c(code, err, fields)
  local text = ffi_string(err.text)
  local self = _M.new(_M.kind(code), text ~= "" and text or nil, fields)
  return self
end


-- The kind of a C code; the C code of a kind.
function _M.kind(code)
  return ffi_string(C.drover_err_kind(code))
end


function _M.code(kind)
  return codes[kind] or codes.internal
end


function _M.is_kind(word)
  return codes[word] ~= nil
end


function _M.phase(phase)
  local name = C.drover_phase_name(phase)
  return name ~= nil and ffi_string(name) or nil
end


function _M.is(x)
  return getmetatable(x) == mt
end


return _M
