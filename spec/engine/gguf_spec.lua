-- engine/gguf: reads the files that are right and refuses all others, with
-- the byte or the field. The rows are those of oracles/gguf/README.md and of
-- reference/reliability.md 4A.
local ffi = require "ffi"
local c = require "spec.support.c"
local gguf = require "spec.support.gguf"
local guard = require "spec.support.guard"

c.cdef[[
struct engine_gguf_key { const char *name; size_t name_size; uint32_t type, item;
  uint64_t count; const unsigned char *at; size_t size; };
struct engine_gguf_tensor { const char *name; size_t name_size;
  uint32_t type, dims; uint64_t ne[4], at, bytes; };
struct engine_gguf { struct engine_gguf_key *key; struct engine_gguf_tensor *tensor;
  uint32_t keys, tensors, version, alignment; uint64_t file_bytes; int fd;
  unsigned char *head; const unsigned char *bytes; size_t have; };
int engine_gguf_open(struct engine_gguf **out, const char *path, drover_err *err);
int engine_gguf_parse(struct engine_gguf **out, const void *bytes, size_t size,
  drover_err *err);
void engine_gguf_close(struct engine_gguf *g);
const struct engine_gguf_tensor *engine_gguf_tensor(const struct engine_gguf *g,
  const char *name);
int engine_gguf_u32(const struct engine_gguf *g, const char *name, uint32_t *out,
  drover_err *err);
int engine_gguf_text(const struct engine_gguf *g, const char *name, drover_text *out,
  drover_err *err);
int engine_gguf_array(const struct engine_gguf *g, const char *name, uint32_t item,
  const struct engine_gguf_key **out, drover_err *err);
drover_text engine_gguf_next(const unsigned char **at);
int engine_gguf_read(const struct engine_gguf *g, const struct engine_gguf_tensor *t,
  uint64_t from, void *to, size_t size, drover_err *err);
long mem_live(void);
]]

local C = c.lib
local U32, STR, ARR, F32 = gguf.U32, gguf.STR, gguf.ARR, gguf.F32
local MOST = 0xffffffffffffffffULL
local page = guard.new(1048576)


-- Parse bytes that lie against a guard page: the file, or nil and the text.
local function parse(bytes)
  local err, out = ffi.new("drover_err"), ffi.new("struct engine_gguf *[1]")
  local at, size = page:put(bytes)
  local rc = C.engine_gguf_parse(out, at, size, err)
  if rc == 0 then
    return ffi.gc(out[0], C.engine_gguf_close)
  end
  assert.is_true(out[0] == nil)
  assert.equal(rc, err.code)
  return nil, ffi.string(err.text), rc
end


local function key(name, kind, v, item)
  return { keys = { { name or "k", kind or U32, v or 1, item } } }
end


local function tensor(change)
  local t = { name = "t", ne = { 4 }, type = 0 }
  for k, v in pairs(change or {}) do
    t[k] = v
  end
  return { tensors = { t } }
end


local function aligned(n, with)
  with.align = n
  with.keys = { { "general.alignment", U32, n } }
  return with
end


local two = { { name = "a", ne = { 3 } }, { name = "b", ne = { 5 } } }

