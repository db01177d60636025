-- The local engine's speed on random models of two sizes, beside the floors that
-- the machine gives in the same run and, when LLAMA_BATCHED_BENCH is the path of
-- llama.cpp's llama-batched-bench, beside that: the two take turns, the best of
-- each counts.
--
--   luajit bench/engine.lua [SIZE …] [TYPE …]
--
-- Models are written to DROVER_BENCH_DIR (build/bench) once. THREADS (2),
-- ROUNDS (3), BATCHES (1,2,4,8,16,32). The floor of a decode is the larger of
-- the bytes over what memory gives and the products over the widest int8
-- multiply-add, both measured between the rounds.
--
-- SPDX-License-Identifier: MIT
local PEER = os.getenv("LLAMA_BATCHED_BENCH")
local DIR = os.getenv("DROVER_BENCH_DIR") or "build/bench"
local THREADS = tonumber(os.getenv("THREADS")) or 2
local ROUNDS = tonumber(os.getenv("ROUNDS")) or 3
local BATCHES = {}
for batch in (os.getenv("BATCHES") or "1,2,4,8,16,32"):gmatch("%d+") do
  BATCHES[#BATCHES + 1] = tonumber(batch)
end

-- Products of a token; prompt and steps of a measurement.
local SIZES = {
  small = { macs = 31.5e6, prompt = 64, steps = 24, context = 6144 },
  ["1b"] = { macs = 1.236e9, prompt = 16, steps = 8, context = 2048 },
}
local ORDER = { "small", "1b" }
local TYPES = { "q8_0", "q4_0", "q4_k", "f16" }


local function output(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("*a")
  pipe:close()
  return text
end


local function line(format, ...)
  io.write(format:format(...), "\n")
  io.flush()
end


local function size_of(path)
  local file = io.open(path, "rb")
  if not file then
    return nil
  end
  local size = file:seek("end")
  file:close()
  return size
end


local function model(size, kind)
  local path = ("%s/%s-%s.gguf"):format(DIR, size, kind)
  if not size_of(path) then
    assert(os.execute(("mkdir -p '%s' && build/bin/engine_model %s %s '%s'")
                      :format(DIR, size, kind, path)) == 0)
  end
  return path
end


-- "decode B tokens/s" and "prefill N tokens/s" lines, by batch; 0: prefill.
local function run_own(path, size)
  local got = {}
  local text = output(("build/bin/engine '%s' %d %d %d %s"):format(
    path, THREADS, size.prompt, size.steps, table.concat(BATCHES, ",")))
  for what, n, speed in text:gmatch("(%a+) (%d+) ([%d.]+)") do
    got[what == "prefill" and 0 or tonumber(n)] = tonumber(speed)
  end
  return got
end


-- Rows of its table: | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG | …
local function peer_rows(path, arguments)
  return output(("'%s' -m '%s' -t %d -b 2048 -ub 512 %s 2>/dev/null")
                :format(PEER, path, THREADS, arguments))
    :gmatch("|%s*(%d+) |%s*(%d+) |%s*(%d+) |%s*%d+ |%s*[%d.]+ |%s*([%d.]+) |"
            .. "%s*[%d.]+ |%s*([%d.]+)")
end


local function run_peer(path, size)
  local got = {}
  local decode = ("-c %d -npp %d -ntg %d -npl %s"):format(
    size.context, size.prompt, size.steps, table.concat(BATCHES, ","))
  for _, _, batch, _, speed in peer_rows(path, decode) do
    got[tonumber(batch)] = tonumber(speed)
  end
  for _, _, _, speed in peer_rows(path, "-c 1024 -npp 512 -ntg 1 -npl 1") do
    got[0] = tonumber(speed)
  end
  return got
end


local function keep_best(best, got)
  for batch, speed in pairs(got) do
    best[batch] = math.max(best[batch] or 0, speed)
  end
end


local function floors()
  local text = output("build/bin/engine floors " .. THREADS)
  return tonumber(text:match("read ([%d.]+)")), tonumber(text:match("int8 (%d+)"))
end


-- `most`: memory's GB/s and the multiplier's GMAC/s.
local function report(name, size, bytes, most, own, peer)
  local read, int8 = most[1], most[2]
  line("%s: memory %.1f GB/s, int8 %d GMAC/s", name, read, int8)
  local columns = { 0, unpack(BATCHES) }
  for _, batch in ipairs(columns) do
    local rows = batch == 0 and 512 or batch
    local seconds = math.max((batch == 0 and 0 or bytes) / (read * 1e9),
                             size.macs * rows / (int8 * 1e9))
    local ratio = peer[batch] and ("%9.2f %6.2f"):format(
      peer[batch], own[batch] / peer[batch]) or ""
    line("%-12s %-8s %9.2f %4d%% %s", name,
         batch == 0 and "prefill" or "batch " .. batch, own[batch],
         100 * own[batch] * seconds / rows, ratio)
  end
end


local function measure(size_name, kind)
  local size, path = SIZES[size_name], model(size_name, kind)
  local own, peer, most = {}, {}, { 0, 0 }
  for _ = 1, ROUNDS do
    keep_best(most, { floors() })
    keep_best(own, run_own(path, size))
    if PEER then
      keep_best(peer, run_peer(path, size))
    end
  end
  report(size_name .. " " .. kind, size, size_of(path), most, own, peer)
end


local function wanted(list, names)
  local out = {}
  for _, name in ipairs(list) do
    for _, arg in ipairs(arg) do
      if arg == name then
        out[#out + 1] = name
      end
    end
  end
  return #out > 0 and out or names
end


line("# engine, %s, %s, %d threads, best of %d, load %s",
     os.date("!%Y-%m-%dT%H:%MZ"),
     output("grep -m1 'model name' /proc/cpuinfo"):match(":%s*(.-)%s*$") or "?",
     THREADS, ROUNDS, (output("cut -d' ' -f1-3 /proc/loadavg"):gsub("\n", "")))
line("# case, tokens/s, of the floor%s",
     PEER and "; llama.cpp's tokens/s, ratio" or "")
for _, size_name in ipairs(wanted(ORDER, ORDER)) do
  for _, kind in ipairs(wanted(TYPES, TYPES)) do
    measure(size_name, kind)
  end
end
