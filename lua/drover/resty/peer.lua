-- Has this request's client gone already? nginx tells on_abort of what comes
-- after it is set. A client that closes in the same breath as it sends is not
-- told of: the end of its stream was taken from the kernel together with the
-- request (edge-triggered epoll; proxy_pass looks for it, the Lua module does
-- not). So the connection is asked once.
--
-- Only the first words of nginx's structs are read: a request starts with the
-- signature "HTTP" and its connection, a connection with three pointers and
-- its descriptor, in every nginx 1.x. The descriptor counts only when the
-- other end's port is the one that nginx knows.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local get_request = require("resty.core.base").get_request

local SIGNATURE = 0x50545448          -- NGX_HTTP_MODULE, "HTTP"

local var = ngx.var

local _M = {}

if not pcall(ffi.typeof, "struct drover_ngx_request") then
  ffi.cdef [[
    struct drover_ngx_connection {
      void *data, *read, *write;
      int fd;
    };
    struct drover_ngx_request {
      uint32_t signature;
      struct drover_ngx_connection *connection;
    };
  ]]
end

local request_t = ffi.typeof("struct drover_ngx_request *")


function _M.gone()
  local request = ffi.cast(request_t, get_request())
  if request == nil or request.signature ~= SIGNATURE then
    return false
  end
  return C.drover_peer_gone(request.connection.fd,
                            tonumber(var.remote_port) or 0) == 1
end


return _M
