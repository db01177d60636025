-- The templates of real models over lists of messages: equal to what Jinja2
-- gives, as the transformers library sets it up.
local jinja = require "drover.jinja"
local oracle = require "spec.support.oracle"

local NOW = 1721995200                  -- 2024-07-26 12:00:00
local LEAST = 60                        -- templates that are right in all cases


local function templates()
  local out = {}
  for _, row in ipairs(oracle.json("templates/templates.json")) do
    out[row.id] = row
  end
  return out
end


local function lists()
  local out, text = {}, oracle.read("templates/lists.json")
  local all = jinja.value.from_json(text)
  for i = 1, all.n do
    out[all[i].map.name] = all[i].map
  end
  return out
end


local function vars_of(template, list)
  return {
    messages = list.messages, tools = list.tools,
    add_generation_prompt = list.add_generation_prompt,
    bos_token = template.bos_token, eos_token = template.eos_token,
  }
end


-- nil, or what is wrong.
local function wrong(compiled, vars, case)
  local text, why, kind = compiled:render(vars, NOW)
  if case.other and text == case.other.text then
    return nil
  elseif case.error then
    if text then
      return "rendered, and should say " .. case.error .. ": " .. case.message
    elseif case.error == "raise" and (kind ~= "raise" or why ~= case.message) then
      return ("says %s: %s, not %s"):format(kind, why, case.message)
    end
  elseif not text then
    return ("%s: %s"):format(kind, why)
  elseif text ~= case.text then
    local at = 1
    while text:byte(at) == case.text:byte(at) do
      at = at + 1
    end
    return ("byte %d: %q, not %q"):format(at, text:sub(at, at + 60),
                                          case.text:sub(at, at + 60))
  end
end


describe("#oracle templates", function()
  it("render as Jinja2 renders them", function()
    local all, given = templates(), lists()
    local bad, seen, compiled = {}, {}, {}
    for _, case in ipairs(oracle.rows("templates/cases.jsonl")) do
      local id = case.template
      if not seen[id] then
        seen[id] = true
        local why
        compiled[id], why = jinja.compile(
          oracle.read("templates/jinja/" .. id .. ".jinja"))
        bad[id] = not compiled[id] and why or nil
      end
      if compiled[id] then
        local why = wrong(compiled[id], vars_of(all[id], given[case.list]), case)
        bad[id] = bad[id] or why and case.list .. ": " .. why
      end
    end
    local good, report = 0, {}
    for id in pairs(seen) do
      if bad[id] then
        report[#report + 1] = id .. ": " .. bad[id]
      else
        good = good + 1
      end
    end
    table.sort(report)
    assert(good >= LEAST, good .. " are right\n" .. table.concat(report, "\n"))
  end)
end)
