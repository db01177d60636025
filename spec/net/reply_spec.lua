-- net/reply: what counts as a sign of life in a stream, on a made clock. What
-- replies come to is in call_spec.lua.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct spec_buf { char *at; size_t size, room, cap; };
struct spec_sse {
  struct spec_buf line, data, name, id, last_id;
  uint64_t events, comments;
  int failed;
  char started, after_cr, skipping, given;
};
struct net_out { int (*push)(void *user, const drover_event *ev); void *user; };
struct net_reply {
  struct net_out out;
  struct spec_buf head, body;
  struct spec_sse sse;
  size_t body_max, head_bytes, head_lines, interim;
  uint64_t bytes;
  int64_t event_ns, comment_ns;
  int status, head_done, streaming, encoded, heard;
  drover_err err;
};
void net_reply_init(struct net_reply *r, struct net_out out, size_t body_max);
void net_reply_deinit(struct net_reply *r);
int net_reply_line(struct net_reply *r, const char *line, size_t size);
int net_reply_bytes(struct net_reply *r, const char *bytes, size_t size,
                    int64_t now_ns);
]]

local C = c.lib

jit.off()                       -- compiled code must not be called back


describe("a stream's signs of life", function()
  local reply, push, events

  before_each(function()
    events = 0
    push = ffi.cast("int (*)(void *, const drover_event *)", function(_, ev)
      events = events + (ev.type == C.DROVER_EVENT_SSE and 1 or 0)
      return 0
    end)
    reply = ffi.new("struct net_reply")
    C.net_reply_init(reply, ffi.new("struct net_out", { push, nil }), 0)
    for _, line in ipairs { "HTTP/1.1 200 OK\r\n",
                            "Content-Type: text/event-stream\r\n", "\r\n" } do
      assert.equal(0, C.net_reply_line(reply, line, #line))
    end
  end)

  after_each(function()
    C.net_reply_deinit(reply)
    push:free()
  end)

  -- Feed at `now`; when the last event and the last comment came.
  local function at(now, text)
    assert.equal(0, C.net_reply_bytes(reply, text, #text, now))
    return { tonumber(reply.event_ns), tonumber(reply.comment_ns) }
  end

  it("are whole events with data, and whole comments", function()
    assert.same({ 1, 0 }, at(1, "data: a\n\n"))
    assert.same({ 1, 0 }, at(2, "data: b"))
    assert.same({ 1, 0 }, at(3, "c\nid: 5\n"))
    assert.same({ 4, 0 }, at(4, "\n"))
    assert.same({ 4, 0 }, at(5, "\n\nevent: x\n\n"))
    assert.same({ 4, 0 }, at(6, ": pi"))
    assert.same({ 4, 7 }, at(7, "ng\n"))
    assert.same({ 4, 7 }, at(8, "retry: 5\n\n"))
    assert.same({ 9, 9 }, at(9, ":\n\ndata: d\n\n"))
    assert.equal(3, events)
  end)

  it("are none in an endless comment or event", function()
    for now = 1, 50 do
      assert.same({ 0, 0 }, at(now, now == 1 and ":" or ("x"):rep(1000)))
    end
    assert.same({ 0, 51 }, at(51, "\n"))
    for now = 52, 99 do
      assert.same({ 0, 51 }, at(now, "data: x\n"))
    end
    assert.same({ 100, 51 }, at(100, "\n"))
  end)
end)
