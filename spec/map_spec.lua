-- docs/MAP.md is true to the tree: it names every source file, and nothing
-- that is not there.
local ROOTS = "src lua bench examples"


local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end


-- The paths between backticks; x.{h,c} is two.
local function named()
  local paths = {}
  for word in read("docs/MAP.md"):gmatch("`([^`\n]+)`") do
    local stem, endings = word:match("^(%S+)%.{([%w,]+)}$")
    if stem then
      for ending in endings:gmatch("%w+") do
        paths[stem .. "." .. ending] = true
      end
    elseif word:find("/", 1, true) and not word:find("[%s{]") then
      paths[word] = true
    end
  end
  return paths
end


describe("docs/MAP.md", function()
  it("names what is there", function()
    for path in pairs(named()) do
      local there = os.execute("test -e " .. path)
      assert.is_true(there == 0 or there == true, path .. " is not there")
    end
  end)

  it("names every source file", function()
    local paths, missing = named(), {}
    local pipe = io.popen("find " .. ROOTS .. " -name '*.lua' -o -name '*.[ch]'"
                          .. " | sort")
    for path in pipe:lines() do
      if not paths[path] then
        missing[#missing + 1] = path
      end
    end
    pipe:close()
    assert.equal("", table.concat(missing, "\n"))
  end)
end)
