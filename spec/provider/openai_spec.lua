-- The OpenAI dialect against recorded answers of OpenAI, vLLM and Ollama.
local body = require "drover.body"
local json = require "drover.json"
local classify = require "drover.provider.classify"
local collect = require "drover.collect"
local openai = require "drover.provider.openai"

local root = (os.getenv("DROVER_ORACLES") or "../shared/oracles")
             .. "/providers/"


local function slurp(path)
  local file = io.open(path, "rb")
  if not file then
    return nil
  end
  local text = file:read("*a")
  file:close()
  return text
end


local function load_json(path)
  return json.decode(assert(slurp(path), "cannot read " .. path))
end


local function lower_names(headers)
  local out = {}
  for name, value in pairs(headers or {}) do
    out[name:lower()] = value
  end
  return out
end


-- The events of a recorded stream, each as { data, name }.
local function sse_events(text)
  local list = {}
  for block in (text:gsub("\r\n", "\n") .. "\n\n"):gmatch("(.-)\n\n") do
    local data, name = {}, "message"
    for line in (block .. "\n"):gmatch("([^\n]*)\n") do
      data[#data + 1] = line:match("^data: ?(.*)")
      name = line:match("^event: ?(.*)") or name
    end
    if #data > 0 then
      list[#list + 1] = { data = table.concat(data, "\n"), name = name }
    end
  end
  return list
end


local function check_usage(expected, got)
  if expected.usage == nil then
    assert.is_nil(got)
    return
  end
  assert.same(expected.usage, openai.usage(got))
end


local function check_tools(expected, got)
  assert.equal(#expected.tool_calls, #(got or {}))
  for i, tool in ipairs(expected.tool_calls) do
    local call = got[i]
    assert.equal(tool.name, call["function"].name)
    assert.same(json.decode(tool.arguments),
                json.decode(call["function"].arguments))
    assert.is_string(call.id)
    if tool.id then
      assert.equal(tool.id, call.id)
    end
  end
end


local function check_message(expected, message)
  assert.equal(expected.text, message.content or "")
  assert.equal(expected.reasoning or "",
               message.reasoning_content or message.reasoning or "")
  assert.equal(expected.refusal, message.refusal)
  check_tools(expected, message.tool_calls)
end


local function check_body(expected, text)
  local reply = assert(openai.decode(text))
  check_message(expected, reply.choices[1].message)
  assert.equal(expected.finish_reason,
               openai.finish(reply.choices[1].finish_reason))
  check_usage(expected, reply.usage)
  assert.equal(expected.id, reply.id)
  assert.equal(expected.model, reply.model)
  for i, other in ipairs(expected.other_choices or {}) do
    assert.equal(other, reply.choices[i + 1].message.content)
  end
end


-- What a stream comes to: its parts, the place of its first content, and
-- whether its end mark was seen.
local function play(events)
  local parts, first, done = collect.new(), nil, false
  for i, sse in ipairs(events) do
    local list = assert(openai.event(sse))
    for _, event in ipairs(list) do
      if event.done then
        done = true
      else
        parts:add(event)
        if not first and (event.text or event.reasoning or event.refusal
                          or event.tool_call) then
          first = i - 1
        end
      end
    end
  end
  return parts, first, done
end


local function check_stream(expected, text)
  local events = sse_events(text)
  assert.equal(expected.events, #events)
  local parts, first, done = play(events)
  assert.equal(expected.first_content_event, first)
  assert.equal(expected.terminated, done)
  local reply = parts:reply(events[1].data)
  check_message(expected, reply.choices[1].message)
  check_usage(expected, parts.usage)
  assert.equal(expected.id, reply.id)
  assert.equal(expected.model, reply.model)
  local finish = reply.choices[1].finish_reason
  if expected.finish_reason_inferred then
    assert.is_nil(finish)
  else
    assert.equal(expected.finish_reason, finish)
  end
end


local function check_error(expected, headers, text)
  local got = openai.classify(headers.status, lower_names(headers.headers),
                              text)
  assert.equal(expected.error.kind, got.kind)
  assert.equal(expected.error.retryable, got.retryable)
  assert.equal(expected.error.retry_after, got.retry_after)
  assert.equal(expected.error.code, got.code)
  assert.equal(expected.error.param, got.param)
end


local function check_request(folder)
  local text = slurp(folder .. "request.json")
  if not text then
    return
  end
  local call = { model = nil, stream = false, key = "k",
                 body = body.of_text(text, false) }
  local out = openai.encode(call)
  assert.equal("/chat/completions", out.path)
  assert.equal("Bearer k", out.headers.authorization)
  assert.equal(text, out.body:tostring())
end


describe("the OpenAI dialect over recorded answers #oracle", function()
  local index = load_json(root .. "INDEX.json")
  local later, seen = 0, 0
  for _, case in ipairs(index.cases) do
    local provider = case.provider
    local name = provider .. "/" .. case.case
    if provider == "openai" or provider == "vllm" or provider == "ollama" then
      local folder = root .. name .. "/"
      local headers = load_json(folder .. "headers.json")
      if not headers.path:find("/chat/completions$") then
        later = later + 1
      else
        seen = seen + 1
        it("reads " .. name, function()
          local expected = load_json(folder .. "expected.json")
          local stream = slurp(folder .. "response.sse")
          local whole = slurp(folder .. "response.json")
          check_request(folder)
          if expected.error then
            check_error(expected, headers, whole)
          elseif stream then
            check_stream(expected, stream)
          else
            check_body(expected, whole)
          end
        end)
      end
    end
  end

  it("has cases to read", function()
    assert.is_true(seen >= 20)
    print(("\n%d cases of other paths: not supported yet"):format(later))
  end)
end)


describe("classify() over error answers of all providers #oracle", function()
  for _, row in ipairs(load_json(root .. "errors.json").rows) do
    it("knows " .. row.id, function()
      local text, status = row.body, row.status
      if row.where ~= "response" then
        text = sse_events(text)[1].data
      end
      local got = classify.read(status, lower_names(row.headers), text)
      assert.equal(row.expected.kind, got.kind)
      assert.equal(row.expected.retryable, got.retryable)
      assert.equal(row.expected.retry_after, got.retry_after)
    end)
  end
end)


describe("a chunk of odd numbers", function()
  local function first(fields)
    local chunk = { choices = { fields } }
    return assert(openai.event { data = json.encode(chunk) })[1]
  end

  it("is counted by its place", function()
    for _, index in ipairs { 2 ^ 31 - 1, 1e300, -1, 0.5, "1", json.array {} } do
      assert.equal(0, first { index = index,
                              delta = { content = "a" } }.index)
      local tool = first { delta = { tool_calls = { {
        index = index, ["function"] = { name = "f" } } } } }.tool_call
      assert.equal(0, tool.index)
    end
    assert.equal(7, first { index = 7, delta = { content = "a" } }.index)
  end)
end)
