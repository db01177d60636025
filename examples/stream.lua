-- Text as it comes: luajit examples/stream.lua "Tell me a story about a fox."
-- Nodes as in hello.lua.
local drover = require "drover"

local url, key = os.getenv "DROVER_URL", os.getenv "DROVER_KEY"
local router = assert(drover.new{
  nodes = url and { { url = url,
                      key = key and { env = "DROVER_KEY" } or false } } or nil,
})

local stream, err = router:stream{
  model = os.getenv "DROVER_MODEL" or "lambkin",
  messages = {
    { role = "user", content = arg[1]
      or "Tell me a short story about a brave fox in the forest." },
  },
}
if not stream then                  -- no node gave a first token
  error(tostring(err), 0)
end
for event in stream:events() do
  io.write(event.text or "")
  io.flush()
end
io.write("\n")

local reply, broken = stream:join() -- the whole reply, once more
if not reply then                   -- the stream broke on the way
  error(tostring(broken), 0)
end
print(("first token after %.3f s, %d tokens"):format(
      reply.drover.first_token_seconds, reply.usage.completion_tokens))
