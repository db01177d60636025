-- The soak (make soak): many requests through one router of four processes,
-- a fifth of them ill, and afterwards nothing is lost, mixed up, sent twice
-- unseen, or kept.
--
--   luajit bench/soak.lua [requests]         200,000 where it is not said
--
-- Each request has a number, its canary, which the upstream sends back and
-- counts. So the bodies of each single request are compared with its own
-- ledger, and the sums with the router's counters. Memory is what our
-- allocator and Lua hold between two rounds, when nothing is in flight; its
-- growth is the slope of a line through the last four fifths of the rounds.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local bit = require "bit"
local drover = require "drover"
local fail = require "bench.fail"
local faults = require "bench.soak_faults"
local nginx = require "spec.support.nginx"
local random = require "drover.random"

ffi.cdef [[
  long mem_live_bytes(void);
  int fork(void); void _exit(int); int waitpid(int, int *, int);
  unsigned alarm(unsigned);
]]

local C = require "drover.core"       -- a library with all its symbols
local WORKERS, IN_FLIGHT, ROUNDS = 4, 64, 50
local LIFE_S = 170                    -- a worker that hangs ends itself
local GROWTH_MAX = 1                  -- bytes a request

local _M = {}


-- A router of many rows, so that a row that goes out is no drought; some of
-- them refuse connections. Limits and queue are narrow enough to be in use.
local function config(port)
  local nodes = {}
  for i = 1, 56 do
    nodes[i] = { id = "n" .. i, capacity = 12,
                 url = "http://127.0.0.1:" .. port .. "/n" .. i,
                 price = { input = 1, output = 2 } }
  end
  for i = 57, 60 do
    nodes[i] = { id = "dead" .. i, url = "http://127.0.0.1:1/n" .. i,
                 price = { input = 1, output = 2 } }
  end
  return {
    name = "soak", nodes = nodes, policy = "two_choices",
    limits = {
      concurrent = 48, wait = 0.2, rpm = 6e6, tpm = 6e8, dollars_per_day = 1e6,
      per = {
        tenant = { concurrent = 8, rpm = 3e6, tpm = 1e8,
                   named = { poor = { rpm = 600, burst = { requests = 5 } } } },
        node = { rpm = 1e6 }, model = { concurrent = 46 },
      },
    },
    retry = { min = 0.001, max = 0.01 },
  }
end


-- ---- a worker ----

-- Did the body go out? All that is known of the attempt says so.
local function was_sent(record)
  if record.kind == "unreachable" or record.kind == "tls" then
    return false
  end
  return record.kind ~= "timeout" or record.maybe_billed
end


local function note_end(w, flight, number, e)
  local kind = e and e.kind or "ok"
  w.kinds[kind] = (w.kinds[kind] or 0) + 1
  for _, record in ipairs(flight.ledger) do
    w.attempts = w.attempts + 1
    if was_sent(record) then
      w.sent[number] = w.sent[number] + 1
    else
      w.unsent = w.unsent + 1
    end
  end
end


-- A text of ours begins with its canary in each of its pieces.
local function check_text(w, number, text)
  if text:match("^c(%d+):") ~= tostring(number) then
    w.mixed = w.mixed + 1
  end
end


local function read_stream(w, flight, number, plan)
  local stream, e = flight:stream()
  if not stream then
    return e
  end
  for event in stream:events() do
    if event.text and #event.text > 1 then   -- one "c" is a broken piece
      check_text(w, number, event.text)
      if plan.cancel then
        stream:cancel()
        return stream.err
      end
    end
  end
  return stream.err
end


local function read_reply(w, flight, number, plan)
  if plan.cancel then
    drover.go(function()
      for _ = 1, 400 do
        if flight.attempt or flight.ended then break end
        drover.sleep(0.005)
      end
      drover.sleep(0.05)              -- its body has long gone out
      flight:cancel()
    end)
  end
  local reply, e = flight:reply()
  if reply then
    check_text(w, number, reply.choices[1].message.content)
  end
  return e
end


local function one(w, number)
  local plan = faults.plan(number)
  local flight = assert(w.router:begin(plan.request, plan.opts, plan.stream))
  w.faulted = w.faulted + (plan.fault and 1 or 0)
  local read = plan.stream and read_stream or read_reply
  note_end(w, flight, number, read(w, flight, number, plan))
end


local function round(w, from, till)
  local next_number = from
  local function work()
    while next_number <= till do
      local number = next_number * WORKERS + w.index
      next_number = next_number + 1
      one(w, number)
    end
  end
  local tasks = {}
  for i = 1, IN_FLIGHT / WORKERS do
    tasks[i] = drover.go(work)
  end
  drover.wait(unpack(tasks))
end


-- Without what LuaJIT compiled: traces come and go as it pleases.
local function held_bytes()
  jit.flush()
  collectgarbage()
  collectgarbage()
  return tonumber(C.mem_live_bytes()) + collectgarbage("count") * 1024
end


