-- The gateway under nginx: an HTTP request in, a router's answer out. What
-- is pure (routes, bodies, error answers, chunks) lies in gateway/*; here is
-- what says `ngx`.
--
-- A client that goes away cancels its flight: on_abort is told by nginx, a
-- failed write tells us.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local answer = require "drover.gateway.answer"
local body = require "drover.gateway.body"
local config = require "drover.gateway.config"
local drover = require "drover"
local json = require "drover.json"
local client_gone = require("drover.resty.peer").gone
local key_ring = require "drover.gateway.keys"
local resty = require "drover.resty"
local route = require "drover.gateway.route"
local sse = require "drover.gateway.sse"

local format = string.format
local exit, flush, print = ngx.exit, ngx.flush, ngx.print
local header, req = ngx.header, ngx.req
local on_abort = ngx.on_abort
local var = ngx.var

local _M = {}

local EXIT_CLOSED = 499               -- nginx's: the client is gone
local UNREAD_MAX = 32768
local settings, router, keys, started
local id_lead, id_count = nil, 0


-- ---- starting ----

-- In init_by_lua: read the configuration at `path`, make the router. `dir`
-- is the server's own folder. Raises, so that nginx keeps what it has.
function _M.init(path, dir)
  local why
  settings, why = config.read(path)
  if not settings then
    error(why, 0)
  end
  resty.folder(dir)
  local ok, made, e = pcall(drover.new, settings.router)
  why = config.wrong(ok, made, e)
  if why then
    error(path .. ": " .. why, 0)
  end
  router = made
  keys = key_ring.new(settings.keys)
  started = ngx.time()
end


function _M.init_worker()
  id_lead = format("%08x%04x", tonumber(C.drover_entropy() % 2 ^ 32),
                   ngx.worker.pid() % 65536)
  resty.init_worker()
end


-- ---- answering ----

local function send(status, text, kind)
  ngx.status = status
  header["content-type"] = kind or "application/json"
  header["content-length"] = #text
  print(text)
end


local function refuse(status, message, param, code)
  header["x-should-retry"] = "false"
  send(status, answer.body(status, message, param, code))
end


local function fail(err)
  if err.kind == "cancelled" then
    return exit(EXIT_CLOSED)
  end
  local status, text, headers = answer.from_err(err)
  for name, value in pairs(headers) do
    header[name] = value
  end
  send(status, text)
end


-- The caller's id of the request, or one of ours.
local function request_id()
  local given = body.request_id(var.http_x_request_id)
  if given then
    return given
  end
  id_count = id_count + 1
  return format("req_%s%08x", id_lead, id_count)
end


-- The body of the request, or nil, status, message.
local function read_body()
  local length = tonumber(var.content_length)
  if length and length > settings.max_body then
    return nil, 413, format("The body has %d bytes; at most %d are taken.",
                            length, settings.max_body)
  end
  req.read_body()
  local text = req.get_body_data()
  if text then
    return text
  end
  local path = req.get_body_file()    -- larger than nginx's buffer
  local file = path and io.open(path, "rb")
  if not file then
    return ""
  end
  text = file:read("*a")
  file:close()
  return text
end


-- ---- chat ----

local function answer_whole(flight)
  local reply, err = flight:reply()
  if not reply then
    return fail(err)
  end
  local text = flight.body
  if not text then
    reply.drover = nil
    text = json.encode(reply)
  end
  send(200, text)
end


-- Write what has come, all events of one wake-up in one piece. A client that
-- reads slowly is waited for each UNREAD_MAX bytes. Returns true, or nil when
-- the client is gone.
local function pass_events(stream, writer)
  local out, n, unread = {}, 0, 0
  local event = stream:next()
  while event do
    local from = n
    n = writer:add(out, n, event)
    for i = from + 1, n do
      unread = unread + #out[i]
    end
    if n > 0 and not stream:ready() then
      if not print(out) then
        return nil
      end
      if unread > UNREAD_MAX then
        if not flush(true) then
          return nil
        end
        unread = 0
      end
      out, n = {}, 0
    end
    event = stream:next()
  end
  print(out)
  return true
end


local function answer_stream(flight, usage)
  local stream, err = flight:stream()
  if not stream then
    return fail(err)
  end
  stream:pass()
  header["content-type"] = "text/event-stream; charset=utf-8"
  header["cache-control"] = "no-cache"
  header["x-accel-buffering"] = "no"
  local writer = sse.new(usage)
  if not pass_events(stream, writer) then
    stream:cancel()
    return exit(EXIT_CLOSED)
  end
  err = stream.err
  if not err then
    print(writer:finish())
  elseif err.kind == "cancelled" then
    return exit(EXIT_CLOSED)
  else
    ngx.log(ngx.WARN, "drover: a stream broke: ", tostring(err))
    print(answer.sse(err))
  end
end


-- Begin a checked request; its client's leaving cancels it. nil when that
-- was answered with an error.
local function begin(asked)
  local caller, seconds = asked.caller, asked.seconds
  local opts = caller and { key = caller.tenant, priority = caller.priority }
               or seconds and {} or nil
  if seconds then                       -- it only ever shortens
    opts.timeout = { total = math.min(seconds, router.timeout.total) }
  end
  local flight, err = router:begin(json.checked(asked.text, asked.request),
                                   opts, asked.request.stream == true)
  if not flight then
    return fail(err)
  end
  flight.call.pass = true
  flight.patience = router.timeout.total    -- ours, not the caller's
  on_abort(function() flight:cancel() end)
  if client_gone() then
    flight:abandoned()
    return exit(EXIT_CLOSED)
  end
  return flight
end


local routes = {}
local handed = {}                     -- connection -> what @stream answers


function routes.chat(_, caller)
  local text, status, message = read_body()
  if not text then
    return refuse(status, message)
  end
  local request, problem = body.read(text)
  local seconds
  if request then
    seconds, problem = body.timeout(var.http_x_request_timeout_ms)
  end
  if problem then
    return refuse(400, problem.message, problem.param, problem.code)
  end
  local asked = { text = text, request = request, caller = caller,
                  seconds = seconds }
  if request.stream == true then
    handed[var.connection] = asked
    return ngx.exec("@stream")
  end
  local flight = begin(asked)
  if flight then
    return answer_whole(flight)
  end
end


-- content_by_lua of @stream: the rest of routes.chat. nginx goes there in
-- the same turn, so nothing comes between.
function _M.stream()
  local connection = var.connection
  local asked = handed[connection]
  handed[connection] = nil
  local flight = begin(asked)
  if flight then
    local options = asked.request.stream_options
    return answer_stream(flight, options and options.include_usage == true)
  end
end


-- ---- the rest ----

function routes.models()
  send(200, body.models(router:models() or {}, started))
end


function routes.model(name)
  for _, known in ipairs(router:models() or {}) do
    if known == name then
      return send(200, body.model(name, started))
    end
  end
  refuse(404, format("The model '%s' does not exist.", name), "model",
         "model_not_found")
end


-- Whether some node can take a request now.
local function has_room()
  if not router:stats() then
    return false
  end
  local p = ffi.new("drover_pick")
  C.drover_pick_begin(router.handle, p, C.drover_clock(), 0.5)
  for i = 1, C.drover_node_count(router.handle) do
    if C.drover_pick_may(router.handle, p, i) == 1 then
      return true
    end
  end
  return false
end


function routes.health()
  if has_room() then
    return send(200, '{"status":"ok"}')
  end
  header["retry-after"] = 1
  send(503, '{"status":"no node can take a request"}')
end


function routes.metrics()
  local text, err = router:metrics()
  if not text then
    return fail(err)
  end
  send(200, text, "text/plain; version=0.0.4; charset=utf-8")
end


function routes.nodes()
  local from = var.remote_addr
  if not (from:find("^127%.") or from == "::1" or from == "unix:") then
    return refuse(404, "There is nothing at this path.")
  end
  local nodes, err = router:nodes()
  if not nodes then
    return fail(err)
  end
  send(200, json.encode{ nodes = json.array(nodes) })
end


-- content_by_lua: one request.
function _M.serve()
  header["x-request-id"] = request_id()
  local name, argument = route.find(req.get_method(), var.uri)
  if not name then
    local status = argument
    return refuse(status, status == 405 and "This path wants another method."
                  or "There is nothing at this path.")
  end
  local caller
  if keys and route.GUARDED[name] then
    caller = keys:find(var.http_authorization)
    if not caller then
      return refuse(401, "Incorrect API key provided.", nil, "invalid_api_key")
    end
  end
  return routes[name](argument, caller)
end


-- error_page: what nginx itself refused, in the same shape.
function _M.refused()
  local status = ngx.status
  header["x-request-id"] = request_id()
  refuse(status, status == 413
         and "The body is larger than " .. settings.max_body .. " bytes."
         or "nginx refused the request (" .. status .. ").")
end


return _M
