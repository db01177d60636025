-- Grammars for specs: a schema's automaton, fed text.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct engine_grammar;
struct engine_state { uint32_t count; struct { uint32_t op, stack; } thread[64]; };
int engine_grammar_new(struct engine_grammar **out, const char *json, size_t size, drover_err *err);
void engine_grammar_free(struct engine_grammar *g);
void engine_grammar_start(struct engine_grammar *g, struct engine_state *to);
uint32_t engine_grammar_step(struct engine_grammar *g, const struct engine_state *from,
  unsigned char byte, struct engine_state *to);
int engine_grammar_done(const struct engine_state *s);
int engine_grammar_tidy(struct engine_grammar *g, struct engine_state *s);
long mem_live(void);
]]

local C = c.lib
local _M = {}
local mt = {}
mt.__index = mt


-- Of a schema's JSON text; nil: any object. Or nil, text, code.
function _M.new(schema)
  local out, err = ffi.new("struct engine_grammar *[1]"), ffi.new("drover_err")
  local rc = C.engine_grammar_new(out, schema, schema and #schema or 0, err)
  if rc ~= 0 then
    return nil, ffi.string(err.text), rc
  end
  return setmetatable({ at = out[0] }, mt)
end


function mt:free()
  C.engine_grammar_free(self.at)
end


function mt:start()
  local state = ffi.new("struct engine_state")
  C.engine_grammar_start(self.at, state)
  return state
end


-- The state behind a byte, or nil where it cannot follow.
function mt:step(state, byte)
  local to = ffi.new("struct engine_state")
  return C.engine_grammar_step(self.at, state, byte, to) > 0 and to or nil
end


function mt:tidy(state)
  if C.engine_grammar_tidy(self.at, state) == 1 then
    self.tidied = true
  end
end


-- Whether a text is a whole value.
function mt:takes(text)
  local state = self:start()
  for i = 1, #text do
    state = self:step(state, text:byte(i))
    if not state then
      return false
    end
  end
  return C.engine_grammar_done(state) > 0
end


return _M
