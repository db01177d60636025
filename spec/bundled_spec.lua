-- The model that comes with Drover is found wherever Drover is.
local bundled = require "drover.bundled"


describe("drover.bundled", function()
  it("finds the model in a checkout", function()
    local path = assert(bundled.path())
    local file = assert(io.open(path, "rb"))
    local magic = file:read(4)
    file:close()
    assert.equal("GGUF", magic)
  end)
end)
