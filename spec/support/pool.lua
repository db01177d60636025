-- A router over fake servers, one for each list of replies: what specs of
-- single requests share. One at a time.
local drover = require "drover"
local testing = require "drover.testing"

local _M = { servers = {} }


function _M.request()
  return { model = "m", messages = { { role = "user", content = "hi" } } }
end


-- Nodes n1, n2, … in this order, a dollar a token; `more` goes over the
-- configuration.
function _M.over(lists, more)
  local conf = { nodes = {}, policy = "fallback", retry = { min = 0, max = 0 } }
  for i, list in ipairs(lists) do
    _M.servers[i] = testing.server(list)
    conf.nodes[i] = { id = "n" .. i, url = _M.servers[i].url,
                      price = { input = 1e6, output = 1e6 } }
  end
  for name, value in pairs(more or {}) do
    conf[name] = value
  end
  _M.router = assert(drover.new(conf))
  return _M.router
end


function _M.cleanup()
  _M.router:close()
  for i, server in pairs(_M.servers) do
    server:stop()
    _M.servers[i] = nil
  end
end


-- The value of a series of the router's metrics without labels.
function _M.metric(name)
  return tonumber(_M.router:metrics():match("\n" .. name .. " (%d+)"))
end


-- Replies of a plain chat.
function _M.chat_of(choices, usage)
  return { status = 200, body = { id = "x", choices = choices,
                                  usage = usage } }
end


function _M.says(content, usage)
  return _M.chat_of({ { index = 0, finish_reason = "stop", message = {
    role = "assistant", content = content } } }, usage)
end


return _M
