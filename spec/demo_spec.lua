-- The demo in its short form: three servers, sixty prompts, one server
-- killed on the way. `make demo` runs all of them.
local PROMPTS = "examples/demo/prompts.txt"
local SHORT = 60      -- so many that some are first asked behind the kill


local function lines_of(path)
  local list = {}
  for line in io.lines(path) do
    list[#list + 1] = line
  end
  return list
end


-- A shell command without the sanitizers of this process: its output, its
-- exit status.
local function run(command)
  local pipe = io.popen("exec 2>&1; env -u LD_PRELOAD -u MAKEFLAGS -u MFLAGS "
                        .. command .. "; echo \"exit $?\"")
  local text = pipe:read("*a")
  pipe:close()
  return text, tonumber(text:match("exit (%d+)%s*$"))
end


describe("the demo's prompts", function()
  it("are 200 different lines that fit the model", function()
    local list, seen = lines_of(PROMPTS), {}
    assert.equal(200, #list)
    for _, prompt in ipairs(list) do
      assert.is_nil(seen[prompt])
      assert.is_true(#prompt > 0 and #prompt <= 200)
      seen[prompt] = true
    end
  end)
end)


describe("the demo", function()
  it("is a program of less than 60 lines", function()
    assert.is_true(#lines_of("examples/demo/demo.lua") < 60)
  end)

  it("answers all though a server is killed on the way", function()
    local list, short = lines_of(PROMPTS), os.tmpname()
    local file = assert(io.open(short, "w"))
    file:write(table.concat(list, "\n", 1, SHORT), "\n")
    file:close()
    local text, status = run("examples/demo/run " .. short)
    os.remove(short)
    local failovers = text:match(SHORT .. " of " .. SHORT
                                 .. " answered, (%d+) failovers")
    assert.is_truthy(failovers, text)
    assert.is_true(tonumber(failovers) >= 1, text)
    assert.equal(0, status, text)
    assert.is_nil(text:find("\r", 1, true))
    assert.equal(10, select(2, text:gsub("%[#* *%] %d+/" .. SHORT, "")), text)
    for group in text:gmatch("process group (%d+)") do
      assert.is_not.equal(0, os.execute("kill -0 -- -" .. group
                                        .. " 2>/dev/null"))
    end
  end)
end)