-- name, file, what the error says (nil: accepted)
local rows = {
  { "HEADER_BAD_MAGIC", { magic = "FUGG" }, "magic FUGG" },
  { "HEADER_BAD_VERSION_0", { version = 0 }, "version 0" },
  { "HEADER_BAD_VERSION_1", { version = 1 }, "version 1" },
  { "HEADER_BAD_VERSION_FUTURE", { version = 4 }, "version 4" },
  { "a big-endian file", { version = 0x03000000 }, "big%-endian" },
  { "HEADER_BAD_N_TENSORS", { n_tensors = MOST }, "tensors, at most" },
  { "HEADER_BAD_N_KV", { n_keys = MOST }, "keys, at most" },
  { "n_kv and n_tensors of 2^61", { n_keys = 2 ^ 61, n_tensors = 2 ^ 61 },
    "tensors, at most" },
  { "more keys than the file holds", { n_keys = 4000 }, "than the file holds" },
  { "HEADER_EMPTY", {} },
  { "KV_BAD_KEY_SIZE",
    { keys = { { "", U32, 1, raw_key = gguf.number(gguf.U64, MOST) } } },
    "a key of" },
  { "KV_EMPTY_KEY", { keys = { { "", U32, 1 } } }, "empty key" },
  { "KV_BAD_TYPE", key("k", 13), "value type 13" },
  { "KV_BAD_TYPE of an array", key("k", ARR, { 1 }, 13), "value type 13" },
  { "KV_DUPLICATE_KEY", { keys = { { "k", U32, 1 }, { "k", U32, 2 } } },
    "duplicate key k" },
  { "KV_BAD_ALIGN", aligned(13, {}), "alignment is 13" },
  { "KV_SUCCESS", { keys = {
    { "u8", 0, 1 }, { "i8", 1, -1 }, { "u16", 2, 1 }, { "i16", 3, -1 },
    { "u32", U32, 7 }, { "i32", 5, -1 }, { "f32", F32, 1.5 }, { "bool", 7, 1 },
    { "str", STR, "text" }, { "u64", 10, 1 }, { "i64", 11, -1 },
    { "f64", 12, 1 }, { "list", ARR, { "a", "", "b" }, STR },
    { "numbers", ARR, { 1, 2, 3 }, U32 } } } },
  { "an array of arrays", key("k", ARR, {}, ARR), "array of arrays" },
  { "an array of 2^40", { keys = { { "k", ARR,
    raw = gguf.number(U32, 0) .. gguf.number(gguf.U64, 2 ^ 40) } } },
    "elements, at most" },
  { "an array past the end of the file", { keys = { { "k", ARR,
    raw = gguf.number(U32, 10) .. gguf.number(gguf.U64, 2 ^ 24) } } },
    "the file ends" },
  { "a string longer than the rest of the file", { keys = { { "k", STR,
    raw = gguf.string("abc", 1000) } } }, "the file ends" },
  { "a string of 2^64 - 1", { keys = { { "k", STR,
    raw = gguf.string("abc", MOST) } } }, "a string of" },
  { "a string in an array of 2^63", { keys = { { "k", ARR,
    raw = gguf.number(U32, STR) .. gguf.number(gguf.U64, 1)
      .. gguf.string("", 2 ^ 63) } } }, "a string of" },
  { "TENSORS_BAD_NAME_SIZE", tensor{ name = ("n"):rep(64) }, "name of 64" },
  { "a tensor without a name", tensor{ name = "" }, "without a name" },
  { "TENSORS_BAD_N_DIMS", tensor{ ne = { 1, 1, 1, 1, 1 } }, "5 dimensions" },
  { "no dimensions", tensor{ ne = {} }, "0 dimensions" },
  { "TENSORS_BAD_SHAPE", tensor{ ne = { MOST, MOST } }, "out of range" },
  { "a dimension of 0", tensor{ ne = { 4, 0 } }, "dimension 1 is 0" },
  { "TENSORS_NE_TOO_BIG", tensor{ ne = { 8589934588, 8589934588 } },
    "out of range" },
  { "ne = 2^32, 2^32", tensor{ ne = { 2 ^ 32, 2 ^ 32 } }, "out of range" },
  { "ne = 2^63, 2", tensor{ ne = { 2 ^ 63, 2 } }, "out of range" },
  { "a negative product", tensor{ ne = { 2 ^ 31, 2 ^ 31, 2 } }, "out of range" },
  { "TENSORS_NBYTES_TOO_BIG", tensor{ ne = { 2 ^ 31, 2 ^ 31 }, type = 27 },
    "too big" },
  { "TENSORS_BAD_TYPE", tensor{ type = 43 }, "type 43" },
  { "a retired type", tensor{ type = 4 }, "type 4" },
  { "TENSORS_BAD_OFFSET", tensor{ offset = MOST }, "expected 0" },
  { "an offset at the file's last byte", tensor{ offset = 15 }, "expected 0" },
  { "TENSORS_DUPLICATE_NAME", { tensors = { two[1], two[1] } },
    "duplicate tensor name a" },
  { "TENSORS_BAD_ALIGN", aligned(13, tensor()), "alignment is 13" },
  { "TENSORS_INCONSISTENT_ALIGN", { align = 1, tensors = two },
    "offset 12, expected 32" },
  { "TENSORS_SUCCESS", { tensors = two } },
  { "TENSORS_CUSTOM_ALIGN of 1", aligned(1, { tensors = two }),
    "a power of two from 8 to 4096" },
  { "DATA_BAD_ALIGN", aligned(13, { tensors = two }), "alignment is 13" },
  { "DATA_MEM_SIZE_OVERFLOW", { tensors = {
    { name = "a", type = 24, ne = { 0x7FFFFFFFFFFFFFC0ULL }, bytes = "" },
    { name = "b", type = 24, ne = { 0x7FFFFFFFFFFFFFC0ULL },
      bytes = ("x"):rep(32) } } }, "pass the end" },
  { "tensors that overlap", { tensors = {
    { name = "a", ne = { 16 } }, { name = "b", ne = { 16 }, offset = 32 } } },
    "offset 32, expected 64" },
  { "a gap between tensors", { tensors = {
    { name = "a", ne = { 8 } }, { name = "b", ne = { 8 }, offset = 64 } } },
    "offset 64, expected 32" },
  { "a row that is no whole blocks", tensor{ ne = { 33 }, type = 8, bytes = "" },
    "no whole blocks of 32" },
  { "an alignment of another type",
    { keys = { { "general.alignment", 5, 32 } } }, "uint32 expected" },
  { "an alignment of 0", aligned(1, { keys = {} }), "alignment is 1" },
}


