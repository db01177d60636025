-- Paths and methods.
local route = require "drover.gateway.route"


describe("gateway.route", function()
  local rows = {
    { "POST", "/v1/chat/completions", "chat" },
    { "POST", "/chat/completions", "chat" },
    { "POST", "/v1/chat/completions/", "chat" },
    { "GET", "/v1/chat/completions", nil, 405 },
    { "GET", "/v1/models", "models" }, { "GET", "/v1/models/", "models" },
    { "GET", "/models", "models" }, { "HEAD", "/v1/models", "models" },
    { "GET", "/v1/models/a/b", "model", "a/b" },
    { "DELETE", "/v1/models/a", nil, 405 },
    { "GET", "/health", "health" }, { "GET", "/metrics", "metrics" },
    { "GET", "/drover/nodes", "nodes" },
    { "GET", "/v1/health", nil, 404 }, { "GET", "/", nil, 404 },
    { "POST", "/v1/embeddings", nil, 404 },
  }
  for _, row in ipairs(rows) do
    it("sends " .. row[1] .. " " .. row[2] .. " to "
       .. tostring(row[3] or row[4]), function()
      local name, argument = route.find(row[1], row[2])
      assert.equal(row[3], name)
      assert.equal(row[4], argument)
    end)
  end
end)
