-- Bytes laid against a page that may not be touched: who reads one byte past
-- the end dies at once, with or without a sanitizer.
local ffi = require "ffi"

require("spec.support.c").cdef[[
void *mmap(void *at, size_t size, int prot, int flags, int fd, long offset);
int mprotect(void *at, size_t size, int prot);
int munmap(void *at, size_t size);
]]

local PAGE = 4096
local NONE, READ, WRITE = 0, 1, 2
local PRIVATE, ANONYMOUS = 2, 32

local _M = {}
local mt = { __index = {} }


-- Room for `max` bytes, before the page.
function _M.new(max)
  local pages = math.ceil(max / PAGE)
  local size = (pages + 1) * PAGE
  local at = ffi.C.mmap(nil, size, READ + WRITE, PRIVATE + ANONYMOUS, -1, 0)
  assert(at ~= ffi.cast("void *", -1), "mmap")
  local base = ffi.cast("char *", at)
  assert(ffi.C.mprotect(base + pages * PAGE, PAGE, NONE) == 0, "mprotect")
  ffi.gc(at, function() ffi.C.munmap(at, size) end)
  return setmetatable({ keep = at, stop = base + pages * PAGE, max = max }, mt)
end


-- A copy of `text` that ends where the page begins; holds until the next.
function mt.__index:put(text)
  assert(#text <= self.max)
  local at = self.stop - #text
  ffi.copy(at, text, #text)
  return at, #text
end


return _M
