-- The engine for specs, step by step and without its thread: LuaJIT cannot
-- take a callback on a foreign thread.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct engine;
typedef void (*engine_emit_fn)(void *ctx, const drover_event *ev);
int engine_open(struct engine **out, const drover_engine_config *c, drover_err *err);
void engine_close(struct engine *e);
void engine_describe(struct engine *e, drover_engine_info *out);
void engine_busy(struct engine *e, drover_engine_load *out);
int engine_queue(struct engine *e, const drover_generate *g, engine_emit_fn emit,
  void *ctx, uint64_t *id, drover_err *err);
int engine_turn(struct engine *e, int64_t now_ns);
void engine_cancel(struct engine *e, uint64_t id);
long engine_tokens(struct engine *e, const char *text, size_t size);
long engine_encode(struct engine *e, const drover_text *text, int special,
  int bos, int32_t *ids, size_t cap);
int engine_logits(struct engine *e, const int32_t *ids, size_t count,
  float *logits, drover_err *err);
double engine_sample_logprob(const float *logits, uint32_t count, int32_t id);
]]

local _M = {}
local mt = { __index = {} }
local engine = mt.__index

local opened = {}                  -- to be closed by close_all

-- Strings that a struct points at live as long as their struct.
local anchors = setmetatable({}, { __mode = "k" })


