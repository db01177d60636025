-- engine/quant, unicode, pre: tables and small arithmetic.
local ffi = require "ffi"
local c = require "spec.support.c"
local guard = require "spec.support.guard"
local oracle = require "spec.support.oracle"

c.cdef[[
struct engine_quant_type { const char *name; uint32_t values, bytes; };
const struct engine_quant_type *engine_quant_type(uint32_t type);
int engine_quant_reads(uint32_t type);
void engine_quant_row(uint32_t type, const void *from, size_t count, float *to);
int engine_unicode_class(uint32_t code);
int engine_unicode_check(const char *text, size_t size);
size_t engine_unicode_decode(const char *text, size_t size, uint32_t *code);
struct engine_pre { const char *name; int rules, digits, whole_words, add_bos; };
struct engine_pre_walk { const struct engine_pre *pre; const char *text;
  size_t at, piece, size; };
const struct engine_pre *engine_pre_find(const char *name, size_t size);
int engine_pre_next(struct engine_pre_walk *w, size_t *start, size_t *size);
]]

local C = c.lib
local F32, F16, Q8_0 = 0, 1, 8


local function half(bits)
  local sign = bits >= 0x8000 and -1 or 1
  local e, m = math.floor(bits % 0x8000 / 1024), bits % 1024
  if e == 31 then
    return m == 0 and sign * math.huge or "nan"
  end
  return sign * (e == 0 and m * 2 ^ -24 or (1 + m / 1024) * 2 ^ (e - 15))
end


