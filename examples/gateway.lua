-- A gateway's configuration: callers' keys, limits, and a queue.
--   build/bin/drover serve --config examples/gateway.lua
--   curl -H "Authorization: Bearer key-of-ann-7Qm2" \
--        http://127.0.0.1:8000/v1/models
-- Every field is in docs/OPERATIONS.md and, for `router`, docs/LUA-API.md.
return {
  listen = "127.0.0.1:8000",
  workers = 1,                              -- one, for a model on this machine

  keys = {                                  -- 401 without one of these
    { key = "key-of-ann-7Qm2", name = "ann",
      limits = { rpm = 600, tpm = 200000, concurrent = 8 } },
    { key = "key-of-bob-x0Lw", name = "bob" },       -- has what all tenants have
    { key = "key-of-trial-4t", name = "trial",
      limits = { rpm = 2, burst = { requests = 1 } } },
  },

  router = {                                -- without `nodes`: the model that
    limits = {                              -- comes with Drover
      concurrent = 64,
      wait = 2,                             -- seconds in the queue, then 429
      per = { tenant = { rpm = 60, tpm = 50000, concurrent = 2 } },
    },
    queue = { size = 200 },
    timeout = { first_token = 30, total = 300 },
  },
}
