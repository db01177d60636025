-- What a policy sees: the table's rows in shared memory, 1-based and bounds
-- checked, and one request table that is used again for every decision (no
-- closure is made per pick, so that traces stay compiled).
--
-- SPDX-License-Identifier: MIT
local bit = require "bit"
local ffi = require "ffi"
local C = require "drover.core"

local rshift = bit.rshift

local NAN = 0 / 0

local _M = {}

-- A type is declared, and its metatable set, once in a Lua state; specs load
-- this file twice.
if not pcall(ffi.typeof, "struct drover_lua_view") then
  ffi.cdef [[
    struct drover_lua_view {
      const drover_node *rows;
      uint32_t count;
    };
  ]]
  ffi.metatype("struct drover_lua_view", {
    __index = function(self, i)
      if type(i) == "number" and i >= 1 and i <= self.count then
        return self.rows[i]
      end
      return nil
    end,
    __len = function(self)
      return self.count
    end,
  })
end

local view_t = ffi.typeof("struct drover_lua_view")


-- A view of `count` rows; rows[1] is the first.
function _M.nodes(rows, count)
  return view_t(rows, count)
end


-- A number without its low bits: exact in a double.
local function number_of(hash)
  return tonumber(rshift(hash, 11))
end


-- The request table of a policy. `handle` is the router's (nil in a trial:
-- then every node may be chosen). Fill it with set() before each decision.
function _M.request(handle)
  local state = { pick = nil }
  local request = { model = nil, prompt_tokens = 0, max_tokens = 0,
                    prefix = 0, key = nil, now = 0, random = 0 }

  function request.may(i)
    if not handle then
      return true
    end
    return i >= 1 and C.drover_pick_may(handle, state.pick, i) == 1
  end

  function request.tried(i)
    return handle ~= nil and i >= 1
           and C.drover_pick_tried(state.pick, i) == 1
  end

  -- Tokens of the prompt's prefix that a node has in its cache: unknown
  -- until the prefix index is built.
  function request.prefix_match()
    return NAN
  end

  return request, state
end


function _M.set(request, state, p, call, opts)
  state.pick = p
  request.model = call.model
  request.prompt_tokens = call.prompt_tokens
  request.max_tokens = call.max_tokens or 0
  request.prefix = number_of(p.prefix)
  request.key = opts.key
  request.now, request.random = p.now, p.rnd
end


return _M
