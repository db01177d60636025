-- Vocabularies of the C library for specs: a file opened without its tensors,
-- texts to ids and back.
local ffi = require "ffi"
local c = require "spec.support.c"

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
]]

local _M = {}
local mt = { __index = {} }


-- A vocabulary out of a file: nil and the text when it is refused.
function _M.open(path, lib)
  lib = lib or c.lib
  local err = ffi.new("drover_err")
  local g = ffi.new("struct engine_gguf *[1]")
  local v = ffi.new("struct engine_vocab *[1]")
  assert(lib.engine_gguf_open(g, path, err) == 0, ffi.string(err.text))
  local rc = lib.engine_vocab_new(v, g[0], err)
  lib.engine_gguf_close(g[0])
  if rc ~= 0 then
    return nil, ffi.string(err.text)
  end
  return setmetatable({ lib = lib, at = ffi.gc(v[0], lib.engine_vocab_free) }, mt)
end


-- The same of a .gz; `pre`: as if the file named that pre-tokenizer (nil when
-- there is none such).
function _M.open_packed(path, pre, lib)
  lib = lib or c.lib
  local row = pre and lib.engine_pre_find(pre, #pre)
  if pre and row == nil then
    return nil, pre
  end
  local plain = os.tmpname()
  assert(os.execute(("gzip -dc '%s' > '%s'"):format(path, plain)) == 0)
  local v, why = _M.open(plain, lib)
  os.remove(plain)
  if v and pre then
    v.at.pre = row
  end
  return v, why
end


-- The ids of a text, as a list.
function mt.__index:encode(text, special)
  local err, ids = ffi.new("drover_err"), ffi.new("struct engine_ids")
  local span = ffi.new("struct engine_span", #text, special and 1 or 0)
  local p = ffi.new("struct engine_prompt", text, #text, span, 1)
  local rc = self.lib.engine_vocab_encode(self.at, p, 0, ids, err)
  assert(rc == 0, ffi.string(err.text))
  local out = {}
  for i = 1, tonumber(ids.count) do
    out[i] = ids.at[i - 1]
  end
  self.lib.engine_ids_deinit(ids)
  return out
end


-- The bytes of ids, one after the other.
function mt.__index:join(ids)
  local to, out = ffi.new("char[65536]"), {}
  for i, id in ipairs(ids) do
    out[i] = ffi.string(to, self.lib.engine_vocab_piece(self.at, id, to))
  end
  return table.concat(out)
end


return _M
