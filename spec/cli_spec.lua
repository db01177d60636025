-- The command line.
local args = require "drover.cli.args"

local FLAGS = { port = "a number", help = true }


describe("cli.args", function()
  it("reads flags in both spellings, and words", function()
    local a = assert(args.parse({ "--port", "1", "hi" }, FLAGS, 1))
    assert.equal("1", a.port)
    assert.same({ "hi" }, a.words)
    assert.equal("2", assert(args.parse({ "--port=2" }, FLAGS, 0)).port)
    assert.is_true(assert(args.parse({ "-h" }, FLAGS, 0)).help)
    assert.same({ "--x" }, assert(args.parse({ "--", "--x" }, FLAGS, 1)).words)
  end)

  for _, row in ipairs{
    { { "--nope" }, "unknown flag %-%-nope" }, { { "-x" }, "unknown flag %-x" },
    { { "--port" }, "%-%-port wants a number" },
    { { "--help=1" }, "takes no value" },
    { { "--port", "1", "--port", "2" }, "given twice" },
    { { "a", "b" }, "unexpected word: b" },
  } do
    it("refuses " .. table.concat(row[1], " "), function()
      local a, why = args.parse(row[1], FLAGS, 1)
      assert.is_nil(a)
      assert.matches(row[2], why)
    end)
  end
end)
