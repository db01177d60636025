-- Makes GGUF files, good and bad. `build` writes what it is told, without
-- checks; `llama` describes a small whole model that can be changed before
-- it is built.
local bit = require "bit"
local ffi = require "ffi"

local _M = {}

_M.U8, _M.I8, _M.U16, _M.I16, _M.U32, _M.I32 = 0, 1, 2, 3, 4, 5
_M.F32, _M.BOOL, _M.STR, _M.ARR, _M.U64, _M.I64, _M.F64 = 6, 7, 8, 9, 10, 11, 12

local names = {
  [0] = "uint8_t", "int8_t", "uint16_t", "int16_t", "uint32_t", "int32_t",
  "float", "uint8_t", [10] = "uint64_t", [11] = "int64_t", [12] = "double",
}

-- Values and bytes of a block, of the tensor types that specs write.
local blocks = { [0] = { 1, 4 }, { 1, 2 }, [8] = { 32, 34 }, [24] = { 1, 1 },
                 [26] = { 1, 4 }, [27] = { 1, 8 } }


-- The bytes of one number of a value type.
function _M.number(type, value)
  if type == _M.BOOL then
    value = value and value ~= 0 and 1 or 0
  end
  local ctype = names[type]
  return ffi.string(ffi.new(ctype .. "[1]", value), ffi.sizeof(ctype))
end


local number = _M.number


