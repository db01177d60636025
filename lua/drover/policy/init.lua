-- Policies as a configuration names them: a built-in by name, a function of
-- the caller's, or a file that returns one. Lua policies pass a trial first;
-- a file's new version does at the tick that finds it.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local bounded = require "drover.bounded"
local trial = require "drover.policy.trial"

local _M = {}

_M.DEFAULT = "peak_ewma"

local LATER = {                 -- agreed names, refused until they are built
  consistent_hash = true, prefix_affinity = true, least_tokens = true,
  cheapest = true, fastest = true,
}

local passed = setmetatable({}, { __mode = "k" })    -- functions tried


local function names()
  local list, i = {}, 0
  while C.drover_policy_name(i) ~= nil do
    list[#list + 1] = ffi.string(C.drover_policy_name(i))
    i = i + 1
  end
  return table.concat(list, ", ")
end


local function of_name(name)
  local number = C.drover_policy(name)
  if number < 0 and LATER[name] then
    return nil, name .. ": not built yet (there are: " .. names() .. ")"
  elseif number < 0 then
    return nil, "no built-in policy " .. name .. " (there are: " .. names()
                .. ")"
  end
  return { name = name, number = number }
end


local function of_function(f)
  if not passed[f] then
    local ok, why = trial.run(f)
    if not ok then
      return nil, "the policy failed its trial: it " .. why
    end
    passed[f] = true
  end
  return { name = "lua", f = f }
end


local function read(path)
  local file, why = io.open(path, "rb")
  if not file then
    return nil, why
  end
  local text = file:read("*a")
  file:close()
  return text
end


local function load_text(text, path)
  local chunk, why = loadstring(text, "@" .. path)
  if not chunk then
    return nil, why
  end
  local ok, f = bounded.call(chunk)
  if not ok then
    return nil, tostring(f)
  end
  if type(f) ~= "function" then
    return nil, path .. " must return a function, returned a " .. type(f)
  end
  return of_function(f)
end


local function of_file(path)
  local text, why = read(path)
  if not text then
    return nil, why
  end
  local policy
  policy, why = load_text(text, path)
  if not policy then
    return nil, why
  end
  policy.file, policy.text = path, text
  return policy
end


-- A policy of what the configuration says, or nil and what is wrong.
function _M.new(spec)
  if type(spec) == "string" then
    return of_name(spec)
  elseif type(spec) == "function" then
    return of_function(spec)
  elseif type(spec) == "table" and type(spec.file) == "string" then
    return of_file(spec.file)
  end
  return nil, "must be a name, a function or { file = PATH }"
end


-- A policy from a file: look whether the file changed. Returns the new
-- version where there is a good one; nil, false where nothing changed; nil
-- and why where the new one is bad (asked once for each version).
function _M.refresh(policy)
  local text, why = read(policy.file)
  if text == policy.text or not text and policy.missing then
    return nil, false
  end
  if not text then
    policy.missing = true
    return nil, why
  end
  policy.missing = nil
  policy.text = text
  local new
  new, why = load_text(text, policy.file)
  if not new then
    return nil, why
  end
  new.file, new.text = policy.file, text
  return new
end


return _M
