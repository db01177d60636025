-- docs/FAULTS.md has a line for each of the rows 1 to 80, and the spec that it
-- names has the row; few rows may be named as not tested.
local nginx = require "spec.support.nginx"

local ROWS = 80
local HTTP2 = { [49] = true, [50] = true, [51] = true }
local OTHERS_MAX = 3


-- The lines of the table: row -> its last column.
local function rows()
  local text = nginx.read("docs/FAULTS.md"):match("\n## The matrix\n(.*)$")
  local list = {}
  for row, spec in text:gmatch("\n| (%d+) |[^\n]*| ([^|\n]*) |") do
    row = tonumber(row)
    assert.is_nil(list[row], "row " .. row .. " is there twice")
    list[row] = spec
  end
  return list, text
end


-- Does a spec have this row, in a name or in a table of rows?
local function has(text, row)
  for _, before in ipairs{ "row ", "rows [%d, ]*", "row = ", "limited%(" } do
    if text:find(before .. row .. "%f[^%d][,: ]") then
      return true
    end
  end
  return false
end


describe("the fault matrix in docs/FAULTS.md", function()
  local list, text = rows()

  for row = 1, ROWS do
    it("has row " .. row, function()
      local column = list[row]
      assert.truthy(column, "no line for row " .. row)
      local named = 0
      for path in column:gmatch("`([^`]+)`") do
        named = named + 1
        assert.is_true(has(nginx.read(path), row),
                       path .. " has no row " .. row)
      end
      if named == 0 then
        assert.equal("not tested", column)
      end
    end)
  end

  it("names few rows as not tested, and says why", function()
    local others = 0
    local why = text:match("\nNot tested, and why: (.-)\n*$")
    for row, column in pairs(list) do
      if column == "not tested" then
        others = others + (HTTP2[row] and 0 or 1)
        assert.truthy(why:find("%f[%d]" .. row .. "%f[^%d]"), row)
      end
    end
    assert.is_true(others <= OTHERS_MAX)
  end)

  it("would miss a row that is not there", function()
    assert.is_false(has('it("row 61: x"', 6))
    assert.is_false(has("{ row = 16, x }", 6))
    assert.is_true(has("{ row = 16, x }", 16))
    assert.is_true(has('it("rows 68, 69: x"', 69))
  end)
end)