function _M.string(text, size)
  return number(_M.U64, size or #text) .. text
end


local function value(type, v, item)
  if type == _M.STR then
    return _M.string(v)
  elseif type ~= _M.ARR then
    return names[type] and number(type, v) or string.char(0)
  end
  local out = { number(_M.U32, item), number(_M.U64, #v) }
  for i = 1, #v do
    out[i + 2] = value(item, v[i])
  end
  return table.concat(out)
end


local function pad(size, align)
  return ("\0"):rep(-size % align)
end


-- Bytes of a tensor by its type and shape; nil when there is no such thing.
local function size_of(tensor)
  local block, all = blocks[tensor.type or 0], 1
  for _, n in ipairs(tensor.ne) do
    all = all * tonumber(n)
  end
  return block and all % block[1] == 0 and all / block[1] * block[2] or nil
end


-- file = { magic, version, align, keys = { { key, type, value, item } },
-- tensors = { { name, ne, type, bytes, offset } }, n_keys, n_tensors, tail }.
-- Only keys and tensors are needed; the others override what would be right.
function _M.build(file)
  local align = file.align or 32
  local out = {
    file.magic or "GGUF", number(_M.U32, file.version or 3),
    number(_M.U64, file.n_tensors or #(file.tensors or {})),
    number(_M.U64, file.n_keys or #(file.keys or {})),
  }
  for _, k in ipairs(file.keys or {}) do
    out[#out + 1] = (k.raw_key or _M.string(k[1])) .. number(_M.U32, k[2])
      .. (k.raw or value(k[2], k[3], k[4]))
  end
  local data, at = {}, 0
  for _, t in ipairs(file.tensors or {}) do
    local bytes = t.bytes or ("\0"):rep(size_of(t) or 0)
    out[#out + 1] = _M.string(t.name) .. number(_M.U32, t.dims or #t.ne)
    for _, n in ipairs(t.ne) do
      out[#out + 1] = number(_M.U64, n)
    end
    out[#out + 1] = number(_M.U32, t.type or 0)
      .. number(_M.U64, t.offset or at)
    data[#data + 1] = bytes .. pad(#bytes, align)
    at = at + #data[#data]
  end
  local head = table.concat(out)
  if #data > 0 then
    head = head .. pad(#head, align)
  end
  return head .. table.concat(data) .. (file.tail or "")
end


-- ---- a small llama ----

-- Numbers that look random and are always the same.
local function noise(seed)
  local x = seed
  return function()
    x = bit.band(bit.tobit(x * 16807 % 2147483647), 0x7fffffff)
    return x / 2147483647 - 0.5
  end
end


local function floats(count, seed, scale)
  local out, next_one = ffi.new("float[?]", count), noise(seed)
  for i = 0, count - 1 do
    out[i] = next_one() * scale
  end
  return ffi.string(out, count * 4)
end


local function ones(count)
  local out = ffi.new("float[?]", count)
  for i = 0, count - 1 do
    out[i] = 1
  end
  return ffi.string(out, count * 4)
end


-- The byte alphabet of GPT-2, for vocabularies of bytes.
local function spelled(byte)
  local plain = byte >= 33 and byte <= 126 or byte >= 161 and byte <= 172
    or byte >= 174
  local code = byte
  if not plain then
    code = byte <= 32 and 256 + byte
      or byte == 173 and 256 + 67 or 256 + 33 + byte - 127
  end
  if code < 128 then
    return string.char(code)
  end
  return string.char(0xc0 + math.floor(code / 64), 0x80 + code % 64)
end


local CHATML = "{{ '<|im_start|>' + message.role }}<|im_end|>"


local function bpe_keys()
  local tokens, types = {}, {}
  for b = 0, 255 do
    tokens[b + 1], types[b + 1] = spelled(b), 1
  end
  for _, t in ipairs{ "ab", "abc", "<|endoftext|>", "<|im_start|>",
                      "<|im_end|>", "<tool>" } do
    tokens[#tokens + 1] = t
    types[#types + 1] = t == "<tool>" and 4 or t:sub(1, 2) == "<|" and 3 or 1
  end
  return {
    { "tokenizer.ggml.model", _M.STR, "gpt2" },
    { "tokenizer.ggml.pre", _M.STR, "qwen2" },
    { "tokenizer.ggml.tokens", _M.ARR, tokens, _M.STR },
    { "tokenizer.ggml.token_type", _M.ARR, types, _M.I32 },
    { "tokenizer.ggml.merges", _M.ARR, { "a b", "ab c" }, _M.STR },
    { "tokenizer.ggml.eos_token_id", _M.U32, 260 },
    { "tokenizer.chat_template", _M.STR, CHATML },
  }, #tokens
end


local function spm_keys()
  local tokens = { "<unk>", "<s>", "</s>", "\xe2\x96\x81", "a", "b", "ab",
                   "\xe2\x96\x81a", "\xe2\x96\x81ab" }
  local types, scores = { 2, 3, 3, 1, 1, 1, 1, 1, 1 },
    { 0, 0, 0, -5, -6, -7, -1, -3, -2 }
  for b = 0, 255 do
    tokens[#tokens + 1] = ("<0x%02X>"):format(b)
    types[#types + 1], scores[#scores + 1] = 6, 0
  end
  return {
    { "tokenizer.ggml.model", _M.STR, "llama" },
    { "tokenizer.ggml.tokens", _M.ARR, tokens, _M.STR },
    { "tokenizer.ggml.scores", _M.ARR, scores, _M.F32 },
    { "tokenizer.ggml.token_type", _M.ARR, types, _M.I32 },
  }, #tokens
end


local function tensors(vocab)
  local out = {}
  local function add(name, ne, scale)
    local count = ne[1] * (ne[2] or 1)
    out[#out + 1] = { name = name .. ".weight", ne = ne, type = 0,
                      bytes = scale and floats(count, #out + 7, scale)
                        or ones(count) }
  end
  add("token_embd", { 16, vocab }, 2)
  for i = 0, 1 do
    local p = ("blk.%d."):format(i)
    add(p .. "attn_norm", { 16 })
    add(p .. "attn_q", { 16, 16 }, 1)
    add(p .. "attn_k", { 16, 8 }, 1)
    add(p .. "attn_v", { 16, 8 }, 1)
    add(p .. "attn_output", { 16, 16 }, 1)
    add(p .. "ffn_norm", { 16 })
    add(p .. "ffn_gate", { 16, 24 }, 1)
    add(p .. "ffn_up", { 16, 24 }, 1)
    add(p .. "ffn_down", { 24, 16 }, 1)
  end
  add("output_norm", { 16 })
  return out
end


-- The parts of a model: 2 layers of 16, 4 heads (2 for keys), context 64,
-- tied output; kind "bpe" (default; ChatML) or "spm" (no template).
function _M.llama(kind)
  local keys, vocab = (kind == "spm" and spm_keys or bpe_keys)()
  local file = {
    keys = {
      { "general.architecture", _M.STR, "llama" },
      { "general.name", _M.STR, "tiny" },
      { "llama.block_count", _M.U32, 2 },
      { "llama.embedding_length", _M.U32, 16 },
      { "llama.feed_forward_length", _M.U32, 24 },
      { "llama.context_length", _M.U32, 64 },
      { "llama.attention.head_count", _M.U32, 4 },
      { "llama.attention.head_count_kv", _M.U32, 2 },
      { "llama.attention.layer_norm_rms_epsilon", _M.F32, 1e-5 },
    },
    tensors = tensors(vocab),
  }
  for _, k in ipairs(keys) do
    file.keys[#file.keys + 1] = k
  end
  return file
end


-- Change, add or (value nil) take away a key of a described file.
function _M.set(file, name, type, v, item)
  for i, k in ipairs(file.keys) do
    if k[1] == name then
      table.remove(file.keys, i)
      break
    end
  end
  if type then
    file.keys[#file.keys + 1] = { name, type, v, item }
  end
  return file
end


-- The value of a key; the described tensor of a name, and its place.
function _M.get(file, name)
  for _, k in ipairs(file.keys) do
    if k[1] == name then
      return k[3]
    end
  end
end


function _M.tensor(file, name)
  for i, t in ipairs(file.tensors) do
    if t.name == name then
      return t, i
    end
  end
end


-- Write bytes to a new file in /tmp; returns its path and a function that
-- removes it.
function _M.write(bytes)
  local path = os.tmpname()
  local f = assert(io.open(path, "wb"))
  f:write(bytes)
  f:close()
  return path, function() os.remove(path) end
end


return _M