describe("gguf", function()
  for _, row in ipairs(rows) do
    it((row[3] and "refuses " or "reads ") .. row[1], function()
      local file, text, code = parse(gguf.build(row[2]))
      if not row[3] then
        assert.is_truthy(file, text)
        return
      end
      assert.is_nil(file)
      assert.equal(C.DROVER_EFORMAT, code)
      assert.is_truthy(text:find(row[3]), text)
    end)
  end

  it("reads alignments from 8 to 4096 and no others", function()
    for _, n in ipairs{ 8, 16, 64, 4096 } do
      local file = assert(parse(gguf.build(aligned(n, { tensors = two }))))
      assert.equal(n, file.alignment)
    end
    for _, n in ipairs{ 0, 1, 2, 4, 24, 8192 } do
      local file, text = parse(gguf.build{
        align = 32, keys = { { "general.alignment", U32, n } } })
      assert.is_nil(file)
      assert.is_truthy(text:find("from 8 to 4096"))
    end
  end)

  it("refuses data that is one byte short, and says whose", function()
    local bytes = gguf.build{ tensors = { { name = "w", ne = { 8 } } } }
    assert.is_truthy(parse(bytes))
    local file, text = parse(bytes:sub(1, -2))
    assert.is_nil(file)
    assert.is_truthy(text:find("tensor w: 32 bytes"))
  end)

  it("reads versions 2 and 3", function()
    for _, v in ipairs{ 2, 3 } do
      assert.equal(v, assert(parse(gguf.build{ version = v })).version)
    end
  end)

  it("refuses a good file cut at any byte", function()
    local bytes = gguf.build{
      keys = { { "list", ARR, { "a", "bc" }, STR }, { "n", U32, 1 },
               { "s", STR, "text" }, { "x", ARR, { 1, 2 }, 10 } },
      tensors = { { name = "a", ne = { 3, 2 } }, { name = "b", ne = { 8 } } },
    }
    assert.is_truthy(parse(bytes))
    for size = 0, #bytes - 1 do
      assert.is_nil((parse(bytes:sub(1, size))), "cut at " .. size)
    end
  end)

  it("lives through any byte of a good file being another", function()
    local bytes = gguf.build{
      keys = { { "list", ARR, { "a", "bc" }, STR }, { "n", U32, 1 } },
      tensors = { { name = "a", ne = { 3, 2 } } },
    }
    for at = 1, #bytes do
      for _, byte in ipairs{ 0, 1, 0x7f, 0x80, 0xff } do
        parse(bytes:sub(1, at - 1) .. string.char(byte) .. bytes:sub(at + 1))
      end
    end
    collectgarbage()
  end)

  it("gives values back as they were written, and no others", function()
    local file = assert(parse(gguf.build{ keys = {
      { "n", U32, 7 }, { "s", STR, "two words" },
      { "list", ARR, { "", "b", "cd" }, STR } } }))
    local n, text = ffi.new("uint32_t[1]"), ffi.new("drover_text")
    local list = ffi.new("const struct engine_gguf_key *[1]")
    local err = ffi.new("drover_err")
    assert.equal(0, C.engine_gguf_u32(file, "n", n, err))
    assert.equal(7, n[0])
    assert.equal(0, C.engine_gguf_text(file, "s", text, err))
    assert.equal("two words", ffi.string(text.data, text.size))
    assert.equal(C.DROVER_ENOTFOUND, C.engine_gguf_u32(file, "m", n, err))
    assert.equal(C.DROVER_EFORMAT, C.engine_gguf_u32(file, "s", n, err))
    assert.equal("s is of type string, uint32 expected", ffi.string(err.text))
    assert.equal(C.DROVER_EFORMAT, C.engine_gguf_array(file, "list", 6, list, err))
    assert.equal(0, C.engine_gguf_array(file, "list", STR, list, err))
    local at, got = ffi.new("const unsigned char *[1]", list[0].at), {}
    for i = 1, tonumber(list[0].count) do
      local t = C.engine_gguf_next(at)
      got[i] = ffi.string(t.data, t.size)
    end
    assert.same({ "", "b", "cd" }, got)
  end)
end)


