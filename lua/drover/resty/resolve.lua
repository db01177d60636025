-- A host's name as an address, asked of the system (/etc/hosts, DNS, search
-- domains) as nginx does for its own configuration: while it starts or reloads,
-- where waiting is allowed. Linux's struct addrinfo.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"

local NUMERIC_HOST, TEXT_MAX = 1, 64
local SOCK_STREAM = 1

if not pcall(ffi.typeof, "struct drover_addrinfo") then
  ffi.cdef [[
    struct drover_addrinfo {
      int flags, family, socktype, protocol;
      uint32_t addrlen;
      void *addr;
      char *canonname;
      struct drover_addrinfo *next;
    };
    int drover_getaddrinfo(const char *name, const char *service,
                           const struct drover_addrinfo *hints,
                           struct drover_addrinfo **out)
      __asm__("getaddrinfo");
    void drover_freeaddrinfo(struct drover_addrinfo *list)
      __asm__("freeaddrinfo");
    int drover_getnameinfo(const void *addr, uint32_t addrlen, char *host,
                           uint32_t host_size, char *service,
                           uint32_t service_size, int flags)
      __asm__("getnameinfo");
  ]]
end


-- The first address of a name, IPv6 in brackets; the name when there is none.
return function(name)
  local hints = ffi.new("struct drover_addrinfo", { socktype = SOCK_STREAM })
  local out = ffi.new("struct drover_addrinfo *[1]")
  if ffi.C.drover_getaddrinfo(name, nil, hints, out) ~= 0 then
    return name
  end
  local text = ffi.new("char[?]", TEXT_MAX)
  local failed = ffi.C.drover_getnameinfo(out[0].addr, out[0].addrlen, text,
                                          TEXT_MAX, nil, 0, NUMERIC_HOST)
  ffi.C.drover_freeaddrinfo(out[0])
  if failed ~= 0 then
    return name
  end
  local address = ffi.string(text)
  return address:find(":", 1, true) and "[" .. address .. "]" or address
end
