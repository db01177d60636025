-- engine/model: files that parse and are no model we compute rightly are
-- refused, with what is wrong; everything by engine_open, as users do it.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local gguf = require "spec.support.gguf"

c.cdef[[ long mem_live(void); ]]

local C = c.lib
local U32, F32, STR, ARR = gguf.U32, gguf.F32, gguf.STR, gguf.ARR


local function open_bytes(bytes, config)
  local path, remove = gguf.write(bytes)
  local e, text, code = engine.open(path, config)
  remove()
  return e, text, code
end


local function open(file, config)
  return open_bytes(gguf.build(file), config)
end


local function key(name, ...)
  return gguf.set(gguf.llama(), name, ...)
end


local function tensor(name, change)
  local file = gguf.llama()
  local t, at = gguf.tensor(file, name)
  if change == "gone" then
    table.remove(file.tensors, at)
    return file
  end
  for k, v in pairs(change) do
    t[k] = v
  end
  t.bytes = nil
  return file
end


local function with_tensor(t)
  local file = gguf.llama()
  file.tensors[#file.tensors + 1] = t
  return file
end


local refused = {
  { "another architecture", key("general.architecture", STR, "mamba"),
    "architecture mamba is not supported %(llama, qwen2" },
  { "an architecture without its keys", key("general.architecture", STR, "qwen3"),
    "qwen3.block_count is missing" },
  { "no architecture", key("general.architecture"), "architecture is missing" },
  { "an architecture of another type", key("general.architecture", U32, 1),
    "uint32, string expected" },
  { "a part of a split model", key("split.count", 2, 3), "split.count" },
  { "experts of which none is used", key("llama.expert_count", U32, 8),
    "expert_used_count is missing" },
  { "more experts used than there are", gguf.set(key("llama.expert_count", U32, 2),
    "llama.expert_used_count", U32, 3), "expert_used_count is 3, 1 to 2" },
  { "a gate that is no softmax", gguf.set(gguf.set(key("llama.expert_count", U32, 2),
    "llama.expert_used_count", U32, 1), "llama.expert_gating_func", U32, 2),
    "expert_gating_func 2 is not" },
  { "experts without their tensors", gguf.set(key("llama.expert_count", U32, 2),
    "llama.expert_used_count", U32, 1), "ffn_gate_inp.weight is missing" },
  { "a logit scale", key("llama.logit_scale", F32, 2), "logit_scale is not" },
  { "a scaling unheard of", key("llama.rope.scaling.type", STR, "su"), "scaling.type su" },
  { "longrope without its factors", key("llama.rope.scaling.type", STR, "longrope"),
    "rope_factors_long.weight is missing" },
  { "a linear factor of 0", gguf.set(key("llama.rope.scaling.type", STR, "linear"),
    "llama.rope.scaling.factor", F32, 0), "scaling.factor is 0" },
  { "a rotation base of infinity", key("llama.rope.freq_base", F32, math.huge), "freq_base" },
  { "an epsilon that is no number", key("llama.attention.layer_norm_rms_epsilon", F32, 0 / 0),
    "epsilon" },
  { "no epsilon", key("llama.attention.layer_norm_rms_epsilon"), "epsilon is missing" },
  { "a vocab_size that differs", key("llama.vocab_size", U32, 261), "vocab_size is 261 for 262" },
  { "a vocab_size of 2^31", key("llama.vocab_size", U32, 2 ^ 31), "vocab_size" },
  { "more key heads than heads", key("llama.attention.head_count_kv", U32, 3),
    "head_count_kv is 3" },
  { "a width that heads do not divide", key("llama.attention.head_count", U32, 3),
    "head_count_kv is 2 for 3 heads" },
  { "a width that heads do not divide, alone", gguf.set(key("llama.attention.head_count", U32, 6),
    "llama.attention.head_count_kv", U32, 2), "no multiple of 6 heads" },
  { "values wider than keys", gguf.set(key("llama.attention.key_length", U32, 4),
    "llama.attention.value_length", U32, 8), "value_length 8" },
  { "an odd rotation", key("llama.rope.dimension_count", U32, 3), "odd" },
  { "a rotation wider than a head", key("llama.rope.dimension_count", U32, 6), "is 6, 1 to 4" },
  { "an array where a number is meant", key("llama.feed_forward_length", ARR, { 1, 2 }, U32),
    "array" },
  { "a missing tensor", tensor("blk.1.attn_v.weight", "gone"), "blk.1.attn_v.weight is missing" },
  { "a missing embedding", tensor("token_embd.weight", "gone"), "token_embd.weight is missing" },
  { "a tensor of a wrong shape", tensor("blk.0.ffn_down.weight", { ne = { 24, 17 } }),
    "ffn_down.weight is 24 x 17 x 1 x 1, 24 x 16" },
  { "a tensor of three dimensions", tensor("blk.0.attn_q.weight", { ne = { 16, 16, 2 } }),
    "16 x 16 x 2" },
  { "fewer embeddings than tokens", tensor("token_embd.weight", { ne = { 16, 261 } }),
    "16 x 261" },
  { "a norm of the wrong width", tensor("output_norm.weight", { ne = { 15 } }),
    "output_norm.weight is 15" },
  { "a norm in F16", tensor("output_norm.weight", { type = 1 }), "type F16, F32 expected" },
  { "an integer tensor", tensor("blk.0.attn_q.weight", { type = 26 }),
    "attn_q.weight is of type I32" },
  { "a bias of a norm", with_tensor{ name = "blk.0.attn_norm.bias", ne = { 16 } },
    "blk.0.attn_norm.bias is no part" },
  { "a bias of the wrong length", with_tensor{ name = "blk.0.attn_q.bias", ne = { 15 } },
    "attn_q.bias is 15 x 1" },
  { "norms of heads that no llama has", with_tensor{ name = "blk.0.attn_q_norm.weight",
    ne = { 4 } }, "attn_q_norm.weight is no part of a llama" },
  { "a layer too many", with_tensor{ name = "blk.2.attn_norm.weight", ne = { 16 } },
    "blk.2.attn_norm" },
  { "a layer's number that is none", with_tensor{ name = "blk.x.attn_norm.weight", ne = { 16 } },
    "blk.x" },
  { "a layer's number spelled twice", with_tensor{ name = "blk.00.attn_norm.weight", ne = { 16 } },
    "oddly" },
  { "a tensor of something else", with_tensor{ name = "mm.0.weight", ne = { 16 } },
    "mm.0.weight is no part" },
  { "a rope divisor of 0", with_tensor{ name = "rope_freqs.weight", ne = { 2 } },
    "rope_freqs.weight: element 0" },

  { "another type of quantisation",
    with_tensor{ name = "output.weight", ne = { 16, 262 }, type = 25,
    bytes = ("\0"):rep(16 * 262 * 2) }, "output.weight is of type I16, which" },
}

-- Each count has a least and a most; 0 and one past the most are refused.
for name, most in pairs{ block_count = 512, embedding_length = 65536,
    feed_forward_length = 2 ^ 20, context_length = 2 ^ 22,
    ["attention.head_count"] = 1024, ["attention.head_count_kv"] = 1024,
    ["attention.key_length"] = 4096 } do
  for _, n in ipairs{ 0, most + 1, 2 ^ 32 - 1 } do
    refused[#refused + 1] = { ("a %s of %d"):format(name, n),
      key("llama." .. name, U32, n), ("llama.%s is %d, 1 to %d"):format(name, n, most) }
  end
end


describe("model", function()
  after_each(engine.close_all)

  for _, row in ipairs(refused) do
    it("refuses " .. row[1], function()
      local e, text, code = open(row[2])
      assert.is_nil(e)
      assert.equal(C.DROVER_EFORMAT, code)
      assert.is_truthy(text:find(row[3]), text)
    end)
  end

  it("describes what it opened", function()
    local file = gguf.llama()
    local e = assert(open(file))
    assert.equal("tiny", ffi.string(e.info.name))
    assert.equal("llama", ffi.string(e.info.architecture))
    assert.same({ 64, 262, 2, 16, 1 }, { e.info.context, e.info.vocab,
      e.info.layers, e.info.width, e.info.has_template })
    local count = 0
    for _, t in ipairs(file.tensors) do
      count = count + t.ne[1] * (t.ne[2] or 1)
    end
    assert.equal(count, tonumber(e.info.parameters))
    assert.equal(#gguf.build(file), tonumber(e.info.file_bytes))
    assert.is_true(e.info.memory_bytes > 4 * count)
    assert.equal(0, assert(open(gguf.llama("spm"))).info.has_template)
  end)

  it("computes with an output matrix of its own, a divisor, a linear factor", function()
    local plain = assert(open(gguf.llama())):logits{ 1, 2, 3 }
    local out = gguf.tensor(gguf.llama(), "token_embd.weight")
    local same = assert(open(with_tensor{ name = "output.weight", ne = out.ne,
                                          bytes = out.bytes })):logits{ 1, 2, 3 }
    local halves = ffi.string(ffi.new("float[2]", 2, 2), 8)
    local slow = assert(open(with_tensor{ name = "rope_freqs.weight", ne = { 2 },
                                          bytes = halves })):logits{ 1, 2, 3 }
    local linear = assert(open(gguf.set(key("llama.rope.scaling.type", STR, "linear"),
      "llama.rope.scaling.factor", F32, 2))):logits{ 1, 2, 3 }
    local differs = false
    for i = 0, 3 * 262 - 1 do
      assert.equal(plain[i], same[i])
      assert.equal(slow[i], linear[i])     -- half the angle, either way
      differs = differs or plain[i] ~= slow[i]
    end
    assert.is_true(differs)
  end)

  it("answers NaN in the weights with an error, not with a token", function()
    local file = gguf.llama()
    gguf.tensor(file, "output_norm.weight").bytes = ("\0\0\192\127"):rep(16)
    local e = assert(open(file))
    for _, temperature in ipairs{ 0, 1 } do
      local r = e:ask{ prompt = "ab", temperature = temperature }
      assert.equal(C.DROVER_EINTERNAL, r.code)
      assert.is_truthy(r.why:find("nan_logits"))
    end
  end)

  it("refuses a model cut at any byte, and leaves no memory behind", function()
    local bytes = gguf.build(gguf.llama("spm"))
    collectgarbage()
    local before = C.mem_live()
    for size = 0, #bytes - 1, 37 do
      assert.is_nil((open_bytes(bytes:sub(1, size))), "cut at " .. size)
    end
    assert.is_nil((open_bytes(bytes:sub(1, -2))))
    assert.equal(before, C.mem_live())
  end)

  it("refuses or runs a model with any byte flipped", function()
    local bytes, x = gguf.build(gguf.llama()), 99
    for _ = 1, 400 do
      x = (x * 1103515245 + 12345) % 2147483648
      local at = math.floor(x / 256) % #bytes + 1
      local e = open_bytes(bytes:sub(1, at - 1) .. string.char(x % 256)
                           .. bytes:sub(at + 1))
      if e then
        local id = e:queue{ prompt = "ab", max_tokens = 3 }
        if id then
          e:drain()
          assert.is_true(e.replies[1].ended)
        end
        e:close()
      end
    end
  end)
end)


describe("engine_open()", function()
  after_each(engine.close_all)

  it("says which device it does not know", function()
    local e, text, code = open(gguf.llama(), { device = "cuda:0" })
    assert.is_nil(e)
    assert.equal(C.DROVER_EINVAL, code)
    assert.is_truthy(text:find('"cuda:0": this build has no CUDA', 1, true))
    e, text = open(gguf.llama(), { device = "tpu" })
    assert.is_nil(e)
    assert.is_truthy(text:find('"tpu" is unknown', 1, true))
    assert.is_truthy(open(gguf.llama(), { device = "cpu" }))
  end)

  it("names a setting that is out of range", function()
    for field, value in pairs{ context = 65, batch = 257, queue = 65537 } do
      local e, text, code = open(gguf.llama(), { [field] = value })
      assert.is_nil(e)
      assert.equal(C.DROVER_EINVAL, code)
      assert.is_truthy(text:find(field .. ": " .. value))
    end
    assert.equal(17, assert(open(gguf.llama(), { context = 17 })).info.context)
  end)

  it("says how much memory is needed and how much allowed", function()
    local e, text, code = open(gguf.llama(), { memory_cap_bytes = 10000 })
    assert.is_nil(e)
    assert.equal(C.DROVER_ERESOURCE, code)
    local need = tonumber(text:match("need (%d+) bytes, allowed are 10000"))
    assert.is_truthy(need)
    assert.is_nil((open(gguf.llama(), { memory_cap_bytes = need - 1 })))
    e = assert(open(gguf.llama(), { memory_cap_bytes = need }))
    assert.equal(need, tonumber(e.info.memory_bytes))
    assert.equal(64, e:busy().kv_tokens)   -- one whole sequence
  end)

  it("keeps weights and cache under the cap, with as many blocks as fit", function()
    local whole = assert(open(gguf.llama()))
    local cap = tonumber(whole.info.memory_bytes) - 5000
    local e = assert(open(gguf.llama(), { memory_cap_bytes = cap }))
    assert.is_true(e.info.memory_bytes <= cap)
    assert.is_true(e:busy().kv_tokens < whole:busy().kv_tokens)
    assert.is_true(e:busy().kv_tokens > 64)
  end)
end)
