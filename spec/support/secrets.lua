-- What secrets_spec.lua runs: much of the fault matrix with words that occur
-- nowhere else in keys, prompts, replies and headers.
local hex = require("spec.support.fault_server").hex
local nginx = require "spec.support.nginx"

local _M = {}

-- The fault server's reply is another word than the prompt.
_M.CANARIES = {
  key = "sk-zq7Knodekeyzq7", tenant = "sk-zq7Ktenantkeyzq7",
  prompt = "zq7Kpromptzq7", reply = "zq7Kreplyzq7",
  header = "zq7Kheaderzq7",
}

local SAY = ";say=" .. hex(_M.CANARIES.reply)

_M.FAULTS = {
  "ok" .. SAY, "reset=0", "close=0", "reset=250" .. SAY,
  "ok;after=2;rst" .. SAY, "ok;after=2;cut" .. SAY, "ok;after=0;cut",
  "ok;after=2;error" .. SAY,
  "ok;after=1;hold" .. SAY, "ok;nodone;nofinish" .. SAY, "stall", "short",
  "length=9" .. SAY, "badchunk", "json=broken;after=1" .. SAY, "html", "whole"
  .. SAY, "error200=502", "error200=401", "json=object", "json=nochoices",
  "ok;usage=string" .. SAY, "status=400", "status=401", "status=402",
  "status=404", "status=408", "status=413", "status=429", "status=429;ra=1",
  "status=500", "status=503", "status=529", "status=666", "junk",
  "interim=9", "lines=5001", "gzip", "endless", "redirect=PORT",
  "echo", "seen",
}


-- `echo` and `seen` are nodes that say the request again, its key too: what
-- they say is not shown to anybody.
function _M.nodes(url, decoy)
  local list = {}
  for i, fault in ipairs(_M.FAULTS) do
    list[i] = {
      id = "n" .. i, models = { "m" .. i }, key = _M.CANARIES.key,
      url = url .. "/f/" .. fault:gsub("PORT", decoy) .. "/v1",
    }
  end
  return list
end


function _M.gateway(url, decoy)
  local nodes = {}
  for i, n in ipairs(_M.nodes(url, decoy)) do
    nodes[i] = ("{ id = %q, url = %q, key = %q, models = { %q } }"):format(
      n.id, n.url, n.key, n.models[1])
  end
  return ([[return { workers = 1,
    keys = { { key = %q, name = "ann" } },
    router = {
      retry = { min = 0, max = 0.01 },
      timeout = { total = 2, first_token = 0.2, idle = 0.2 },
      nodes = { %s } } }]]):format(_M.CANARIES.tenant,
                                   table.concat(nodes, ",\n"))
end


-- Each fault as a chat and as a stream; what callers saw, heads and bodies.
function _M.through_gateway(url)
  local seen = {}
  for i = 1, #_M.FAULTS do
    for _, stream in ipairs{ "false", "true" } do
      local _, text, head = nginx.post(url .. "/v1/chat/completions",
        ('{"model":"m%d","stream":%s,"messages":[{"role":"user","content":'
         .. '"%s"}]}'):format(i, stream, _M.CANARIES.prompt),
        ("-H 'authorization: Bearer %s' -H 'x-mine: %s' -H 'cookie: %s'")
          :format(_M.CANARIES.tenant, _M.CANARIES.header, _M.CANARIES.header))
      seen[#seen + 1] = head .. text
    end
  end
  return table.concat(seen, "\n")
end


return _M
