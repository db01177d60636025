-- The stream as callers see it.
local json = require "drover.json"
local sse = require "drover.gateway.sse"


-- A writer whose event() gives the text that it adds.
local function writer(usage)
  local self = { of = sse.new(usage) }
  function self.event(_, event)
    local out = {}
    return table.concat(out, "", 1, self.of:add(out, 0, event))
  end
  function self.finish() return self.of:finish() end
  return self
end


local function chunk(text)
  return json.decode((assert(text:match("^data: (.*)\n\n$"))))
end

local RAW = '{"id":"x","choices":[{"index":0,"delta":{"content":"a"}}]}'
local LAST = '{"id":"x","choices":[],"usage":{"prompt_tokens":1}}'
local FINISH = '{"id":"x","model":"u","choices":[{"index":0,"delta":{},'
               .. '"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}'


describe("gateway.sse", function()
  it("passes an upstream's chunk byte by byte", function()
    assert.equal("data: " .. RAW .. "\n\n", writer():event{ raw = RAW })
  end)

  it("writes a chunk of several lines as several lines", function()
    assert.equal("data: {\ndata: }\n\n", writer():event{ raw = "{\r\n}" })
  end)

  it("says nothing twice when a chunk made several events", function()
    local w = writer()
    w:event{ raw = RAW }
    assert.equal("", w:event{ text = "more of it" })
  end)

  it("strips usage that was not asked for", function()
    local w = writer(false)
    assert.equal("", w:event{ raw = LAST })
    local text = w:event{ raw = FINISH }
    assert.is_nil(text:find("usage"))
    assert.equal("stop", chunk(text).choices[1].finish_reason)
    assert.equal("data: [DONE]\n\n", w:finish())
  end)

  it("says usage null in each chunk and gives it in the last", function()
    local w = writer(true)
    assert.equal("data: " .. RAW:sub(1, -2) .. ',"usage":null}\n\n',
                 w:event{ raw = RAW })
    assert.equal("data: " .. LAST .. "\n\n", w:event{ raw = LAST })
    assert.equal("data: [DONE]\n\n", w:finish())
  end)

  it("gives usage a chunk of its own when it came beside choices", function()
    local w = writer(true)
    local text = w:event{ raw = FINISH }
    assert.truthy(text:find('"usage":null', 1, true))
    local last, done = w:finish():match("^(data: .-\n\n)(.*)$")
    assert.equal("data: [DONE]\n\n", done)
    assert.equal(1, chunk(last).usage.prompt_tokens)
    assert.equal("x", chunk(last).id)
    assert.truthy(last:find('"choices":[]', 1, true))
  end)

  it("is not misled by the word in a text", function()
    local raw = '{"choices":[{"delta":{"content":"\\"usage\\":{}"}}]}'
    assert.equal("data: " .. raw .. "\n\n", writer(false):event{ raw = raw })
  end)

  -- An event as the reader makes it: three pieces, and raw for who asks.
  local function pieces(head, mid, tail)
    return { head = head, mid = mid, tail = tail, raw = head .. mid .. tail }
  end

  for name, row in pairs{
    plain = { '{"c":"', '"}', '{"c":"a"}', '{"c":"a","usage":null}' },
    ["with a null usage"] = { '{"c":"', '","usage":null}',
      '{"c":"a","usage":null}', '{"c":"a","usage":null}' },
    ["with its usage first"] = { '{"usage": null,"c":"', '"}',
      '{"usage": null,"c":"a"}', '{"usage": null,"c":"a"}' },
    ["in lines"] = { '{\n"c":"', '"}', '{\ndata: "c":"a"}',
                     '{\ndata: "c":"a","usage":null}' },
  } do
    it("writes pieces as it writes the whole, " .. name, function()
      for _, usage in ipairs{ false, true } do
        local event = pieces(row[1], "a", row[2])
        local w = writer(usage)
        local wanted = "data: " .. row[usage and 4 or 3] .. "\n\n"
        assert.equal(wanted, w:event(event))
        assert.equal(wanted, w:event(event))
        assert.equal(wanted, writer(usage):event{ raw = event.raw })
      end
    end)
  end
end)
