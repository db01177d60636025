-- The rules of the house that a machine can hold: arrows, cycles, sizes.
local source = require "spec.support.source"

local LINES_MAX, FUNCTION_MAX, PARAMS_MAX = 500, 60, 6
local TREES = "src lua spec kernels bench examples"

local C_FILES = source.files("src kernels", "%.[ch]u?h?$")
local LUA_FILES = source.files("lua", "%.lua$")


-- What breaks a rule, one line each; the rule holds when there is nothing.
local function none(broken)
  assert.equal("", table.concat(broken, "\n"))
end


local function output(command)
  local pipe = io.popen(command)
  local text = pipe:read("*a")
  pipe:close()
  return text
end


-- ---- C: rooms ----

-- "src/net/sse.c" -> "net"; the hall's files -> "hall", the public header "".
local function room_of(path)
  if path:find("^src/drover[%w_]*%.h$") then
    return ""                       -- the public header, in three parts
  end
  return path:match("^src/([%w_]+)/") or path:match("^(kernels)/") or "hall"
end


-- The path that `#include "name"` means in `path`.
local function resolve(path, name)
  local folder = path:match("^(.*)/")
  while name:sub(1, 3) == "../" do
    folder, name = folder:match("^(.*)/") or "", name:sub(4)
  end
  return folder .. "/" .. name
end


