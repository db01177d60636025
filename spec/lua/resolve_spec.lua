-- Names as addresses, as the system knows them.
local resolve = require "drover.resty.resolve"


describe("a name", function()
  it("that is an address stays one", function()
    assert.equal("127.0.0.1", resolve("127.0.0.1"))
    assert.equal("[::1]", resolve("::1"))
  end)

  it("of this machine is found", function()
    local address = resolve("localhost")
    assert.is_true(address == "127.0.0.1" or address == "[::1]", address)
  end)

  it("that nobody knows stays as it is", function()
    assert.equal("no-such-host.invalid", resolve("no-such-host.invalid"))
  end)
end)
