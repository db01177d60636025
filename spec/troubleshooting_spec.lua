-- docs/TROUBLESHOOTING.md shows each error as it is printed. Its blocks are
-- run by docs_spec.lua; here its texts are compared.
local drover = require "drover"
local source = require "spec.support.source"
local testing = require "drover.testing"

local PAGE = source.read("docs/TROUBLESHOOTING.md")
local MODEL = require("drover.bundled").path()
local ASK = { messages = { { role = "user", content = "Hi" } } }


-- The line that the page has under "You see" for this text: numbers and file
-- names may differ.
local function shown(text)
  local function shape(line)
    return (line:gsub("%S+%.gguf", "FILE.gguf"):gsub("%d+%.?%d*", "N"))
  end
  local wanted = shape(text)
  for block in PAGE:gmatch("```text\n(.-)```") do
    for line in block:gmatch("[^\n]+") do
      if shape(line) == wanted then return true end
    end
  end
  return false
end


-- What a router of this configuration says; `replies` make its one node.
local function said(conf, replies, ask)
  local server = replies and testing.server(replies)
  if server then
    conf.nodes = { { id = conf.id, url = server.url, price = conf.price } }
    conf.id, conf.price = nil, nil
  end
  local ok, router, err = pcall(drover.new, conf)
  local text = not ok and router or router == nil and tostring(err)
  if not text then
    local reply, failed = (ask or function() return router:chat(ASK) end)(router)
    text = reply and "an answer" or tostring(failed)
    router:close()
  end
  if server then server:stop() end
  return (text:gsub("^%S+%.lua:%d+: ", ""))
end


local function twice(router)
  local opts = { key = "ann" }
  router:chat(ASK, opts)
  return router:chat(ASK, opts)
end


local FULL = { code = "rate_limit_exceeded", headers = { ["retry-after"] = "0" } }
local CLOUD = "https://cloud.invalid/v1"

local rows = {
  { "a missing variable",
    { nodes = { { url = CLOUD, key = { env = "MY_API_KEY" } } } } },
  { "a missing key", { nodes = { { url = CLOUD } } } },
  { "a refused key", { id = "cloud" },
    { testing.error(401, "Incorrect", { code = "invalid_api_key" }) } },
  { "a late first token", { id = "gpu-0", timeout = { first_token = 0.1, total = 2 } },
    { { hold = true } }, function(router) return router:stream(ASK) end },
  { "a late answer", { id = "gpu-0", timeout = { total = 0.2 } }, { { hold = true } } },
  { "a long prompt", { id = "gpu-0" },
    { testing.error(400, "This model's maximum context length is 8 tokens",
                    { code = "context_length_exceeded" }) } },
  { "a server without memory", { id = "gpu-0" },
    { testing.error(500, "CUDA out of memory") } },
  { "a long prompt for a local model",
    { nodes = { { url = "local:" .. MODEL, context = 64 } } }, nil,
    function(router)
      return router:chat{ messages = { { role = "user",
                                         content = ("word "):rep(200) } } }
    end },
  { "a local model without memory",
    { nodes = { { url = "local:" .. MODEL, memory_cap_gb = 0.001 } } } },
  { "a node's 429", { id = "cloud" }, { testing.error(429, "Slow down", FULL) } },
  { "a tenant's rate", { id = "cloud", limits = { per = { tenant = { rpm = 1 } } } },
    { testing.reply "Yes." }, twice },
  { "dollars",
    { id = "cloud", price = 1e6, limits = { dollars_per_day = 1 } },
    { testing.reply "Yes." }, twice },
}


describe("docs/TROUBLESHOOTING.md", function()
  for _, row in ipairs(rows) do
    it("shows what is said of " .. row[1], function()
      local text = said(row[2], row[3], row[4])
      assert.is_true(shown(text), text)
    end)
  end
end)
