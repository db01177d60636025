-- The engine's thread, through the public door: it says what the step-by-step
-- engine says, starts late, takes no signal, and survives no fork.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local gguf = require "spec.support.gguf"

c.cdef[[
int fork(void);
int waitpid(int pid, int *status, int options);
void _exit(int status);
]]

local C = c.lib
local path, remove


local function open(config)
  local err, out = ffi.new("drover_err"), ffi.new("drover_engine *[1]")
  local cfg = ffi.new("drover_engine_config", config or {})
  cfg.path = path
  assert(C.drover_engine_open(out, cfg, err) == 0, ffi.string(err.text))
  return ffi.gc(out[0], C.drover_engine_close)
end


local function port()
  local out, err = ffi.new("drover_port *[1]"), ffi.new("drover_err")
  assert(C.drover_port_open(out, err) == 0, ffi.string(err.text))
  return ffi.gc(out[0], C.drover_port_close)
end


-- A call, which its port closes; or nil, text, code.
local function call(p, e, fields)
  local out, err = ffi.new("drover_call *[1]"), ffi.new("drover_err")
  local rc = C.drover_call_engine(out, p, e, engine.request(fields), err)
  if rc ~= 0 then
    return nil, ffi.string(err.text), rc
  end
  return out[0]
end


-- Read events until `count` calls have ended; texts and codes by call.
local function gather(p, count)
  local ev, texts, codes = ffi.new("drover_event"), {}, {}
  while count > 0 do
    if C.drover_port_next(p, ev) == 0 then
      assert(C.drover_port_wait(p, 20) == 1, "no event in 20 seconds")
    elseif ev.type == C.DROVER_EVENT_TEXT then
      texts[ev.call] = (texts[ev.call] or "") .. ffi.string(ev.data, ev.data_size)
    else
      assert(not codes[ev.call], "two ends")
      codes[ev.call], count = ev.code, count - 1
    end
  end
  return texts, codes
end


local function tasks()
  local pipe = io.popen("ls /proc/" .. C.drover_spec_pid() .. "/task")
  local out = {}
  for id in pipe:lines() do
    out[id] = true
  end
  pipe:close()
  return out
end


-- A thread's blocked signals.
local function blocked(id)
  local path_of = "/proc/%d/task/%s/status"
  for line in io.lines(path_of:format(C.drover_spec_pid(), id)) do
    local mask = line:match("^SigBlk:%s*(%x+)")
    if mask then
      return mask
    end
  end
end


local function count_tasks()
  local n = 0
  for _ in pairs(tasks()) do
    n = n + 1
  end
  return n
end


describe("an engine's thread", function()
  setup(function()
    c.cdef[[ int drover_spec_pid(void) __asm__("getpid"); ]]
    path, remove = gguf.write(gguf.build(gguf.llama()))
  end)

  teardown(function()
    remove()
  end)

  it("answers as the engine does step by step", function()
    local slow, want = assert(engine.open(path)), {}
    for i = 1, 12 do
      want[i] = slow:ask{ call = i, prompt = ("abc"):rep(i), max_tokens = 10 + i,
                          temperature = 1, seed = i }.text
    end
    engine.close_all()
    local p, e = port(), open{ batch = 5 }
    for i = 1, 12 do
      assert(call(p, e, { call = i, prompt = ("abc"):rep(i), seed = i,
                          max_tokens = 10 + i, temperature = 1 }))
    end
    assert.same(want, (gather(p, 12)))
  end)

  it("starts with the first request, and takes no signal", function()
    local e, p = open{ threads = 3 }, port()
    local before, new = tasks(), 0
    assert(call(p, e, { prompt = "abc", max_tokens = 3 }))
    gather(p, 1)
    for id in pairs(tasks()) do
      if not before[id] then
        -- All but SIGKILL, SIGSTOP and the C library's own two.
        assert.equal("fffffffe7ffbfeff", blocked(id))
        new = new + 1
      end
    end
    assert.equal(3, new)            -- its own, and two that compute with it
  end)

  it("is joined by the close, and its requests end as closed", function()
    local e, p = open{ batch = 1, threads = 4 }, port()
    local before = count_tasks()
    for i = 1, 5 do
      assert(call(p, e, { call = i, prompt = "abc" }))
    end
    assert(count_tasks() > before)
    C.drover_engine_close(ffi.gc(e, nil))
    local _, codes = gather(p, 5)
    for i = 1, 5 do
      assert.is_true(codes[i] == 0 or codes[i] == C.DROVER_ECLOSED)
    end
    assert.equal(before, count_tasks())
  end)

  it("is a child's own, when the parent had started none", function()
    local e = open()
    local pid = C.fork()
    if pid == 0 then
      local ok = pcall(function()
        local p = port()
        assert(call(p, e, { prompt = "abc", max_tokens = 4 }))
        local _, codes = gather(p, 1)
        assert(codes[1] == 0)
            C.drover_engine_close(ffi.gc(e, nil))
      end)
      C._exit(ok and 7 or 1)
    end
    local status = ffi.new("int[1]")
    assert.equal(pid, C.waitpid(pid, status, 0))
    assert.equal(7, status[0] / 256)
    local p = port()
    assert(call(p, e, { prompt = "abc", max_tokens = 4 }))
    local _, codes = gather(p, 1)
    assert.equal(0, codes[1])
  end)

  it("is not a child's, when the parent had started it", function()
    local e, p = open(), port()
    assert(call(p, e, { prompt = "abc", max_tokens = 4 }))
    gather(p, 1)
    local pid = C.fork()
    if pid == 0 then
      local ok = pcall(function()
        local mine = port()
        local two, text, code = call(mine, e, { prompt = "abc" })
        assert(not two and code == C.DROVER_ECLOSED and text:find("forked"))
        C.drover_engine_close(ffi.gc(e, nil))
      end)
      C._exit(ok and 7 or 1)
    end
    local status = ffi.new("int[1]")
    assert.equal(pid, C.waitpid(pid, status, 0))
    assert.equal(7, status[0] / 256)
  end)
end)
