-- engine/mask: the walk over all tokens gives what each token alone gives.
-- #oracle
local bit = require "bit"
local ffi = require "ffi"
local c = require "spec.support.c"
local gguf = require "spec.support.gguf"
local oracle = require "spec.support.oracle"
local vocab = require "spec.support.vocab"

c.cdef[[
struct engine_trie; struct engine_mask;
int engine_trie_new(struct engine_trie **out, const struct engine_vocab *v, drover_err *err);
void engine_trie_free(struct engine_trie *t);
int engine_mask_new(struct engine_mask **out, const struct engine_trie *t,
  const char *json, size_t size, drover_err *err);
void engine_mask_free(struct engine_mask *m);
int engine_mask_allows(struct engine_mask *m, int32_t id);
const uint64_t *engine_mask_bits(struct engine_mask *m);
int engine_mask_take(struct engine_mask *m, int32_t id);
long mem_live(void);
]]

local fast = ffi.load("build/libdrover_dev.so")
local SCHEMA = '{"type":"object","properties":{"a":{"type":"string"},'
  .. '"b":{"type":"array","items":{"type":"number"},"maxItems":3},'
  .. '"c":{"type":"string","maxLength":40},"d":{"enum":["red","green",12]}},'
  .. '"required":["a","b","c","d"]}'
local TEXT = '{"a":"x\\u00e9\\"é z","b":[1.5,-2e3],"c":"'
  .. ("long "):rep(7) .. '","d":"green"}'


-- Walk a text, a token that its next bytes allow at a time, and compare the
-- mask at each place with what every token says alone.
local function check(lib, v, schema, text)
  local trie, mask = ffi.new("struct engine_trie *[1]"), ffi.new("struct engine_mask *[1]")
  local err = ffi.new("drover_err")
  assert.equal(0, lib.engine_trie_new(trie, v.at, err))
  assert.equal(0, lib.engine_mask_new(mask, trie[0], schema, #schema, err))
  local m, at, places, over = mask[0], 1, 0, false
  local size = v.at.size
  local pieces = {}
  for id = 0, size - 1 do
    pieces[id] = v:join{ id }
  end
  while at <= #text do
    local bits = lib.engine_mask_bits(m)
    local best, longest = nil, 0
    for id = 0, size - 1 do
      local word = bits[math.floor(id / 64)]
      local marked = bit.band(bit.rshift(word, id % 64), 1ULL) == 1ULL
      if marked ~= (lib.engine_mask_allows(m, id) == 1) then
        error(("token %d (%q) behind %q"):format(id, pieces[id], text:sub(1, at - 1)))
      end
      local piece = pieces[id]
      if marked and #piece > longest and text:sub(at, at + #piece - 1) == piece then
        best, longest = id, #piece
      end
    end
    assert(not over, "it was over before its end")
    assert(best, text:sub(at))
    over = lib.engine_mask_take(m, best) == 1
    at, places = at + longest, places + 1
  end
  assert.is_true(over)
  lib.engine_mask_free(m)
  lib.engine_trie_free(trie[0])
  return places
end


-- Readings side by side: a bounded string, and a longer one that is fixed.
local TWO = '{"anyOf":[{"type":"string","maxLength":9},{"const":"somewhat longer"},'
  .. '{"type":"array","items":{"type":"string","maxLength":6}}]}'


describe("a mask #oracle", function()
  it("is what each token says alone, in a small vocabulary", function()
    for _, kind in ipairs{ "bpe", "spm" } do
      local path = gguf.write(gguf.build(gguf.llama(kind)))
      local v = assert(vocab.open(path))
      collectgarbage()                   -- the one before
      collectgarbage()
      local before = c.lib.mem_live()
      assert.is_true(check(c.lib, v, SCHEMA, TEXT) > 20)
      check(c.lib, v, TWO, '"somewhat longer"')
      check(c.lib, v, TWO, '["short","é z","",""]')
      assert.equal(before, c.lib.mem_live())
      os.remove(path)
    end
  end)

  it("is that in GPT-2's", function()
    local v = assert(vocab.open_packed(oracle.path("tokenizers/vocab/gpt-2.gguf.gz"),
                                       nil, fast))
    assert.is_true(check(fast, v, SCHEMA, TEXT) > 20)
    check(fast, v, TWO, '"somewhat longer"')
    check(fast, v, TWO, '["short","é z",""]')
  end)
end)
