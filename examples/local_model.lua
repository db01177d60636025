-- A GGUF file on this machine's CPU: luajit examples/local_model.lua [FILE]
-- The engine runs inside this process, on a thread of its own.
local drover = require "drover"

local path = arg[1] or require("drover.bundled").path()
local router, unreadable = drover.new{
  nodes = { { id = "here", url = "local:" .. path, batch = 8,
              memory_cap_gb = 1 } },
}
if not router then                  -- no such file, or not a model we know
  error(tostring(unreadable), 0)
end

local model = router:models()[1]
local reply, err = router:chat{
  model = model,
  temperature = 0,                  -- greedy: the same answer each time
  max_tokens = 60,
  messages = { { role = "user", content = "Name three fruits." } },
}
if not reply then
  error(tostring(err), 0)
end
print(model .. ": " .. reply.choices[1].message.content)
print(("%.0f tokens a second"):format(
      reply.usage.completion_tokens / reply.drover.seconds))
router:close()