describe("gguf files", function()
  local function open(path)
    local err, out = ffi.new("drover_err"), ffi.new("struct engine_gguf *[1]")
    local rc = C.engine_gguf_open(out, path, err)
    if rc == 0 then
      return ffi.gc(out[0], C.engine_gguf_close)
    end
    return nil, ffi.string(err.text), rc
  end

  it("are read in pieces, heads of any size", function()
    local long = ("x"):rep(300000)
    local path, remove = gguf.write(gguf.build{
      keys = { { "s", STR, long }, { "n", U32, 3 } },
      tensors = { { name = "w", ne = { 2 }, bytes = "12345678" } } })
    local file = assert(open(path))
    local text, bytes = ffi.new("drover_text"), ffi.new("char[8]")
    assert.equal(0, C.engine_gguf_text(file, "s", text, nil))
    assert.equal(long, ffi.string(text.data, text.size))
    local w = C.engine_gguf_tensor(file, "w")
    assert.equal(0, C.engine_gguf_read(file, w, 2, bytes, 4, nil))
    assert.equal("3456", ffi.string(bytes, 4))
    assert.is_true(C.engine_gguf_read(file, w, 5, bytes, 4, nil) < 0)
    remove()
  end)

  it("that become shorter while they are read are an error", function()
    local bytes = gguf.build{ tensors = { { name = "w", ne = { 4096 } } } }
    local path, remove = gguf.write(bytes)
    local file = assert(open(path))
    assert(io.open(path, "wb")):close()
    local err, to = ffi.new("drover_err"), ffi.new("char[16384]")
    local w = C.engine_gguf_tensor(file, "w")
    assert.equal(C.DROVER_EFORMAT, C.engine_gguf_read(file, w, 0, to, 16384, err))
    assert.is_truthy(ffi.string(err.text):find("became shorter"))
    remove()
  end)

  it("that are missing, empty or no files are refused by name", function()
    local _, text, code = open("/nowhere/x.gguf")
    assert.equal(C.DROVER_ENOTFOUND, code)
    assert.is_truthy(text:find("/nowhere/x.gguf", 1, true))
    _, text = open("/tmp")
    assert.is_truthy(text:find("no regular file"))
    _, text = open("/dev/null")
    assert.is_truthy(text:find("no regular file"))
    local path, remove = gguf.write("")
    _, text = open(path)
    assert.is_truthy(text:find("ends at byte 0"))
    remove()
  end)

  it("leave no memory behind, good or bad", function()
    collectgarbage()
    collectgarbage()
    local before = C.mem_live()
    local path, remove = gguf.write(gguf.build(key("a", 13)))
    for _ = 1, 3 do
      open(path)
    end
    remove()
    assert.equal(before, C.mem_live())
  end)
end)