local function open_files()
  local n = 0
  for _ in nginx.shell("ls /proc/" .. ffi.C.getpid() .. "/fd")
           :gmatch("%d+") do
    n = n + 1
  end
  return n
end


-- Wait until all workers are here: nobody closes what others are using.
local function meet(w, name)
  nginx.write(w.path .. "." .. name, "")
  local function all_here()
    for index = 1, WORKERS do
      local file = io.open(w.dir .. "/" .. index .. "." .. name)
      if not file then return false end
      file:close()
    end
    return true
  end
  while not all_here() do
    drover.sleep(0.01)
  end
end


-- Descriptors with one connection kept: the upstream closes all that wait,
-- and the next request lets libcurl notice, which looks once a second.
local function settled_files(w, upstream)
  local least = math.huge
  for _ = 1, 4 do
    nginx.shell("curl -sS " .. upstream.url .. "/drop")
    local flight = w.router:begin { model = "m", messages = {
      { role = "user", content = "x" } } }
    flight:reply()
    w.extra, w.extra_sends = w.extra + 1, w.extra_sends + #flight.ledger
    least = math.min(least, open_files())
    drover.sleep(1.05)
  end
  return least
end


local function report(w, path)
  local lines = {}
  for kind, n in pairs(w.kinds) do
    lines[#lines + 1] = "kind " .. kind .. " " .. n
  end
  for _, name in ipairs { "attempts", "unsent", "mixed", "faulted", "growth",
                          "files", "files_after", "extra", "extra_sends",
                          "done" } do
    lines[#lines + 1] = "sum " .. name .. " " .. string.format("%.17g",
                                                               w[name])
  end
  nginx.write(path, table.concat(lines, "\n") .. "\n")
  nginx.write(path .. ".sent", ffi.string(w.sent, w.count))
end


-- Bytes a request: least squares over the last four fifths of the rounds.
local function slope(samples, per_round)
  local n, sx, sy, sxx, sxy = 0, 0, 0, 0, 0
  for i = math.floor(#samples / 5) + 1, #samples do
    local x, y = i * per_round, samples[i]
    n, sx, sy, sxx, sxy = n + 1, sx + x, sy + y, sxx + x * x, sxy + x * y
  end
  return (n * sxy - sx * sy) / (n * sxx - sx * sx)
end


local function worker(index, run, upstream, dir)
  ffi.C.alarm(LIFE_S)
  local w = {
    index = index, dir = dir, path = dir .. "/" .. index,
    kinds = {}, attempts = 0, unsent = 0, mixed = 0, faulted = 0, extra = 0,
    extra_sends = 0, done = 0, count = run.count + WORKERS + 1,
    sent = ffi.new("uint8_t[?]", run.count + WORKERS + 1),
    router = run.router,              -- the parent's: one zone for all
  }
  w.router.random = random.new(index) -- but chances of its own
  local per_round = math.floor(run.count / WORKERS / ROUNDS)
  local samples = {}
  for i = 1, ROUNDS do samples[i] = 0 end
  for i = 1, ROUNDS do
    round(w, (i - 1) * per_round + 1, i * per_round)
    if i == 1 then                    -- all is open that a request needs
      meet(w, "warm")
      w.files = settled_files(w, upstream)
      meet(w, "begin")
    end
    w.done = w.done + per_round
    samples[i] = held_bytes()
  end
  w.growth = slope(samples, per_round)
  meet(w, "end")
  w.files_after = settled_files(w, upstream)
  w.router:close()
  report(w, w.path)
end


-- ---- the whole ----

local function read_report(sums, path)
  for what, name, n in nginx.read(path):gmatch("(%a+) ([%w_]+) (%S+)\n") do
    local place = what == "kind" and sums.kinds or sums
    if name == "growth" or name:find("^files") then
      place[#place + 1] = { name, tonumber(n) }
    else
      place[name] = (place[name] or 0) + tonumber(n)
    end
  end
  sums.reports[#sums.reports + 1] = nginx.read(path .. ".sent")
end


-- Requests whose bodies, as the upstream counted them, are not those of
-- their ledger.
local function unaccounted(upstream, sums, count)
  local wrong, first, bodies = 0, nil, 0
  local page
  for number = 0, count + WORKERS do
    local at = number % 16384
    if at == 0 then
      page = nginx.shell("curl -sS " .. upstream.url .. "/canaries-" .. number)
    end
    local got, sent = page:byte(at + 1) - 48, 0
    for _, one_report in ipairs(sums.reports) do
      sent = sent + one_report:byte(number + 1)
    end
    bodies = bodies + got
    if got ~= sent then
      wrong = wrong + 1
      first = first or string.format("canary %d: %d bodies, %d in the ledger,"
                                     .. " %s", number, got, sent,
                                     faults.name(number))
    end
  end
  return wrong, bodies, first
end


local function series(text, name)
  local sum = 0
  for line in text:gmatch("[^\n]+") do
    if line:find("^" .. name .. "[{ ]") then
      sum = sum + tonumber(line:match("(%S+)$"))
    end
  end
  return sum
end


local wrong, right = 0, 0
local function say(ok, text, ...)
  print((ok and "ok      " or "FAILED  ") .. string.format(text, ...))
  if ok then right = right + 1 else wrong = wrong + 1 end
end


local function judge(router, upstream, sums, count)
  local text = router:metrics()
  local totals = ffi.new("drover_totals")
  C.drover_router_totals(router.handle, totals, C.drover_clock())
  local ended, kinds = 0, {}
  for kind, n in pairs(sums.kinds) do
    ended = ended + n
    kinds[#kinds + 1] = kind .. " " .. n
  end
  table.sort(kinds)
  print("ended:  " .. table.concat(kinds, ", "))
  local requests = series(text, "drover_requests_total")
  local attempts = series(text, "drover_attempts_total")
  local off, bodies, first = unaccounted(upstream, sums, count)
  say(ended == count and requests == count + sums.extra,
      "0 lost: %d of %d ended once; the router counted %d", ended, count,
      requests - sums.extra)
  say(sums.mixed == 0, "%d mixed up", sums.mixed)
  say(sums.faulted >= 0.19 * count, "%d faulted over %d kinds", sums.faulted,
      faults.kinds())
  say(off == 0, "bodies %d = attempts %d - unsent %d, request by request%s",
      bodies, sums.attempts, sums.unsent, first and "; " .. first or "")
  say(attempts == sums.attempts + sums.extra_sends,
      "0 settled twice: %d attempts in the ledgers, %d settled",
      sums.attempts, attempts - sums.extra_sends)
  say(C.drover_inflight(router.handle, 0) == 0 and totals.reserved_tokens == 0
      and totals.waiting == 0, "in flight %d, reserved %d, waiting %d",
      C.drover_inflight(router.handle, 0), totals.reserved_tokens,
      totals.waiting)
  return text
end


local function judge_memory(sums)
  local values = {}
  for _, pair in ipairs(sums) do
    values[pair[1]] = values[pair[1]] or {}
    table.insert(values[pair[1]], pair[2])
  end
  local sum = 0
  for _, growth in ipairs(values.growth) do
    sum = sum + growth
  end
  say(sum / WORKERS < GROWTH_MAX, "memory grows by %.3f bytes a request; at "
      .. "most, in one of the workers, %.3f", sum / WORKERS,
      math.max(unpack(values.growth)))
  local before = math.max(unpack(values.files))  -- not all had to wait yet
  say(math.max(unpack(values.files_after)) <= before, "descriptors before %s, after %s",
      table.concat(values.files, " "), table.concat(values.files_after, " "))
end


local function in_use(text)
  local refused = {}
  for line in text:gmatch("drover_limit_refusals_total[^\n]+") do
    local limit, n = line:match('limit="([%w_]+)"} (%d+)')
    if limit and tonumber(n) > 0 then
      refused[#refused + 1] = limit .. " " .. n
    end
  end
  print("limits: " .. table.concat(refused, ", "))
end


-- The one figure of time, against its control in the same run.
local function judge_refused(upstream)
  local m = fail.measure(upstream.url .. "/v1", 2500)
  say(m.more_ms <= fail.MOST_MS and m.lost == 0, "a refused connection costs "
      .. "%.2f ms more at p99", m.more_ms)
end


local function spawn(run, upstream)
  local dir, pids = nginx.folder(), {}
  for index = 1, WORKERS do
    local pid = ffi.C.fork()
    if pid == 0 then
      local ok, why = xpcall(worker, debug.traceback, index,
                             run, upstream, dir)
      if not ok then
        io.stderr:write(tostring(why), "\n")
      end
      ffi.C._exit(ok and 0 or 1)
    end
    pids[index] = pid
  end
  return dir, pids
end


function _M.main(count)
  local begun = nginx.now()
  local upstream = nginx.upstream("--chunks 3 --gap 0")
  local router = assert(drover.new(config(upstream.port)))
  local dir, pids = spawn({ count = count, router = router }, upstream)
  local sums = { kinds = {}, reports = {} }
  local status, clean = ffi.new("int[1]"), 0
  for index, pid in ipairs(pids) do
    ffi.C.waitpid(pid, status, 0)
    clean = clean + (status[0] == 0 and 1 or 0)
    read_report(sums, dir .. "/" .. index)
  end
  local seconds = nginx.now() - begun
  say(clean == WORKERS, "%d of %d workers ended by themselves", clean, WORKERS)
  if clean == WORKERS then
    in_use(judge(router, upstream, sums, count))
    judge_memory(sums)
    judge_refused(upstream)
  end
  upstream:stop()
  print(string.format("%d requests in %.0f s, %d in flight, %d workers", count,
                      seconds, IN_FLIGHT, WORKERS))
  print(string.format("%d passed, %d failed", right, wrong))
  return wrong == 0 and bit.band(right, 0x7f) > 0 and 0 or 1
end


os.exit(_M.main(tonumber(arg[1]) or 200000))
