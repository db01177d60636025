-- engine/vocab, bpe, spm, pre: texts to tokens. The tokenizers of known
-- models give the ids that llama.cpp or the model's own tokenizer gives;
-- the rest is about texts nobody writes in good faith.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local gguf = require "spec.support.gguf"

c.cdef[[
struct engine_gguf; struct engine_pre;
struct engine_vocab { int kind; const struct engine_pre *pre; uint32_t size; };
struct engine_ids { int32_t *at; size_t count, room; };
struct engine_span { size_t stop; int special; };
struct engine_prompt { const char *text; size_t size;
  const struct engine_span *span; size_t spans; };
int engine_gguf_open(struct engine_gguf **out, const char *path, drover_err *err);
void engine_gguf_close(struct engine_gguf *g);
int engine_vocab_new(struct engine_vocab **out, const struct engine_gguf *g, drover_err *err);
void engine_vocab_free(struct engine_vocab *v);
int engine_vocab_encode(const struct engine_vocab *v, const struct engine_prompt *p,
  int bos, struct engine_ids *out, drover_err *err);
size_t engine_vocab_piece(const struct engine_vocab *v, int32_t id, char *to);
const struct engine_pre *engine_pre_find(const char *name, size_t size);
void engine_ids_deinit(struct engine_ids *ids);
double drover_clock(void);
]]

local fast = ffi.load("build/libdrover_dev.so")


-- A vocabulary out of a file: nil and the text when it is refused.
local function load(path, lib)
  local err = ffi.new("drover_err")
  local g = ffi.new("struct engine_gguf *[1]")
  local v = ffi.new("struct engine_vocab *[1]")
  assert(lib.engine_gguf_open(g, path, err) == 0, ffi.string(err.text))
  local rc = lib.engine_vocab_new(v, g[0], err)
  lib.engine_gguf_close(g[0])
  if rc ~= 0 then
    return nil, ffi.string(err.text)
  end
  return ffi.gc(v[0], lib.engine_vocab_free)
end


local function build(file, lib)
  local path, remove = gguf.write(gguf.build(file))
  local v, text = load(path, lib or c.lib)
  remove()
  return v, text
end


