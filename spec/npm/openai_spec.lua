-- The official `openai` package for Node talks to `drover serve` with the
-- bundled model. Skipped only where there is no npm.
local nginx = require "spec.support.nginx"

local CHECKS = { "chat", "stream_with_usage", "stream_without_usage",
                 "models_list", "unknown_model", "bad_json", "wrong_types",
                 "abort_in_mid_stream", "sixty_four_at_once" }


describe("the openai package #npm", function()
  if nginx.shell("command -v npm") == "" then
    pending("talks to drover serve (npm is not installed)")
    return
  end

  local answers

  setup(function()
    local folder = nginx.shell("pwd"):gsub("%s+$", "") .. "/build/npm"
    local server = nginx.serve()
    answers = nginx.shell("timeout 240 node spec/npm/client.cjs " .. folder
                          .. " " .. server.url .. "/v1 2>&1")
    server:stop()
  end)

  for _, name in ipairs(CHECKS) do
    it("is content with " .. name:gsub("_", " "), function()
      assert.truthy((answers .. "\n"):find("ok " .. name .. "\n", 1, true),
                    answers)
    end)
  end
end)
