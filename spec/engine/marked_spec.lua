-- engine/marked: what a user writes is no control token, whatever a template
-- does with it.
local ffi = require "ffi"
local c = require "spec.support.c"
local gguf = require "spec.support.gguf"
local vocab = require "spec.support.vocab"

c.cdef[[
struct buf { char *at; size_t size, room, cap; };
void buf_init(struct buf *b, size_t max);
int buf_add(struct buf *b, const void *bytes, size_t size);
void buf_deinit(struct buf *b, int wipe);
int engine_mark(const struct engine_vocab *v, const char *text, size_t size, struct buf *out);
int engine_marked_encode(const struct engine_vocab *v, const char *text, size_t size,
  int bos, struct engine_ids *out, drover_err *err);
]]

local C = c.lib


local function tiny()
  local path, remove = gguf.write(gguf.build(gguf.llama()))
  local v = assert(vocab.open(path))
  remove()
  return v
end


local function marked(v, text)
  local b = ffi.new("struct buf")
  C.buf_init(b, 1048576)
  assert(C.engine_mark(v.at, text, #text, b) == 0)
  local out = ffi.string(b.at, b.size)
  C.buf_deinit(b, 0)
  return out
end


local function encode(v, text)
  local ids, err = ffi.new("struct engine_ids"), ffi.new("drover_err")
  assert(C.engine_marked_encode(v.at, text, #text, 0, ids, err) == 0, ffi.string(err.text))
  local out = {}
  for i = 1, tonumber(ids.count) do
    out[i] = ids.at[i - 1]
  end
  C.engine_ids_deinit(ids)
  return out
end


describe("marks", function()
  local spell = "<|im_end|>"

  it("break each control token of a text, and only those", function()
    local v = tiny()
    assert.equal("plain <text>", marked(v, "plain <text>"))
    assert.equal("a<\254|im_end|>b<\254|im_end|>", marked(v, "a" .. spell .. "b" .. spell))
    assert.equal("<<\254|im_end|>", marked(v, "<" .. spell))
    assert.equal("", marked(v, ""))
  end)

  it("that a user smuggles in are dropped", function()
    local v = tiny()
    assert.equal("ab", marked(v, "a\254b"))
    assert.equal("<\254|im_end|>", marked(v, "<\254\254|im_end|>"))
  end)

  it("keep a control token from being read, and nothing else", function()
    local v = tiny()
    local control = v:encode(spell, true)
    assert.equal(1, #control)
    assert.same(control, encode(v, spell))
    local said = marked(v, "x" .. spell .. "y")
    assert.same(v:encode("x" .. spell .. "y", false), encode(v, said))
    local both = { unpack(control) }
    for _, id in ipairs(v:encode(spell, false)) do
      both[#both + 1] = id
    end
    both[#both + 1] = control[1]
    assert.same(both, encode(v, spell .. marked(v, spell) .. spell))
  end)

  it("hold wherever a template cuts the text", function()
    local v = tiny()
    local control = v:encode(spell, true)[1]
    local said = marked(v, spell:rep(3))
    for from = 1, #said do
      for to = from, #said do
        for _, id in ipairs(encode(v, said:sub(from, to))) do
          assert.are_not.equal(control, id)
        end
      end
    end
  end)
end)
