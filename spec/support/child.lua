-- Runs one function of a spec's script in a process of its own, on the
-- optimised library with all symbols: under limits, an interposer, in a
-- namespace. Says whether a namespace can be had here.
local ffi = require "ffi"
local nginx = require "spec.support.nginx"

local _M = {}

local LUA = "LUA_PATH='lua/?.lua;lua/?/init.lua;build/lua/?.lua;./?.lua;;' "
local ENV = "env -u LD_PRELOAD -u ASAN_OPTIONS -u LSAN_OPTIONS "
            .. "-u UBSAN_OPTIONS DROVER_LIB=build/libdrover_dev.so " .. LUA


-- Build the interposer once a run; its path.
function _M.interposer()
  local path = nginx.folder() .. "/interpose.so"
  local text = nginx.shell("gcc -std=c11 -D_GNU_SOURCE -O1 -shared -fPIC -o "
    .. path .. " spec/support/fault/interpose.c -ldl 2>&1")
  assert(text == "", text)
  return path
end


function _M.namespaces()
  return nginx.shell("unshare -rnm true 2>&1; echo $?"):match("^0\n") ~= nil
end


-- Run function `name` of `script`. opts: env, shell text of assignments;
-- before, shell commands that run first; unshare, true: in user, net and
-- mount namespaces of its own. Returns what it printed; raises if it failed.
function _M.run(script, name, opts)
  opts = opts or {}
  local dir = nginx.folder()
  nginx.write(dir .. "/run.sh", "set -e\n" .. (opts.before or "") .. "\n"
    .. "exec " .. ENV .. (opts.env or "") .. " luajit " .. script .. " " .. name
    .. "\n")
  local text = nginx.shell("timeout 60 " .. (opts.unshare and "unshare -rnm "
    or "") .. "bash " .. dir .. "/run.sh 2>&1 < /dev/null; echo status $?")
  if not text:find("status 0\n$") then
    error(name .. ": " .. text, 2)
  end
  return text
end


-- ---- inside the child ----

-- In a network namespace of its own, loopback is down at first.
function _M.loopback_up()
  ffi.cdef[[
    struct spec_ifreq { char name[16]; short flags; char rest[22]; };
    int ioctl(int, unsigned long, ...);
    int socket(int, int, int);
  ]]
  local request = ffi.new("struct spec_ifreq", { name = "lo", flags = 0x41 })
  assert(ffi.C.ioctl(ffi.C.socket(2, 1, 0), 0x8914, request) == 0, "lo")
end


-- A name server that is in trouble: drop, nx, empty or once, see fault/dns.h.
-- Stop it.
function _M.dns(mode)
  return require("spec.support.fault_server").start{ "--quiet",
                                                     "--dns-" .. mode }
end


-- Run the function that the command line names.
function _M.main(functions)
  local ok, why = xpcall(assert(functions[arg[1]], arg[1]), debug.traceback)
  if not ok then
    io.stderr:write(type(why) == "table" and tostring(why.message or why[1])
                    or tostring(why), "\n")
    os.exit(1)
  end
  os.exit(0)
end


return _M
