-- What drover.new takes, with values of any type at any place: a table of
-- ours or one sentence that names the field; and the gateway's file, as text.
local broken = require "spec.fuzz.lua.broken"
local config = require "drover.config"
local gateway = require "drover.gateway.config"

local FIELDS = {
  name = { "a", "" }, shared = { true, false },
  policy = { "peak_ewma", "round_robin", "nobody" },
  limits = { { rpm = 60, tpm = 1000, concurrent = 3, wait = 1,
               burst = { requests = 2, tokens = 5 }, dollars_per_day = 1,
               per = { tenant = { rpm = 5, named = { ann = { rpm = 1 } } },
                       model = { concurrent = 2 }, node = { tpm = 9 },
                       key = { rpm = false } },
               redis = { url = "redis://u:p@h:6379/0", hosts = 3, lease = 2,
                         prefix = "p" } } },
  retry = { { attempts = 3, min = 0.1, max = 2, ambiguous = "once" } },
  timeout = { 5, { total = 5, connect = 1 } },
  queue = { { size = 10, hold = 2 } },
}
local NODE = {
  id = { "n", "m" }, url = { "http://127.0.0.1:1/v1", "https://a.b/v1",
                             "unix:/tmp/x.sock:/v1", "ftp://x" },
  key = { "sk-x" }, keys = { { "a", "b" } }, models = { { "m" }, { m = "x" } },
  capacity = { 5 }, weight = { 2 }, tier = { 1 },
  price = { { input = 1, output = 2 } },
  limits = { { rpm = 5 }, { dollars_per_day = 1 } },
}
local TEXT = [[
return {
  listen = "127.0.0.1:8000", workers = 2, max_body = 65536,
  router = { nodes = { { id = "a", url = "http://127.0.0.1:1/v1" } },
             limits = { rpm = 60, per = { tenant = { rpm = 5 } } } },
  keys = { { key = "secret-key-1", name = "ann", limits = { rpm = 3 } } },
}
]]
local LOOPS = { "while true do end", "repeat until false",
                "local s = ('x'):rep(1e9) return {}", "return setmetatable({}, "
                .. "{})", "error({})", "error()", "return ...", "return 1, 2" }

local _M = {}


-- One value of those, or anything, here or somewhere inside it.
local function filled(chance, fields)
  local out = {}
  for name, values in pairs(fields) do
    if chance:one_in(3) then
      local value = chance:choose(values)
      if chance:one_in(5) then
        value = broken.value(chance, 2)
      elseif type(value) == "table" and chance:one_in(2) then
        local copy = {}
        for k, v in pairs(value) do
          copy[k] = v
          if chance:one_in(4) then copy[k] = broken.value(chance, 2) end
        end
        value = copy
      end
      out[name] = value
    end
  end
  if chance:one_in(10) then
    local key = broken.value(chance, 0)
    if key ~= nil and key == key then out[key] = broken.value(chance, 1) end
  end
  return out
end


function _M.make(chance)
  local conf = filled(chance, FIELDS)
  conf.nodes = {}
  for i = 1, chance:below(3) do
    conf.nodes[i] = filled(chance, NODE)
  end
  if chance:one_in(12) then conf.nodes = broken.value(chance, 2) end
  local text = TEXT
  if chance:one_in(1000) then text = chance:choose(LOOPS) end
  return { conf = conf, text = broken.text(chance, text),
           given = filled(chance, { listen = { ":80", 8000, "x" },
             workers = { 1, 2 }, router = { { nodes = {} } }, max_body = { 1e6 },
             keys = { { { key = "12345678" } } }, mode = { "client" } }) }
end


local function sentence(why, what)
  assert(type(why) == "string" and why ~= "", what .. ": no reason")
  assert(not why:find("attempt to", 1, true), what .. ": " .. why)
end


function _M.check(input)
  local out, why = config.read(input.conf)
  if not out then
    sentence(why, "config.read")
  else
    assert(type(out.rows) == "table" and type(out.limits) == "table", "config")
    assert(out.retry.max >= out.retry.min, "retry")
    assert(out.timeout.total > 0, "timeout")
  end
  out, why = gateway.parse(input.text, "file")
  if not out then
    assert(type(why) == "string" and why ~= "", "gateway.parse: no reason")
  end
  out, why = gateway.check(input.given)
  if not out then sentence(why, "gateway.check") end
end


return _M
