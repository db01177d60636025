-- Which answer a path and method ask for. Knows no server.
--
-- SPDX-License-Identifier: MIT
local _M = {}


-- Returns the route's name and its argument, or nil, status. Every API path
-- stands with and without /v1, and a slash at the end is forgiven.
function _M.find(method, path)
  local get = method == "GET" or method == "HEAD"
  if path == "/v1/chat/completions" or path == "/chat/completions" then
    if method == "POST" then return "chat" end
    return nil, 405
  end
  if path:sub(-1) == "/" and #path > 1 then path = path:sub(1, -2) end
  local plain = path:sub(1, 4) == "/v1/" and path:sub(4) or path
  local name, argument = nil, nil
  if plain == "/chat/completions" then
    if method == "POST" then return "chat" end
    return nil, 405
  elseif plain == "/models" then
    name = "models"
  elseif plain:sub(1, 8) == "/models/" then
    name, argument = "model", plain:sub(9)
  elseif path == "/health" or path == "/metrics" then
    name = path:sub(2)
  elseif path == "/drover/nodes" then
    name = "nodes"
  end
  if not name then return nil, 404 end
  if not get then return nil, 405 end
  return name, argument
end


-- Routes that a caller's key guards.
_M.GUARDED = { chat = true, models = true, model = true }


return _M
