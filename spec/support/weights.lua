-- Random matrices in each tensor type, as a file would hold them: all codes, and
-- scales of ordinary size.
local ffi = require "ffi"
local bit = require "bit"

local _M = {}

-- Number, inputs and bytes of a block, where its halves are.
_M.types = {
  { name = "F32", id = 0, values = 1, bytes = 4 },
  { name = "F16", id = 1, values = 1, bytes = 2 },
  { name = "BF16", id = 30, values = 1, bytes = 2 },
  { name = "Q8_0", id = 8, values = 32, bytes = 34, 0 },
  { name = "Q4_0", id = 2, values = 32, bytes = 18, 0 },
  { name = "Q4_1", id = 3, values = 32, bytes = 20, 0, 2 },
  { name = "Q5_0", id = 6, values = 32, bytes = 22, 0 },
  { name = "Q5_1", id = 7, values = 32, bytes = 24, 0, 2 },
  { name = "Q2_K", id = 10, values = 256, bytes = 84, 80, 82 },
  { name = "Q3_K", id = 11, values = 256, bytes = 110, 108 },
  { name = "Q4_K", id = 12, values = 256, bytes = 144, 0, 2 },
  { name = "Q5_K", id = 13, values = 256, bytes = 176, 0, 2 },
  { name = "Q6_K", id = 14, values = 256, bytes = 210, 208 },
  { name = "IQ4_NL", id = 20, values = 32, bytes = 18, 0 },
  { name = "MXFP4", id = 39, values = 32, bytes = 17 },
}


-- A generator of its own, so that a case is the same in every run.
function _M.random(seed)
  local state = seed * 2654435761 % 4294967296
  return function(n)
    state = (state * 1664525 + 1013904223) % 4294967296
    return n and math.floor(state / 65536) % n or state / 4294967296
  end
end


-- A half of either sign between 2^-9 and 2^-6.
local function put_half(at, random)
  at[0] = random(256)
  at[1] = bit.bor(random(2) * 128, 0x18 + random(12))
end


local function put_block(kind, at, random)
  if kind.id == 0 then
    ffi.cast("float *", at)[0] = random() - 0.5
    return
  elseif kind.id == 30 then
    at[0], at[1] = random(256), 0x3c + 128 * random(2)
    return
  elseif kind.id == 1 then
    put_half(at, random)
    return
  end
  for i = 0, kind.bytes - 1 do
    at[i] = random(256)
  end
  for _, half in ipairs(kind) do
    put_half(at + half, random)
  end
  if kind.id == 39 then
    at[0] = 118 + random(8)
  end
end


-- rows x cols as bytes; cols are whole blocks.
function _M.matrix(kind, rows, cols, random)
  local blocks = rows * cols / kind.values
  local bytes = ffi.new("unsigned char[?]", blocks * kind.bytes)
  for i = 0, blocks - 1 do
    put_block(kind, bytes + i * kind.bytes, random)
  end
  return bytes, blocks * kind.bytes
end


function _M.floats(n, random, size)
  local out = ffi.new("float[?]", n)
  for i = 0, n - 1 do
    out[i] = (random() + random() + random() - 1.5) * (size or 1)
  end
  return out
end


return _M