-- spans: { { text, special }, … }
local function encode_spans(v, spans, lib, bos)
  local text, list = "", ffi.new("struct engine_span[?]", #spans + 1)
  for i, s in ipairs(spans) do
    text = text .. s[1]
    list[i - 1].stop, list[i - 1].special = #text, s[2] and 1 or 0
  end
  local p = ffi.new("struct engine_prompt", text, #text, list, #spans)
  local ids, err = ffi.new("struct engine_ids"), ffi.new("drover_err")
  local rc = lib.engine_vocab_encode(v, p, bos and 1 or 0, ids, err)
  local out = {}
  for i = 1, tonumber(ids.count) do
    out[i] = ids.at[i - 1]
  end
  lib.engine_ids_deinit(ids)
  if rc ~= 0 then
    return nil, ffi.string(err.text)
  end
  return out
end


local function encode(v, text, special, lib)
  return encode_spans(v, { { text, special } }, lib or c.lib)
end


local function bytes_of(v, ids, lib)
  local out, to = {}, ffi.new("char[65536]")
  for i, id in ipairs(ids) do
    out[i] = ffi.string(to, lib.engine_vocab_piece(v, id, to))
  end
  return table.concat(out)
end


local function with_token(kind, text, type)
  local file = gguf.llama(kind)
  table.insert(gguf.get(file, "tokenizer.ggml.tokens"), text)
  table.insert(gguf.get(file, "tokenizer.ggml.token_type"), type or 1)
  local scores = gguf.get(file, "tokenizer.ggml.scores")
  if scores then
    table.insert(scores, 0)
  end
  return file
end


describe("vocab", function()
  it("gives any bytes back as they were", function()
    local every = {}
    for b = 0, 255 do
      every[b + 1] = string.char(b)
    end
    local all = table.concat(every)
    for _, kind in ipairs{ "bpe", "spm" } do
      local v = assert(build(gguf.llama(kind)))
      local lead = kind == "spm" and " " or ""
      for _, text in ipairs{ all, all:reverse(), "\0\0", "a\0b", "\xff\xfe",
                             "\xf0\x9f\x98", "\xc0\x80", "\xed\xa0\x80" } do
        assert.equal(lead .. text, bytes_of(v, encode(v, text), c.lib))
      end
    end
  end)

  it("takes a megabyte of one letter in seconds", function()
    for _, kind in ipairs{ "bpe", "spm" } do
      local v = assert(build(gguf.llama(kind), fast))
      for _, letter in ipairs{ "a", " ", "<", "\n", "\xff" } do
        local began = fast.drover_clock()
        local ids = encode(v, letter:rep(1048576), true, fast)
        assert.is_true(#ids > 1000)
        assert.is_true(fast.drover_clock() - began < 20)
      end
    end
  end)

  it("merges by rank, the leftmost first", function()
    local v = assert(build(gguf.llama()))
    assert.same({ 257 }, encode(v, "abc"))
    assert.same({ 256, 256 }, encode(v, "abab"))
    assert.same({ 97, 256 }, encode(v, "aab"))
  end)

  it("finds control tokens in template text only", function()
    local v = assert(build(gguf.llama()))
    local spell = "<|im_end|>"
    assert.same({ 260 }, encode(v, spell, true))
    assert.equal(#spell, #encode(v, spell, false))
    local ids = encode_spans(v, { { "<|im_start|>", true }, { spell, false },
                                  { "<|im_end|>", true } }, c.lib)
    assert.equal(259, ids[1])
    assert.equal(260, ids[#ids])
    for i = 2, #ids - 1 do
      assert.is_true(ids[i] < 258)
    end
  end)

  it("makes no control token of two spans together", function()
    local v = assert(build(gguf.llama()))
    for cut = 1, 9 do
      local a, b = ("<|im_end|>"):sub(1, cut), ("<|im_end|>"):sub(cut + 1)
      for _, which in ipairs{ { true, false }, { false, true } } do
        for _, id in ipairs(encode_spans(v, { { a, which[1] }, { b, which[2] } },
                                         c.lib)) do
          assert.is_true(id < 258)
        end
      end
    end
  end)

  it("finds user-defined tokens everywhere", function()
    local v = assert(build(gguf.llama()))
    assert.same({ 97, 261, 98 }, encode(v, "a<tool>b", false))
  end)

  it("lets words cross from the template into the content", function()
    local v = assert(build(gguf.llama()))
    assert.same({ 256 }, encode_spans(v, { { "a", true }, { "b", false } }, c.lib))
  end)

  it("puts SentencePiece's blank in front, and behind special tokens", function()
    local v = assert(build(gguf.llama("spm")))
    assert.same({}, encode(v, ""))
    assert.same({ 8 }, encode(v, "ab"))
    assert.same({ 1, 8 }, encode(v, "<s>ab", true))
    assert.same({ 1, 8 }, encode_spans(v, { { "ab", false } }, c.lib, true))
    assert.same({ 1 }, encode_spans(v, { { "", false } }, c.lib, true))
  end)

  it("takes the leftmost of equal scores, of 0 and -0 too", function()
    local file = with_token("spm", "bb")
    gguf.get(file, "tokenizer.ggml.scores")[7] = -1 / math.huge
    local v = assert(build(file))
    assert.same({ 8, 5 }, encode(v, "abb"))
  end)

  it("finds the longest special token, whatever the order", function()
    local file = gguf.llama()
    local tokens = gguf.get(file, "tokenizer.ggml.tokens")
    local types = gguf.get(file, "tokenizer.ggml.token_type")
    for _, t in ipairs{ "<<", "<<<<", "<<<" } do
      tokens[#tokens + 1], types[#types + 1] = t, 3
    end
    local v = assert(build(file))
    assert.same({ 263, 264 }, encode(v, "<<<<<<<", true))
  end)
end)


-- What is wrong, how the file is changed, what the error says (nil: fine).
local function keys(kind, name, ...)
  return gguf.set(gguf.llama(kind), "tokenizer.ggml." .. name, ...)
end


local U32, ARR, F32, I32, STR, U8 = gguf.U32, gguf.ARR, gguf.F32, gguf.I32,
  gguf.STR, gguf.U8
local rows = {
  { "another model", keys("bpe", "model", STR, "bert"), "model bert is not" },
  { "no model", keys("bpe", "model"), "model is missing" },
  { "an unknown pre-tokenizer", keys("bpe", "pre", STR, "kimi-k2"), "pre kimi%-k2" },
  { "no pre-tokenizer", keys("bpe", "pre") },
  { "no tokens", keys("bpe", "tokens"), "tokens is missing" },
  { "tokens of another type", keys("bpe", "tokens", ARR, { 1 }, U32), "array of uint32" },
  { "no scores", keys("spm", "scores"), "scores is missing" },
  { "scores of uint8", keys("spm", "scores", ARR, { 1, 2 }, U8), "array of uint8" },
  { "scores for fewer tokens", keys("spm", "scores", ARR, { 1, 2 }, F32), "2 elements for" },
  { "a score that is no number", keys("spm", "scores", ARR,
    (function() local s = {} for i = 1, 265 do s[i] = 0 / 0 end return s end)(), F32),
    "not a number" },
  { "types of uint8", keys("bpe", "token_type", ARR, { 1 }, U8), "array of uint8" },
  { "types for fewer tokens", keys("bpe", "token_type", ARR, { 1 }, I32), "1 elements for" },
  { "a type of 7", with_token("bpe", "x", 7), "is 7, 1 to 6" },
  { "a type of -1", with_token("bpe", "x", -1), "is %-1, 1 to 6" },
  { "no types", keys("bpe", "token_type") },
  { "a bos past the end", keys("bpe", "bos_token_id", U32, 262), "is 262 of 262" },
  { "an eos of 2^32 - 1", keys("bpe", "eos_token_id", U32, 0xffffffff), "eos_token_id is" },
  { "an id of another type", keys("bpe", "eos_token_id", I32, 1), "int32" },
  { "a padding id past the end", keys("bpe", "padding_token_id", U32, 9999), "padding" },
  { "add_bos without a bos", keys("bpe", "add_bos_token", 7, 1), "no bos_token_id" },
  { "no merges", keys("bpe", "merges"), "merges is missing" },
  { "a merge without a blank", keys("bpe", "merges", ARR, { "ab" }, STR), "not made of tokens" },
  { "a merge of no tokens", keys("bpe", "merges", ARR, { "x y" }, STR), "not made of tokens" },
  { "an empty merge", keys("bpe", "merges", ARR, { "" }, STR), "not made of tokens" },
  { "two equal tokens", with_token("bpe", "ab") },
  { "two equal tokens (spm)", with_token("spm", "ab") },
  { "an empty token", with_token("bpe", "") },
  { "an empty special token", with_token("bpe", "", 3) },
  { "a byte token <0x-1>", with_token("spm", "<0x-1>", 6), "no byte token" },
  { "a byte token <0xZZ>", with_token("spm", "<0xZZ>", 6), "no byte token" },
  { "a byte token <0x041>", with_token("spm", "<0x041>", 6), "no byte token" },
  { "a byte token twice", with_token("spm", "<0x41>", 6) },
  { "a token of 64 KiB", with_token("bpe", ("x"):rep(65536)) },
  { "a token of 64 KiB and a byte", with_token("bpe", ("x"):rep(65537)), "at most 65536" },
}

describe("vocab", function()
  for _, row in ipairs(rows) do
    it((row[3] and "refuses " or "takes ") .. row[1], function()
      local v, text = build(row[2])
      if not row[3] then
        assert.is_truthy(v, text)
        return
      end
      assert.is_nil(v)
      assert.is_truthy(text:find(row[3]), text)
    end)
  end

  it("gives a byte token its byte, the second of two as well", function()
    local v = assert(build(with_token("spm", "<0x41>", 6)))
    assert.equal("AA", bytes_of(v, { 9 + 0x41, 265 }, c.lib))
  end)

  it("says which byte a vocabulary cannot spell", function()
    local file = gguf.llama()
    gguf.get(file, "tokenizer.ggml.tokens")[("z"):byte() + 1] = "zz"
    local v = assert(build(file))
    local ids, text = encode(v, "az")
    assert.is_nil(ids)
    assert.equal("the model has no token for byte 0x7a", text)
  end)
end)


describe("engine_tokens()", function()
  it("counts special tokens as text, and no bos", function()
    local path, remove = gguf.write(gguf.build(gguf.llama("spm")))
    local e = assert(engine.open(path))
    assert.equal(1, tonumber(c.lib.engine_tokens(e.at, "ab", 2)))
    assert.equal(0, tonumber(c.lib.engine_tokens(e.at, "", 0)))
    assert.equal(4, tonumber(c.lib.engine_tokens(e.at, "<s>", 3)))
    remove()
    engine.close_all()
  end)
end)
