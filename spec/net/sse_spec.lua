-- net/sse: bytes to events, against the oracles, at every split, and against
-- a page that may not be touched.
local ffi = require "ffi"
local c = require "spec.support.c"
local guard = require "spec.support.guard"
local oracle = require "spec.support.oracle"

c.cdef[[
struct spec_buf { char *at; size_t size, room, cap; };
struct net_sse {
  struct spec_buf line, data, name, id, last_id;
  uint64_t events, comments;
  int failed;
  char started, after_cr, skipping, given;
};
struct net_event {
  int ready, lenient;
  const char *data, *name, *id;
  size_t data_size, name_size, id_size;
};
void net_sse_init(struct net_sse *p);
void net_sse_deinit(struct net_sse *p);
long net_sse_feed(struct net_sse *p, const char *buf, size_t len,
                  struct net_event *ev);
int net_sse_end(struct net_sse *p, struct net_event *ev);
]]

local C = c.lib
local MAX = 1024 * 1024
local page = guard.new(64 * 1024)
local ev = ffi.new("struct net_event")


local function seen(list)
  list[#list + 1] = {
    event = ffi.string(ev.name, ev.name_size),
    data = ffi.string(ev.data, ev.data_size),
    id = ffi.string(ev.id, ev.id_size),
    lenient = ev.lenient == 1,
  }
end


-- Feed one piece; short ones lie against the page. 0 or the error.
local function feed(p, piece, list)
  local at, size = ffi.cast("const char *", piece), #piece
  if size <= page.max then
    at, size = page:put(piece)
  end
  while size > 0 do
    local used = tonumber(C.net_sse_feed(p, at, size, ev))
    if used < 0 then
      return used
    end
    if ev.ready == 1 then
      seen(list)
    end
    at, size = at + used, size - used
  end
  return 0
end


-- The events of a text cut into pieces; nil and the error. `keep` 0: count
-- them only. Also what the parser ended as.
local function parse(pieces)
  local p, list = ffi.new("struct net_sse"), {}
  C.net_sse_init(p)
  local code = 0
  for _, piece in ipairs(pieces) do
    code = feed(p, piece, list)
    if code ~= 0 then break end
  end
  if code == 0 then
    code = C.net_sse_end(p, ev)
    if ev.ready == 1 then
      seen(list)
    end
  end
  local last_id = ffi.string(p.last_id.at, p.last_id.size)
  C.net_sse_deinit(p)
  return code == 0 and list or nil, code, last_id, list
end


local function bytes_of(text)
  local out = {}
  for i = 1, #text do
    out[i] = text:sub(i, i)
  end
  return out
end


local function same(want, got, strict)
  local n = 0
  for _, e in ipairs(got) do
    if not (strict and e.lenient) then
      n = n + 1
      local w = want[n]
      if not w or w.event ~= e.event or w.data ~= e.data or w.id ~= e.id then
        return false
      end
    end
  end
  return n == #want
end


local function expect(case, pieces, how)
  local got, code, last_id = parse(pieces)
  assert.equal(0, code, case.name .. ": " .. how)
  assert.is_true(same(case.events, got, true), case.name .. ": " .. how)
  assert.is_true(same(case.lenient or case.events, got, not case.lenient),
                 case.name .. ", lenient: " .. how)
  assert.equal(case.last_id, last_id, case.name .. ": " .. how)
end


describe("the SSE parser #oracle", function()
  local cases = oracle.rows("sse/cases.jsonl")

  for _, case in ipairs(cases) do
    local text = oracle.base64(case.input)
    it("reads " .. case.name .. " at every split", function()
      expect(case, { text }, "whole")
      expect(case, bytes_of(text), "byte by byte")
      for i = 1, #text - 1, #text > 8192 and 97 or 1 do
        expect(case, { text:sub(1, i), text:sub(i + 1) }, "cut at " .. i)
      end
    end)
  end

  for _, case in ipairs(oracle.rows("sse/huge.jsonl")) do
    it("bounds " .. case.name, function()
      local pieces = {}
      local text = oracle.bytes(case)
      for i = 1, #text, 16384 do
        pieces[#pieces + 1] = text:sub(i, i + 16383)
      end
      for _, way in ipairs{ { text }, pieces } do
        local got, code, _, list = parse(way)
        if code == 0 then
          assert.equal(case.events_without_caps, #got)
          assert.equal(case.last_data_length, #got[#got].data)
        else
          assert.equal(C.DROVER_ETOOLARGE, code)
          assert.is_true(#list == 0)
        end
      end
    end)
  end
end)


describe("the SSE parser", function()
  it("takes a line of 1 MiB and refuses one more byte, at any split", function()
    local fits = "data: " .. ("x"):rep(MAX - 6)
    for _, cut in ipairs{ 1, 6, 1000, MAX - 1 } do
      local got = assert(parse{ fits:sub(1, cut), fits:sub(cut + 1), "\n\n" })
      assert.equal(MAX - 6, #got[1].data)
      local _, code = parse{ fits:sub(1, cut), fits:sub(cut + 1) .. "x\n\n" }
      assert.equal(C.DROVER_ETOOLARGE, code)
    end
  end)

  it("refuses an event of many lines that is larger than 1 MiB", function()
    local line = "data: " .. ("x"):rep(1023) .. "\n"
    assert.equal(0, select(2, parse{ line:rep(1024) .. "\n" }))
    assert.equal(C.DROVER_ETOOLARGE, select(2, parse{ line:rep(1025) .. "\n" }))
  end)

  it("refuses the event after a million", function()
    local p = ffi.new("struct net_sse")
    C.net_sse_init(p)
    p.events = 999999
    assert.equal(0, feed(p, "data: a\n\n", {}))
    assert.equal(C.DROVER_ETOOLARGE, feed(p, "data: b\n\n", {}))
    assert.equal(C.DROVER_ETOOLARGE, feed(p, "data: c\n\n", {}))
    C.net_sse_deinit(p)
  end)

  it("counts comments that are whole, at every split", function()
    local text = ": a\n:\r\ndata: : b\n\n\239\187\191: c\n" .. ": d"
    for cut = 0, #text do
      local p = ffi.new("struct net_sse")
      C.net_sse_init(p)
      assert.equal(0, feed(p, text:sub(1, cut), {}))
      assert.equal(0, feed(p, text:sub(cut + 1), {}))
      assert.equal(2, tonumber(p.comments), "cut at " .. cut)
      assert.equal(0, feed(p, "\n", {}))
      assert.equal(3, tonumber(p.comments), "cut at " .. cut)
      C.net_sse_deinit(p)
    end
  end)

  it("keeps nothing of a comment, however long", function()
    local p = ffi.new("struct net_sse")
    C.net_sse_init(p)
    for _ = 1, 100 do
      assert.equal(0, feed(p, ":" .. ("x"):rep(60000), {}))
    end
    assert.is_true(p.line.room < 1024)
    C.net_sse_deinit(p)
  end)

  for text, whole in pairs{
    ["data: {\"a\":\"}\"}"] = true, ["data: {\"a\":[1,{}]}\n"] = true,
    ["data:  [DONE] "] = true, ["data: {\"a\":1"] = false,
    ["data: {\"a\":\"x}"] = false, ["data: {}}"] = false, ["data: hello"] = false,
    ["data: {\"a\":\"\\"] = false, ["data: {}\ndata: {}"] = false,
    ["data: \0[DONE]"] = false, ["event: x"] = false,
  } do
    it((whole and "keeps " or "drops ") .. text .. " at the end", function()
      assert.equal(whole and 1 or 0, #parse{ text })
    end)
  end
end)