local function text(owner, t)
  table.insert(owner, t)
  return ffi.new("drover_text", t, #t)
end


-- A drover_generate from a table of its fields; strings are Lua's.
function _M.request(fields)
  local g, held = ffi.new("drover_generate"), {}
  g.call, g.top_p = fields.call or 1, 1
  for k, v in pairs(fields) do
    if k == "prompt" or k == "schema" then
      g[k] = text(held, v)
    elseif k == "messages" then
      local list = ffi.new("drover_message[?]", #v + 1)
      for i, m in ipairs(v) do
        list[i - 1].role, list[i - 1].content = text(held, m.role), text(held, m.content)
      end
      table.insert(held, list)
      g.messages, g.messages_count = list, #v
    elseif k == "stop" then
      local list = ffi.new("drover_text[?]", #v + 1)
      for i, s in ipairs(v) do
        list[i - 1] = text(held, s)
      end
      table.insert(held, list)
      g.stop, g.stop_count = list, #v
    elseif k == "bias" then            -- { [token] = bias }
      local list, n = ffi.new("drover_bias[2000]"), 0
      for id, bias in pairs(v) do
        list[n].token, list[n].bias = id, bias
        n = n + 1
      end
      table.insert(held, list)
      g.bias, g.bias_count = list, n
    elseif k == "stop_id" then
      local list = ffi.new("int32_t[?]", #v + 1, v)
      table.insert(held, list)
      g.stop_id, g.stop_id_count = list, #v
    else
      g[k] = v
    end
  end
  anchors[g] = held
  return g
end


-- Open a file; nil, text, code when it is refused. `lib` is the test library
-- unless said otherwise.
function _M.open(path, config, lib)
  lib = lib or c.lib
  local err, out = ffi.new("drover_err"), ffi.new("struct engine *[1]")
  local cfg = ffi.new("drover_engine_config", config or {})
  cfg.path = path
  local rc = lib.engine_open(out, cfg, err)
  if rc ~= 0 then
    assert(err.code == rc and out[0] == nil)
    return nil, ffi.string(err.text), rc
  end
  local self = setmetatable({ lib = lib, at = out[0], replies = {} }, mt)
  self.emit = ffi.cast("engine_emit_fn", function(_, ev)
    self:take(ev)
  end)
  local info = ffi.new("drover_engine_info")
  lib.engine_describe(self.at, info)
  self.info, self.vocab = info, info.vocab
  opened[#opened + 1] = self
  return self
end


function engine:close()
  if self.at then
    self.lib.engine_close(self.at)
    self.emit:free()
    self.at = nil
  end
end


-- For after_each: a spec that failed closes nothing itself.
function _M.close_all()
  for _, e in ipairs(opened) do
    e:close()
  end
  opened = {}
end


-- Gather events: replies[call] = { text, pieces, vector (its bytes), finish, … }
-- once it ends.
function engine:take(ev)
  local r = self.replies[ev.call] or { pieces = {} }
  self.replies[ev.call] = r
  assert(not r.ended, "an event behind the end")
  if ev.type == c.lib.DROVER_EVENT_TEXT then
    local piece = ffi.string(ev.data, ev.data_size)
    r.pieces[#r.pieces + 1] = piece
    r.texts = r.texts or {}
    r.texts[ev.choice] = (r.texts[ev.choice] or "") .. piece
    if ev.logprobs_size > 0 then
      r.logprobs = (r.logprobs and r.logprobs .. "," or "")
        .. ffi.string(ev.logprobs, ev.logprobs_size)
    end
  elseif ev.type == c.lib.DROVER_EVENT_VECTOR then
    r.vector = ffi.string(ev.data, ev.data_size)
  elseif ev.type == c.lib.DROVER_EVENT_CHOICE then
    r.choices = r.choices or {}
    r.choices[ev.choice] = ev.finish
  elseif ev.type == c.lib.DROVER_EVENT_END then
    r.finish, r.prompt_tokens = ev.finish, ev.prompt_tokens
    r.completion_tokens = ev.completion_tokens
  else
    r.code, r.phase = ev.code, ev.phase
    r.why = ffi.string(ev.data, ev.data_size)
  end
  if ev.type == c.lib.DROVER_EVENT_CHOICE
     or ev.type == c.lib.DROVER_EVENT_END then
    r.ends = r.ends or {}              -- how each choice has ended
    r.ends[ev.choice] = ev.finish
  end
  r.ended = ev.type == c.lib.DROVER_EVENT_END
    or ev.type == c.lib.DROVER_EVENT_FAIL
  r.text = table.concat(r.pieces)
  if self.on_event then
    self.on_event(ev)
  end
end


-- Queue a request: its id, or nil, text, code.
function engine:queue(fields)
  local err, id = ffi.new("drover_err"), ffi.new("uint64_t[1]")
  local g = _M.request(fields)
  local rc = self.lib.engine_queue(self.at, g, self.emit, nil, id, err)
  if rc ~= 0 then
    return nil, ffi.string(err.text), rc
  end
  return id[0]
end


function engine:turn(now_ns)
  return self.lib.engine_turn(self.at, now_ns or 1)
end


-- A compiled call into C may not call back.
jit.off(engine.turn)
jit.off(engine.close)


function engine:busy()
  local load = ffi.new("drover_engine_load")
  self.lib.engine_busy(self.at, load)
  return load
end


-- Turn until nothing is left to do; returns the turns.
function engine:drain()
  local turns = 0
  while self:turn() > 0 do
    turns = turns + 1
    assert(turns < 100000)
  end
  return turns
end


-- One request alone, to its end.
function engine:ask(fields)
  assert(self:queue(fields))
  self:drain()
  local r = self.replies[fields.call or 1]
  self.replies[fields.call or 1] = nil
  return r
end


-- Token ids of a text, as a list.
function engine:encode(t, special, bos)
  local span = ffi.new("drover_text", t, #t)
  local room = 4 * #t + 16
  local ids = ffi.new("int32_t[?]", room)
  local n = tonumber(self.lib.engine_encode(self.at, span, special and 1 or 0,
                                            bos and 1 or 0, ids, room))
  if n < 0 then
    return nil, n
  end
  local out = {}
  for i = 1, n do
    out[i] = ids[i - 1]
  end
  return out
end


-- Logits after each of the ids: float[count][vocab].
function engine:logits(ids)
  local n, err = #ids, ffi.new("drover_err")
  local out = ffi.new("float[?]", n * self.vocab)
  local rc = self.lib.engine_logits(self.at, ffi.new("int32_t[?]", n, ids), n,
                                    out, err)
  assert(rc == 0, ffi.string(err.text))
  return out
end


function engine:logprob(row, id)
  return self.lib.engine_sample_logprob(row, self.vocab, id)
end


return _M
