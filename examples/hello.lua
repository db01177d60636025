-- One question, one answer: luajit examples/hello.lua "Name 4 planets."
-- The bundled model answers, or the API that DROVER_URL, DROVER_KEY and
-- DROVER_MODEL name.
local drover = require "drover"

local url, key = os.getenv "DROVER_URL", os.getenv "DROVER_KEY"
local router = assert(drover.new{
  nodes = url and { { url = url,
                      key = key and { env = "DROVER_KEY" } or false } } or nil,
})

local reply, err = router:chat{
  model = os.getenv "DROVER_MODEL" or "lambkin",
  messages = {
    { role = "user", content = arg[1] or "What is the capital of Norway?" },
  },
}
if not reply then
  error(tostring(err), 0)
end
print(reply.choices[1].message.content)
print(("node %s, %d tokens, %.3f s"):format(reply.drover.node,
      reply.usage.completion_tokens, reply.drover.seconds))
