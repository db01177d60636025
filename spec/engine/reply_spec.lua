-- engine/reply: what a reader sees of a reply, and when.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct buf { char *at; size_t size, room, cap; };
struct engine_stop { uint32_t size, matched; unsigned char text[256]; uint16_t fall[256]; };
struct engine_reply { struct engine_stop *stop; uint32_t stops; struct buf held, out, logprobs;
  char part[4]; uint32_t parts; int stopped; };
int engine_reply_init(struct engine_reply *r, const drover_text *stop, uint32_t count,
  drover_err *err);
void engine_reply_deinit(struct engine_reply *r);
int engine_reply_add(struct engine_reply *r, const char *bytes, size_t size);
int engine_reply_end(struct engine_reply *r);
void buf_drop(struct buf *b, size_t count);
]]

local C = c.lib
local BAD = "\239\191\189"


local function new(stops)
  local r = ffi.gc(ffi.new("struct engine_reply"), C.engine_reply_deinit)
  local list, err = ffi.new("drover_text[?]", #stops + 1), ffi.new("drover_err")
  for i, s in ipairs(stops) do
    list[i - 1] = ffi.new("drover_text", s, #s)
  end
  local rc = C.engine_reply_init(r, list, #stops, err)
  return r, rc, ffi.string(err.text)
end


local function taken(r)
  local out = ffi.string(r.out.at, r.out.size)
  C.buf_drop(r.out, r.out.size)
  return out
end


-- What each piece lets out, then what the end does.
local function run(stops, pieces)
  local r, out = new(stops), {}
  for i, p in ipairs(pieces) do
    assert.equal(0, C.engine_reply_add(r, p, #p))
    out[i] = taken(r)
  end
  assert.equal(0, C.engine_reply_end(r))
  out[#out + 1] = taken(r)
  return out, r.stopped == 1
end


local function whole(stops, pieces)
  local out, stopped = run(stops, pieces)
  return table.concat(out), stopped
end


describe("reply", function()
  it("lets text out at once when nothing can stop it", function()
    assert.same({ "Hel", "lo", "" }, (run({}, { "Hel", "lo" })))
    assert.same({ "Hel", "lo", "" }, (run({ "xyz" }, { "Hel", "lo" })))
  end)

  it("ends before the stop string, and takes nothing after it", function()
    local text, stopped = whole({ "END" }, { "one EN", "D two", "three" })
    assert.equal("one ", text)
    assert.is_true(stopped)
  end)

  it("holds back what may become a stop string, no more", function()
    local out = run({ "END" }, { "one E", "N", "X" })
    assert.same({ "one ", "", "ENX", "" }, out)
  end)

  it("lets go at the end what was held back in vain", function()
    local text, stopped = whole({ "END" }, { "the EN" })
    assert.equal("the EN", text)
    assert.is_false(stopped)
  end)

  it("finds a stop string wherever the text is cut", function()
    local text = "aabaabaabaac!and more"
    for _, stop in ipairs{ "aabaac", "aac!", "c", "baab", "a" } do
      local at = text:find(stop, 1, true)
      for i = 0, #text do
        for j = i, #text do
          local got, stopped = whole({ stop }, { text:sub(1, i),
            text:sub(i + 1, j), text:sub(j + 1) })
          assert.equal(text:sub(1, at - 1), got)
          assert.is_true(stopped)
        end
      end
    end
  end)

  it("stops at the first of several, the longest of those that end there", function()
    assert.equal("ab", whole({ "zz", "cd", "bcdx" }, { "abcdxzz" }))
    assert.equal("a", whole({ "cd", "bcd" }, { "abcd" }))
    assert.equal("", whole({ "\n\n", "x" }, { "x\n\n" }))
  end)

  it("agrees with a plain search over made-up texts", function()
    local x = 12345
    local function letter()
      x = (x * 1103515245 + 12345) % 2147483648
      return ("ab"):sub(x % 2 + 1, x % 2 + 1)
    end
    for _ = 1, 300 do
      local text, stop = {}, {}
      for i = 1, 40 do
        text[i] = letter()
      end
      for i = 1, 1 + x % 6 do
        stop[i] = letter()
      end
      local t, s = table.concat(text), table.concat(stop)
      local at = t:find(s, 1, true)
      assert.equal(at and t:sub(1, at - 1) or t, whole({ s }, text))
    end
  end)

  it("never cuts UTF-8", function()
    local text = "é€😀x"
    for i = 0, #text do
      local out, ends = run({}, { text:sub(1, i), text:sub(i + 1) }), {}
      for _, stop in ipairs{ 0, 2, 5, 9, 10 } do
        ends[stop] = true
      end
      assert.equal(text, table.concat(out))
      assert.is_true(ends[#out[1]])
    end
    assert.same({ "", "", "", "😀", "" },
                (run({}, { "\240", "\159", "\152", "\128" })))
  end)

  it("puts U+FFFD for what is no UTF-8", function()
    assert.equal("a" .. BAD .. "b", whole({}, { "a\255b" }))
    assert.equal(BAD .. BAD, whole({}, { "\192\128" }))
    assert.equal(BAD .. BAD .. BAD, whole({}, { "\237\160\128" }))
    assert.equal(BAD .. "x", whole({}, { "\240\159\152x" }))
    assert.equal(BAD .. "é", whole({}, { "\240\159é" }))
    assert.equal(BAD, whole({}, { "\244\144" }):sub(1, 3))
  end)

  it("flushes an unfinished sequence as one U+FFFD", function()
    assert.same({ "a", "", BAD }, (run({}, { "a\240", "\159\152" })))
  end)

  it("stops inside of a token's bytes, before a multi-byte stop", function()
    assert.equal("x", whole({ "€" }, { "x\226", "\130", "\172y" }))
    assert.equal("x" .. BAD, whole({ "\159" }, { "x\240\159" }))
  end)

  it("takes 16 stop strings of 256 bytes, and says which is wrong", function()
    local stops = {}
    for i = 1, 16 do
      stops[i] = ("s"):rep(256)
    end
    assert.equal(0, select(2, new(stops)))
    local _, rc, text = new{ "a", "" }
    assert.equal(C.DROVER_EINVAL, rc)
    assert.equal("stop[1]: 0 bytes, 1 to 256 expected", text)
    _, _, text = new{ ("s"):rep(257) }
    assert.is_truthy(text:find("257 bytes"))
    stops[17] = "x"
    _, _, text = new(stops)
    assert.is_truthy(text:find("17 strings, at most 16"))
  end)
end)