describe("quant", function()
  it("reads every half exactly", function()
    local from, to = ffi.new("uint16_t[65536]"), ffi.new("float[65536]")
    for i = 0, 65535 do
      from[i] = i
    end
    C.engine_quant_row(F16, from, 65536, to)
    local bits = ffi.cast("uint32_t *", to)
    for i = 0, 65535 do
      local want, got = half(i), to[i]
      if bits[i] % 2 ^ 31 > 0x7f800000 then
        got = "nan"
      end
      if got ~= want then
        error(("half %04x is %s, %s expected"):format(i, got, want))
      end
    end
    assert.equal(-math.huge, 1 / to[0x8000])       -- minus zero
  end)

  it("reads blocks of 32 signed bytes and their scale", function()
    local page = guard.new(68)
    local text, want = {}, {}
    for b = 0, 1 do
      text[#text + 1] = string.char(0, b == 0 and 0x38 or 0xc0)   -- 0.5, -2
      for i = 0, 31 do
        local q = (i * 37 + b) % 256
        text[#text + 1] = string.char(q)
        want[#want + 1] = (q < 128 and q or q - 256) * (b == 0 and 0.5 or -2)
      end
    end
    local at, to = page:put(table.concat(text)), ffi.new("float[64]")
    C.engine_quant_row(Q8_0, at, 64, to)
    for i = 1, 64 do
      assert.equal(want[i], to[i - 1])
    end
  end)

  it("reads from odd addresses", function()
    local bytes = ffi.new("char[9]", "x\0\0\128\63\0\0\0\64")
    local to = ffi.new("float[2]")
    C.engine_quant_row(F32, bytes + 1, 2, to)
    assert.same({ 1, 2 }, { to[0], to[1] })
  end)

  it("knows all types by name, and reads fifteen", function()
    local reads, known = {}, 0
    for type = 0, 60 do
      local row = C.engine_quant_type(type)
      if row ~= nil then
        known = known + 1
        if C.engine_quant_reads(type) == 1 then
          reads[#reads + 1] = ffi.string(row.name)
        end
      end
    end
    assert.equal("F32 F16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K "
                 .. "IQ4_NL BF16 MXFP4", table.concat(reads, " "))
    assert.equal(35, known)
    for _, retired in ipairs{ 4, 5, 31, 32, 33, 36, 37, 38, 43, 0xffffffff } do
      assert.is_true(C.engine_quant_type(retired) == nil)
    end
  end)
end)


describe("the blocks of each type #oracle", function()
  for _, path in ipairs(oracle.files("arch/dequant", "%.json$")) do
    it("are read bit for bit: " .. path, function()
      local file = oracle.json(path)
      local row = C.engine_quant_type(file.id)
      assert.equal(file.values_per_block, row.values > 1 and row.values or 32)
      for _, block in ipairs(file.blocks) do
        local raw = oracle.base64(block.raw)
        local want = oracle.base64(block.values)
        local page = guard.new(#raw)
        local to = ffi.new("float[?]", file.values_per_block)
        C.engine_quant_row(file.id, page:put(raw), file.values_per_block, to)
        local got = ffi.string(to, #want)
        for i = 1, #want, 4 do
          if got:sub(i, i + 3) ~= want:sub(i, i + 3) then
            error(("block %d, value %d: %g"):format(block.block, (i - 1) / 4,
                                                    to[(i - 1) / 4]))
          end
        end
      end
    end)
  end
end)


describe("unicode", function()
  it("knows letters, numbers, punctuation, symbols, marks and blanks", function()
    local L, N, P, S, M, W, O = 1, 2, 3, 4, 5, 6, 0
    for code, class in pairs{
      [0x41] = L, [0x7a] = L, [0xe9] = L, [0x4e2d] = L, [0x1f1e6] = S,
      [0x30] = N, [0xbd] = N, [0x2167] = N, [0x661] = N, [0x21] = P, [0x5f] = P,
      [0x2014] = P, [0x24] = S, [0x1f600] = S, [0x300] = M, [0xfe0f] = M,
      [0x20] = W, [0x0a] = W, [0x85] = W, [0xa0] = W, [0x3000] = W, [0x2028] = W,
      [0x1c] = O, [0x200b] = O, [0xad] = O, [0xd800] = O, [0xe000] = O,
      [0x10ffff] = O, [0x110000] = O, [0xffffffff] = O, [0] = O,
    } do
      assert.equal(class, C.engine_unicode_class(code), ("U+%04X"):format(code))
    end
  end)

  it("tells whole, unfinished and impossible UTF-8 apart", function()
    for text, want in pairs{
      [""] = 0, a = 1, ["\0"] = 1, ["é"] = 2, ["€"] = 3, ["😀x"] = 4,
      ["\195"] = 0, ["\226\130"] = 0, ["\240\159\152"] = 0, ["\128"] = -1,
      ["\192\128"] = -1, ["\193\191"] = -1, ["\224\159"] = -1,
      ["\237\160"] = -1, ["\240\143"] = -1, ["\244\144"] = -1, ["\245"] = -1,
      ["\255"] = -1, ["\195x"] = -1, ["\226\130x"] = -2, ["\240\159\152x"] = -3,
    } do
      assert.equal(want, C.engine_unicode_check(text, #text))
    end
  end)

  it("decodes what is whole, and one byte of what is not", function()
    local code = ffi.new("uint32_t[1]")
    for text, want in pairs{ a = { 1, 0x61 }, ["é"] = { 2, 0xe9 },
        ["€"] = { 3, 0x20ac }, ["😀"] = { 4, 0x1f600 },
        ["\244\143\191\191"] = { 4, 0x10ffff }, ["\226\130"] = { 1, 0x110000 } } do
      assert.equal(want[1], tonumber(C.engine_unicode_decode(text, #text, code)))
      assert.equal(want[2], code[0])
    end
  end)
end)


local function words(rule, text)
  local w = ffi.new("struct engine_pre_walk")
  w.pre, w.text, w.size = C.engine_pre_find(rule, #rule), text, #text
  local start, size, out = ffi.new("size_t[1]"), ffi.new("size_t[1]"), {}
  while C.engine_pre_next(w, start, size) == 1 do
    out[#out + 1] = text:sub(tonumber(start[0]) + 1, tonumber(start[0] + size[0]))
  end
  return out
end


describe("pre", function()
  for _, row in ipairs{
    { "qwen2", "Hello  world 42!", { "Hello", " ", " world", " ", "4", "2", "!" } },
    { "qwen2", "I'M it's", { "I", "'M", " it", "'s" } },
    { "qwen2", "a \n\n b  ", { "a", " \n\n", " b", "  " } },
    { "qwen2", "x...\n\ny", { "x", "...\n\n", "y" } },
    { "qwen2", "(ab) _c", { "(ab", ")", " _", "c" } },
    { "llama-bpe", "12345", { "123", "45" } },
    { "gpt-2", "I'M it's 123 a!\n\nb", { "I", "'", "M", " it", "'s", " 123", " a",
                                         "!", "\n", "\n", "b" } },
    { "starcoder", "a  12 b", { "a", "  ", "1", "2", " b" } },
    { "qwen2", "\255\254a", { "\255\254", "a" } },
    { "qwen2", "", {} },
  } do
    it(("cuts %q by %s"):format(row[2], row[1]), function()
      assert.same(row[3], words(row[1], row[2]))
    end)
  end

  it("loses no byte of any text, by any rule", function()
    local x, alphabet = 1, { "a", "B", "1", " ", "\n", "\r", "'", "s", "!", "é",
                             "中", "\255", "\226\130", "\0", "\194\160", "́" }
    for _, rule in ipairs{ "qwen2", "llama-bpe", "gpt-2", "starcoder", "qwen35", "gpt-4o",
                           "tekken", "deepseek-v3", "default", "seed-coder" } do
      for _ = 1, 200 do
        local text = {}
        for i = 1, 30 do
          x = (x * 1103515245 + 12345) % 2147483648
          text[i] = alphabet[math.floor(x / 65536) % #alphabet + 1]
        end
        local whole = table.concat(text)
        local list = words(rule, whole)
        assert.equal(whole, table.concat(list))
        for _, w in ipairs(list) do
          assert.is_true(#w > 0)
        end
      end
    end
  end)

  it("knows no other name", function()
    for _, name in ipairs{ "", "qwen", "qwen22", "falcon", "bloom", "kimi-k2" } do
      assert.is_true(C.engine_pre_find(name, #name) == nil)
    end
  end)
end)
