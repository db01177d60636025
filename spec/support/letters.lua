-- A small model whose context is longer and whose greedy words are letters, so
-- that what it says can be asked again; engines over it, and words for it.
local ffi = require "ffi"
local engine = require "spec.support.engine"
local gguf = require "spec.support.gguf"

local _M = {}

local CONTEXT = 256
local BLOCK = { [0] = 16 * 64, 32 * 64, 12 * 64 }    -- bytes, by enum drover_kv
local path, remove

_M.CONTEXT = CONTEXT


-- The rows of all tokens that are no letters are smaller.
function _M.setup()
  local file = gguf.set(gguf.llama(), "llama.context_length", gguf.U32, CONTEXT)
  local t = gguf.tensor(file, "token_embd.weight")
  local rows = ffi.new("float[?]", 16 * t.ne[2])
  ffi.copy(rows, t.bytes, #t.bytes)
  for id = 0, t.ne[2] - 1 do
    for k = 0, (id < 67 or id > 122 or id == 98) and 15 or -1 do
      rows[16 * id + k] = id < 256 and rows[16 * id + k] * 0.3 or 0
    end
  end
  t.bytes = ffi.string(rows, #t.bytes)
  _M.embedding = t.bytes
  path, remove = gguf.write(gguf.build(file))
end


function _M.teardown()
  remove()
end


-- An engine that no clock decides anything for; `blocks`: of its pool, less
-- than it would have. nil, text, code when it is refused.
function _M.open(config, blocks, lib)
  local full = { step_ms = 1e6 }
  for k, v in pairs(config or {}) do
    full[k] = v
  end
  local e, text, code = engine.open(path, full, lib)
  if not blocks then
    return e, text, code
  end
  local more = e:busy().kv_tokens / 16 - blocks
  local bytes = tonumber(e.info.memory_bytes)
  e:close()
  full.memory_cap_bytes = bytes - more * BLOCK[full.kv or 0]
  e = assert(engine.open(path, full, lib))
  assert(e:busy().kv_tokens == blocks * 16)
  return e
end


-- Numbers below n that look random and are always the same.
function _M.random(seed)
  local x = seed
  return function(n)
    x = (x * 1103515245 + 12345) % 2147483648
    return math.floor(x / 65536) % n
  end
end


-- So many letters, a token each; the same for the same seed.
function _M.words(n, seed)
  local random, out = _M.random(seed * 7919), {}
  for i = 1, n do
    out[i] = string.char(99 + random(20))
  end
  return table.concat(out)
end


return _M
