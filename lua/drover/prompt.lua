-- Messages into a prompt, by the chat template of a model's file. What users
-- wrote is marked before the template handles it, so that no control token is
-- recognised in it (drover_model_mark); the prompt still holds the marks.
--
-- A template that refuses or drops a system message gets its text in front of
-- the first user's, as llama.cpp does.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local jinja = require "drover.jinja"

local value = jinja.value

local _M = {}

local mt = {}
mt.__index = mt

-- Templates by their names in the configuration, for files that have none, or
-- one that is not understood.
local BUILT_IN = {
  chatml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    .. "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>"
    .. "assistant\n{% endif %}",
}


-- The names of the built-in ones, for errors.
function _M.names()
  local names = {}
  for name in pairs(BUILT_IN) do
    names[#names + 1] = name
  end
  table.sort(names)
  return table.concat(names, ", ")
end


local function text_of(model, which)
  local size = tonumber(C.drover_model_text(model, which, nil, 0))
  if size <= 0 then
    return nil
  end
  local buf = ffi.new("char[?]", size)
  C.drover_model_text(model, which, buf, size)
  return ffi.string(buf, size)
end


-- The prompts of a model (a drover_model). `name`: a built-in template in place
-- of the file's. nil and why not: it has none, or one that is not understood.
function _M.new(model, name)
  local text = name and BUILT_IN[name]
  if name and not text then
    return nil, "template: must be one of " .. _M.names()
  end
  text = text or text_of(model, C.DROVER_MODEL_TEMPLATE)
  if not text then
    return nil, "the model has no chat template: it takes a prompt, no messages"
  end
  local template, why = jinja.compile(text)
  if not template then
    return nil, "the model's chat template is not understood: " .. why
                .. " (template = \"chatml\" names another)"
  end
  return setmetatable({
    model = model, template = template,
    bos = text_of(model, C.DROVER_MODEL_BOS) or "",
    eos = text_of(model, C.DROVER_MODEL_EOS) or "",
  }, mt)
end


-- A text with its marks.
local function marked(model, text)
  local cap = 2 * #text + 1
  local buf = ffi.new("char[?]", cap)
  local size = tonumber(C.drover_model_mark(model, text, #text, buf, cap))
  if size < 0 then
    error({ jinja = "limit", message = "no memory for a prompt" }, 0)
  end
  return ffi.string(buf, size)
end


-- Every text of a value is marked, wherever it stands; not the keys of dicts.
local function mark_all(model, x)
  if type(x) == "string" then
    return marked(model, x)
  elseif value.kind(x) == "list" then
    local out = {}
    for i = 1, x.n do
      out[i] = mark_all(model, x[i])
    end
    return value.list(out, x.n)
  elseif value.kind(x) == "dict" then
    local out = value.dict()
    for _, key in ipairs(x.keys) do
      value.put(out, key, mark_all(model, x.map[key]))
    end
    return out
  end
  return x
end


-- The messages with the system's text in front of the first user's; nil when
-- there is no such pair.
local function folded(messages)
  local first, second = messages[1], messages[2]
  if messages.n < 2 or first.map.role ~= "system"
     or second.map.role ~= "user" or type(first.map.content) ~= "string"
     or type(second.map.content) ~= "string" then
    return nil
  end
  local user = value.dict()
  for _, key in ipairs(second.keys) do
    value.put(user, key, second.map[key])
  end
  user.map.content = first.map.content .. "\n\n" .. second.map.content
  local out = { user }
  for i = 3, messages.n do
    out[i - 1] = messages[i]
  end
  return value.list(out, messages.n - 1)
end


local function says_it(text, message)
  local content = message.map.content
  return type(content) ~= "string" or content == ""
         or text:find(content, 1, true) ~= nil
end


-- The prompt of a list of messages (tables { role, content, … }, or values of
-- the template language), with the assistant's head at its end. opts: tools,
-- now (seconds since 1970), generate (false: no head). Returns the text with
-- its marks, or nil, why, and a kind ("raise": the template's own refusal).
function mt:render(messages, opts)
  opts = opts or {}
  local list = mark_all(self.model, value.from_lua(messages))
  local vars = {
    messages = list, bos_token = self.bos, eos_token = self.eos,
    add_generation_prompt = opts.generate ~= false,
    tools = opts.tools and mark_all(self.model, value.from_lua(opts.tools)),
  }
  local text, why, kind = self.template:render(vars, opts.now or 0)
  local system = list[1] and list[1].map.role == "system"
  if system and (kind == "raise" or text and not says_it(text, list[1])) then
    vars.messages = folded(list)
    local second = vars.messages and self.template:render(vars, opts.now or 0)
    if second then
      return second
    end
  end
  return text, why, kind
end


-- The same without marks, for people to read.
function _M.plain(text)
  return (text:gsub("\254", ""))
end


return _M