local function includes(path)
  local out = {}
  for name in source.read(path):gmatch("\n%s*#%s*include%s+\"([^\"]+)\"") do
    out[#out + 1] = resolve(path, name)
  end
  return out
end


local function may_include(from, to)
  if to == "" or from == to then
    return true
  elseif from == "hall" then
    return to ~= "kernels"
  elseif from == "kernels" then
    return false                    -- but engine/backend.h, seen below
  end
  return from ~= "base" and to == "base"
end


describe("the rooms of src/", function()
  it("include only what stands below them", function()
    local broken = {}
    for _, path in ipairs(C_FILES) do
      for _, to in ipairs(includes(path)) do
        local hatch = room_of(path) == "kernels" and to == "src/engine/backend.h"
        if not hatch and not may_include(room_of(path), room_of(to)) then
          broken[#broken + 1] = path .. " includes " .. to
        end
      end
    end
    none(broken)
  end)

  -- A module is a .c and its .h; a door (drover.h, a room's header of the
  -- room's own name) stands for itself: what is behind it may include it.
  local function stem(path)
    local room, name = path:match("(%w+)/(%w+)%.h$")
    local door = path:find("^src/drover[%w_]*%.h$") or room and room == name
    return door and path or path:gsub("%.%w+$", "")
  end

  it("have no cycle of modules", function()
    local arrows = {}
    for _, path in ipairs(C_FILES) do
      local from = stem(path)
      arrows[from] = arrows[from] or {}
      for _, to in ipairs(includes(path)) do
        if stem(to) ~= from then
          arrows[from][stem(to)] = true
        end
      end
    end
    assert.is_nil(source.cycle(arrows))
  end)

  it("keep libcurl in net, CUDA in kernels, clocks in base/clock.c", function()
    local rules = {
      { "#%s*include%s*<curl/", "^src/net/" },
      { "#%s*include%s*<cuda", "^kernels/" },
      { "%f[%w_]clock_gettime%s*%(", "^src/base/clock%.c$" },
      { "%f[%w_]gettimeofday%s*%(", "^$" },
      { "%f[%w_]malloc%s*%(", "^src/base/mem%.c$" },
      { "%f[%w_]abort%s*%(", "^$" },
      { "%f[%w_]printf%s*%(", "^$" },
    }
    local broken = {}
    for _, path in ipairs(C_FILES) do
      local code = source.c_code(source.read(path))
      for _, rule in ipairs(rules) do
        if code:find(rule[1]) and not path:find(rule[2]) then
          broken[#broken + 1] = path .. " has " .. rule[1]
        end
      end
    end
    none(broken)
  end)

  it("keep no state of their own but the process record and mem's hook", function()
    local broken = {}
    for _, path in ipairs(source.files("src", "%.c$")) do
      local symbols = output("nm -f sysv build/dev/" .. path:gsub("c$", "o"))
      local keeps = path == "src/base/process.c" or path == "src/base/mem.c"
      assert.truthy(symbols:find("|", 1, true), "build/libdrover_dev.so is not built")
      for name, kind, section in symbols
          :gmatch("\n([%w_.]+) *|[^|]*| *(%a) *|[^|]*|[^|]*|[^|]*|([%w_.*]*)") do
        if not keeps and kind:find("[bBdD]") and not section:find("rel.ro", 1, true) then
          broken[#broken + 1] = path .. " keeps " .. name
        end
      end
    end
    none(broken)
  end)
end)


describe("build/libdrover.so", function()
  local shown = output("nm -D --defined-only build/libdrover.so")

  it("shows what drover.h declares and nothing else", function()
    local header = source.c_code(source.read("src/drover.h")
      .. source.read("src/drover_call.h") .. source.read("src/drover_engine.h"))
    local declared, broken = {}, {}
    for name in header:gmatch("%f[%w_](drover_[%w_]+)%s*%(") do
      declared[name] = true
    end
    for name in shown:gmatch(" T ([%w_]+)") do
      if not declared[name] then
        broken[#broken + 1] = "not declared: " .. name
      end
      declared[name] = nil
    end
    for name in pairs(declared) do
      broken[#broken + 1] = "not defined: " .. name
    end
    none(broken)
  end)
end)


-- ---- Lua: levels ----

-- "lua/drover/policy/init.lua" -> "drover.policy"
local function module_of(path)
  return (path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", "")
              :gsub("/", "."))
end


local MODULES = {}
for _, path in ipairs(LUA_FILES) do
  local name, code = module_of(path), source.lua_code(source.read(path))
  local requires = {}
  for to in code:gmatch("%f[%w_]require%s*%(?%s*[\"']([%w_.]+)[\"']") do
    requires[to] = true
  end
  MODULES[name] = { path = path, requires = requires }
end


-- core, err, then what routes, then who uses the router. By the longest
-- prefix; what is not named is in the middle.
local LEVELS = {
  ["drover.cdef"] = 0, ["drover.core"] = 1, ["drover.err"] = 2,
  ["drover"] = 3,                  -- the middle: router, policy, stream, …
  ["drover.pipeline"] = 4, ["drover.gateway"] = 5, ["drover.resty"] = 6,
  ["drover.testing"] = 7, ["drover.cli"] = 7,
}


local function level_of(name)
  while not LEVELS[name] do
    name = name:match("^(.*)%.")
    if not name then
      return nil                    -- not ours: ffi, bit, cjson
    end
  end
  return LEVELS[name]
end


-- The one place that looks up: which loop waits for this Lua state.
local LOOP_CHOICE = {
  ["drover.loop drover.resty.loop"] = true,
  ["drover.loop drover.loop.plain"] = true,
}


describe("the modules of lua/", function()
  it("require only what stands below them", function()
    local broken = {}
    for name, module in pairs(MODULES) do
      for to in pairs(module.requires) do
        local level = level_of(to)
        if level and level > level_of(name) and not LOOP_CHOICE[name .. " " .. to] then
          broken[#broken + 1] = name .. " requires " .. to
        end
      end
    end
    none(broken)
  end)

  it("have no cycle", function()
    local arrows = {}
    for name, module in pairs(MODULES) do
      arrows[name] = {}
      for to in pairs(module.requires) do
        if MODULES[to] and not LOOP_CHOICE[name .. " " .. to] then
          arrows[name][to] = true
        end
      end
    end
    assert.is_nil(source.cycle(arrows))
  end)

  it("are pure translation under provider/", function()
    local broken = {}
    for name, module in pairs(MODULES) do
      for to in pairs(module.requires) do
        local leaf = to == "drover.json" or to == "drover.err" or
                     to:find("^drover%.provider%.") or not to:find("^drover")
        if name:find("^drover%.provider%.") and not leaf then
          broken[#broken + 1] = name .. " requires " .. to
        end
      end
    end
    none(broken)
  end)

  it("say ngx only under resty/, ffi.load only in core.lua", function()
    local broken = {}
    local rules = {
      { "%f[%w_]ngx%f[^%w_]", "^lua/drover/resty/", "^lua/drover/loop/init%.lua$" },
      { "%f[%w_]ffi%.load%f[^%w_]", "^lua/drover/core%.lua$" },
      { "drover_port_wait", "^lua/drover/loop/" },
    }
    for _, module in pairs(MODULES) do
      local code = source.lua_code(source.read(module.path), true)
      for _, rule in ipairs(rules) do
        local allowed = module.path:find(rule[2])
                        or rule[3] and module.path:find(rule[3])
        if code:find(rule[1]) and not allowed then
          broken[#broken + 1] = module.path .. " says " .. rule[1]
        end
      end
    end
    none(broken)
  end)
end)


-- ---- sizes ----

describe("the house", function()
  it("has no file over " .. LINES_MAX .. " lines", function()
    local broken = {}
    for _, path in ipairs(source.files(TREES, "%.[chl][uh]?a?$")) do
      local _, lines = source.read(path):gsub("\n", "")
      if lines > LINES_MAX then
        broken[#broken + 1] = ("%s: %d lines"):format(path, lines)
      end
    end
    none(broken)
  end)

  it("has no function over " .. FUNCTION_MAX .. " lines or "
     .. PARAMS_MAX .. " parameters", function()
    local broken = {}
    local function check(path, functions)
      for _, f in ipairs(functions) do
        if f.lines > FUNCTION_MAX or f.params > PARAMS_MAX then
          broken[#broken + 1] = ("%s:%d: %d lines, %d parameters"):format(
            path, f.line, f.lines, f.params)
        end
      end
    end
    for _, path in ipairs(source.files("src bench", "%.c$")) do
      check(path, source.c_functions(source.read(path)))
    end
    for _, path in ipairs(source.files("lua bench examples", "%.lua$")) do
      check(path, source.lua_functions(source.read(path)))
    end
    none(broken)
  end)

  it("names no path of one machine", function()
    local pattern = "/(work|farm|home/[a-z]+|root|tmp/[a-z]+/)/"
    assert.equal("", output("grep -rnIE '" .. pattern .. "' . --exclude-dir=.git"
                            .. " --exclude-dir=build --exclude=house_spec.lua"))
  end)
end)


describe("the house's own eyes", function()
  it("see a cycle", function()
    assert.truthy(source.cycle{ b = { c = true }, c = { b = true } })
    assert.is_nil(source.cycle{ a = { b = true, c = true }, b = { c = true } })
  end)

  it("see through comments and strings", function()
    local text = 'local a = "--[[" -- ngx\nlocal b = [[ngx]] --[=[ ngx\n]=] c = "ngx"'
    assert.is_nil(source.lua_code(text, true):find("ngx"))
    assert.truthy(source.lua_code(text):find('"ngx"', 1, true))
    assert.truthy(source.lua_code(text):find('"--[[" ', 1, true))
  end)

  it("measure functions", function()
    local c = source.c_functions("int f(int a,\n      void (*g)(int, int)) {\n  return a;\n}\n"
                                 .. "struct x {\n  int a;\n};\nint h(void) {\n}\n")
    assert.same({ { line = 1, lines = 4, params = 2 },
                  { line = 8, lines = 2, params = 0 } }, c)
    local lua = source.lua_functions("local function f(a, b)\n  if a then\n  end\nend\n")
    assert.same({ { line = 1, lines = 4, params = 2 } }, lua)
  end)
end)
