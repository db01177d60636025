-- engine/sched, cost: who runs and who steps next, without a model.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct engine_load { uint32_t rows; uint64_t keys; };
struct engine_cost_fit { double xx[3][3], xy[3], at[3]; uint32_t steps; };
struct engine_cost { struct engine_cost_fit small, large; };
void engine_cost_learn(struct engine_cost *c, uint32_t knee,
  struct engine_load load, double seconds);
double engine_cost_guess(const struct engine_cost *c, uint32_t knee,
  struct engine_load load);
struct engine_sched_limits {
  uint32_t seqs, rows, free_blocks, knee, drafts; int draft;
  double share, step_seconds; int64_t now_ns;
};
struct engine_sched_seq {
  uint32_t known, computed, rest, held, take; int priority, running, passed;
  int64_t arrived_ns; uint64_t twin; uint32_t offered; float gain;
  uint32_t rows, draft;
};
int engine_sched_victim(const struct engine_sched_limits *limits,
  const struct engine_sched_seq *seqs, uint32_t count);
int engine_sched_next(const struct engine_sched_limits *limits,
  const struct engine_sched_seq *seqs, uint32_t count);
int engine_sched_fits(const struct engine_sched_limits *limits,
  const struct engine_sched_seq *seqs, uint32_t count, uint32_t at);
int engine_sched_aged(const struct engine_sched_limits *limits,
  const struct engine_sched_seq *seq);
double engine_sched_share(double share, int preempted);
uint32_t engine_sched_rows(const struct engine_sched_limits *limits,
  const struct engine_cost *cost, struct engine_sched_seq *seqs, uint32_t count);
]]

local C = c.lib
local INTERACTIVE, DEFAULT, BATCH = C.DROVER_INTERACTIVE, C.DROVER_DEFAULT, C.DROVER_BATCH
local SECOND = 1e9


local function limits(fields)
  local l = { seqs = 4, rows = 64, free_blocks = 100, knee = 8, drafts = 16,
              draft = C.DROVER_DRAFT_AUTO, share = 0.5, step_seconds = 1 }
  for k, v in pairs(fields or {}) do
    l[k] = v
  end
  return ffi.new("struct engine_sched_limits", l)
end


-- Sequences that run and hold what they know, unless they say otherwise.
local function list(seqs)
  local out = ffi.new("struct engine_sched_seq[?]", #seqs + 1)
  for i, s in ipairs(seqs) do
    local known = s.known or 10
    out[i - 1] = { known = known, computed = known - 1, running = 1,
                   held = math.ceil(known / 16), gain = 1, arrived_ns = i }
    for k, v in pairs(s) do
      out[i - 1][k] = v
    end
  end
  return out, #seqs
end


-- What each step costs, learned: a + b rows + c keys.
local function cost(a, b, per_key)
  local out = ffi.new("struct engine_cost")
  for i = 1, a and 40 or 0 do
    local rows = i % 2 == 0 and i % 8 + 1 or 8 + i
    local keys = rows * ((i * 7) % 50)
    C.engine_cost_learn(out, 8, ffi.new("struct engine_load", rows, keys),
                        a + b * rows + (per_key or 0) * keys)
  end
  return out
end


-- The rows of each; guessed ones are added as "1+3".
local function rows(l, seqs, costs)
  local s, n = list(seqs)
  local all = C.engine_sched_rows(limits(l), costs or cost(), s, n)
  local out, sum = {}, 0
  for i = 1, n do
    local one = s[i - 1]
    sum = sum + one.rows + one.draft
    out[i] = one.draft > 0 and one.rows .. "+" .. one.draft or one.rows
  end
  assert.equal(all, sum)
  return out
end


local function prompt(known, computed, more)
  local s = { known = known, computed = computed or 0 }
  for k, v in pairs(more or {}) do
    s[k] = v
  end
  return s
end


describe("a step's rows", function()
  it("are none when nobody runs", function()
    assert.same({}, rows({}, {}))
    assert.same({ 0 }, rows({}, { { running = 0 } }))
  end)

  it("go to all that decode first", function()
    assert.same({ 1, 61, 1, 1 }, rows({}, { {}, prompt(61), {}, {} }))
  end)

  it("never pass the rows of a step, and leave a prompt at a block's end", function()
    assert.same({ 1, 48, 1 }, rows({}, { {}, prompt(100), {} }))
    assert.same({ 1, 60, 1 }, rows({}, { {}, prompt(100, 4), {} }))
    assert.same({ 64 }, rows({}, { prompt(1000) }))
    assert.same({ 1, 1, 1, 5 }, rows({ rows = 8 }, { {}, {}, {}, prompt(100) }))
  end)

  it("go to the shortest prompt first, and leave one partial at most", function()
    assert.same({ 0, 20, 40 },
                rows({}, { prompt(100), prompt(20), prompt(40) }))
    assert.same({ 32, 20, 0 },
                rows({}, { prompt(90), prompt(20), prompt(100) }))
    assert.same({ 0, 6, 48 },        -- by what is left of it, not by its length
                rows({}, { prompt(90), prompt(106, 100), prompt(80) }))
  end)

  it("go to interactive prompts before default ones before batches", function()
    assert.same({ 0, 0, 64 }, rows({}, { prompt(20, 0, { priority = BATCH }),
      prompt(20, 0, { priority = DEFAULT }), prompt(90, 0, { priority = INTERACTIVE }) }))
  end)

  it("go to who has waited too long before all others", function()
    local seqs = { prompt(500, 0, { arrived_ns = 0 }),
                   prompt(20, 0, { arrived_ns = 2 * SECOND }) }
    assert.same({ 32, 20 }, rows({ now_ns = 2 * SECOND - 1 }, seqs))
    assert.same({ 64, 0 }, rows({ now_ns = 2 * SECOND }, seqs))
  end)

  it("are fewer when a step would take too long", function()
    local slow = cost(0.1, 0.01)
    assert.same({ 64 }, rows({ step_seconds = 0.8 }, { prompt(100) }, slow))
    assert.same({ 32 }, rows({ step_seconds = 0.5 }, { prompt(100) }, slow))
    assert.same({ 16, 1 }, rows({ step_seconds = 0.01 }, { prompt(100), {} }, slow))
    assert.same({ 16, 0 }, rows({ step_seconds = 0.01 }, { prompt(100), prompt(200) }, slow))
    assert.same({ 7, 0 }, rows({ step_seconds = 0.01 }, { prompt(7), prompt(30) }, slow))
    assert.same({ 7, 16 }, rows({ step_seconds = 0.35 }, { prompt(7), prompt(30) }, slow))
  end)

  it("are fewer far behind in a long prompt", function()
    local keys = cost(0.001, 0.001, 0.0001)
    local near = rows({ step_seconds = 0.3 }, { prompt(5000, 0) }, keys)
    local far = rows({ step_seconds = 0.3 }, { prompt(5000, 1600) }, keys)
    assert.same({ 64 }, near)
    assert.same({ 16 }, far)
  end)

  it("wait for a block that another one computes in the same step", function()
    local seqs = { prompt(50, 0, { twin = 7 }), prompt(51, 0, { twin = 7 }),
                   prompt(10, 0, { twin = 8 }) }
    assert.same({ 50, 0, 4 }, rows({}, { seqs[1], seqs[2], prompt(4) }))
    assert.same({ 50, 0, 10 }, rows({}, seqs))
  end)
end)


describe("a long prompt among short ones that never end", function()
  -- Steps of 0.1 s and 64 rows; a prompt of 64 tokens comes with each. When the
  -- long one is through, and how long the slowest short one took.
  local function simulate(steps)
    local seqs, done, slowest = { prompt(640, 0, { arrived_ns = 0 }) }, nil, 0
    for step = 0, steps do
      seqs[#seqs + 1] = prompt(64, 0, { arrived_ns = step * 0.1 * SECOND })
      local got, kept = rows({ now_ns = step * 0.1 * SECOND }, seqs), {}
      for i, s in ipairs(seqs) do
        s.computed = s.computed + got[i]
        if s.computed < s.known then
          kept[#kept + 1] = s
        elseif s.known == 640 then
          done = done or step
        else
          slowest = math.max(slowest, step - s.arrived_ns / (0.1 * SECOND))
        end
      end
      seqs = kept
    end
    return done, slowest
  end

  it("waits two seconds and not longer, and then they wait for it", function()
    local done, slowest = simulate(60)
    assert.equal(29, done)            -- 20 steps of waiting, ten of its own
    assert.is_true(slowest <= 10)
  end)
end)


describe("guesses", function()
  local function decode(offered, gain)
    return { offered = offered, gain = gain or 1 }
  end

  it("are verified where they cost nothing, up to the knee", function()
    assert.same({ "1+4" }, rows({}, { decode(4) }))
    assert.same({ 1 }, rows({}, { decode(8) }))
    assert.same({ "1+4", 1 }, rows({}, { decode(4), decode(4) }))
  end)

  it("wait while a prompt is read", function()
    assert.same({ 1, 20 }, rows({}, { decode(4), prompt(20) }))
  end)

  it("stop where they seldom come true", function()
    assert.same({ 1 }, rows({}, { decode(4, 0.2) }))
  end)

  it("stop where they cost more than they bring", function()
    assert.same({ "1+4" }, rows({}, { decode(4, 1) }, cost(1, 0.01)))
    assert.same({ 1 }, rows({}, { decode(4, 1) }, cost(0.01, 0.1)))
    assert.same({ "1+4" }, rows({}, { decode(4, 4) }, cost(0.1, 0.02)))
    assert.same({ 1 }, rows({}, { decode(4, 0.4) }, cost(0.1, 0.02)))
  end)

  it("can be had always and never", function()
    assert.same({ "1+8", "1+8" }, rows({ draft = C.DROVER_DRAFT_ALWAYS },
      { decode(8, 0), decode(8, 0) }, cost(0.01, 0.1)))
    assert.same({ 1 }, rows({ draft = C.DROVER_DRAFT_NEVER }, { decode(4, 9) }))
  end)

  it("take no block that is not free", function()
    local edge = { known = 16, offered = 4 }
    assert.same({ "1+4" }, rows({ free_blocks = 1 }, { edge }))
    assert.same({ 1 }, rows({ free_blocks = 0 }, { edge }))
    assert.same({ 1, 1 }, rows({ free_blocks = 1 }, { edge, { known = 17, held = 1 } }))
  end)
end)


describe("admission", function()
  local function next_one(l, seqs)
    local s, n = list(seqs)
    return C.engine_sched_next(limits(l), s, n) + 1
  end

  local function fits(l, seqs, at)
    local s, n = list(seqs)
    return C.engine_sched_fits(limits(l), s, n, at - 1) == 1
  end

  local function waiting(known, rest, more)
    local s = prompt(known, 0, more)
    s.running, s.rest, s.take = 0, rest, s.take or math.ceil(known / 16)
    return s
  end

  it("looks at who is due first", function()
    assert.equal(2, next_one({}, { {}, waiting(9, 9), waiting(9, 9) }))
    assert.equal(3, next_one({}, { {}, waiting(9, 9, { passed = 1 }), waiting(9, 9) }))
    assert.equal(0, next_one({}, { {}, {} }))
    assert.equal(0, next_one({ seqs = 2 }, { {}, {}, waiting(9, 9) }))
  end)

  it("counts a lower priority as some seconds later, not as never", function()
    local seqs = { waiting(9, 9, { priority = BATCH, arrived_ns = 0 }),
                   waiting(9, 9, { priority = DEFAULT, arrived_ns = SECOND }),
                   waiting(9, 9, { priority = INTERACTIVE, arrived_ns = 2 * SECOND }) }
    assert.equal(3, next_one({}, seqs))
    seqs[3].arrived_ns, seqs[2].arrived_ns = 70 * SECOND, 70 * SECOND
    assert.equal(1, next_one({}, seqs))
  end)

  it("wants room for the prompt and a share of all that may follow", function()
    local seqs = { { known = 16, rest = 160, held = 1 }, waiting(32, 160) }
    assert.is_true(fits({ free_blocks = 12 }, seqs, 2))      -- 2 + (10 + 10) / 2
    assert.is_false(fits({ free_blocks = 11 }, seqs, 2))
    seqs[2].take = 0                                         -- found in the cache
    assert.is_true(fits({ free_blocks = 10 }, seqs, 2))
  end)

  it("leaves those that run the blocks of their next step", function()
    local seqs = { { known = 17, held = 1 }, { known = 17, held = 1 }, waiting(16, 0) }
    assert.is_false(fits({ free_blocks = 2 }, seqs, 3))
    assert.is_true(fits({ free_blocks = 3 }, seqs, 3))
  end)

  it("counts on no more than 1024 tokens of an open end", function()
    assert.is_true(fits({ free_blocks = 34 }, { {}, waiting(32, 100000) }, 2))
    assert.is_false(fits({ free_blocks = 33 }, { {}, waiting(32, 100000) }, 2))
  end)

  it("is always granted when nobody runs", function()
    assert.is_true(fits({ free_blocks = 1 }, { waiting(320, 1000) }, 1))
  end)

  it("reserves less while that goes well, and much after it did not", function()
    local share = C.engine_sched_share(1, 0)
    assert.equal(0.7, share)
    for _ = 1, 1000 do
      local was = share
      share = C.engine_sched_share(share, 0)
      assert.is_true(share <= was and share >= 0.1)
    end
    assert.equal(0.1, share)
    assert.equal(0.7, C.engine_sched_share(share, 1))
  end)

  it("lets nobody pass who has waited for two seconds", function()
    local s = list{ waiting(9, 9, { arrived_ns = 0 }) }
    assert.equal(0, C.engine_sched_aged(limits{ now_ns = 2 * SECOND - 1 }, s[0]))
    assert.equal(1, C.engine_sched_aged(limits{ now_ns = 2 * SECOND }, s[0]))
    s[0].priority = BATCH
    assert.equal(0, C.engine_sched_aged(limits{ now_ns = 61 * SECOND }, s[0]))
    assert.equal(1, C.engine_sched_aged(limits{ now_ns = 62 * SECOND }, s[0]))
  end)
end)


describe("preemption", function()
  local function victim(l, seqs)
    local s, n = list(seqs)
    return C.engine_sched_victim(limits(l), s, n) + 1
  end

  it("takes the youngest when blocks are short, and only then", function()
    local full = { known = 17, held = 1 }
    assert.equal(3, victim({ free_blocks = 2 }, { full, full, full }))
    assert.equal(0, victim({ free_blocks = 3 }, { full, full, full }))
    assert.equal(0, victim({ free_blocks = 0 }, { {}, {}, {} }))
    assert.equal(2, victim({ free_blocks = 0 }, { full, {}, { known = 40, running = 0 } }))
  end)

  it("takes the lowest priority first", function()
    assert.equal(1, victim({ free_blocks = 0 }, {
      { known = 17, held = 1, priority = BATCH },
      { known = 17, held = 1, priority = INTERACTIVE } }))
  end)

  it("never takes the only one", function()
    assert.equal(0, victim({ free_blocks = 0 }, { { known = 17, held = 1 } }))
  end)
end)


describe("any mix of requests", function()
  local function need(tokens)
    return math.ceil(tokens / 16)
  end

  -- Let go who must, let in who may; returns the free blocks.
  local function decide(l, s, n, free)
    local victim, some = C.engine_sched_victim(l, s, n), false
    while victim >= 0 do
      free, some = free + s[victim].held, true
      s[victim].running, s[victim].held, s[victim].computed = 0, 0, 0
      l.free_blocks = free
      victim = C.engine_sched_victim(l, s, n)
    end
    local at = some and -1 or C.engine_sched_next(l, s, n)
    while at >= 0 do
      s[at].take = need(s[at].known)
      if C.engine_sched_fits(l, s, n, at) == 1 and s[at].take <= free then
        s[at].running, s[at].held, free = 1, s[at].take, free - s[at].take
        l.free_blocks = free
      else
        s[at].passed = 1
      end
      at = C.engine_sched_next(l, s, n)
    end
    return free, some
  end

  it("is finished, whole, and within the rows and blocks there are", function()
    local x, preempted = 7, 0
    local function random(n)
      x = (x * 1103515245 + 12345) % 2147483648
      return math.floor(x / 65536) % n + 1
    end
    for _ = 1, 60 do
      local seqs, free, steps, share = {}, 20, 0, 0.1
      for i = 1, random(14) do
        local rest = random(150) - 1
        seqs[i] = prompt(random(150), 0, { rest = rest, arrived_ns = i, running = 0,
                                           priority = random(3) - 1, held = 0 })
      end
      while #seqs > 0 do
        local s, n = list(seqs)
        local l = limits{ rows = 32, free_blocks = free, share = share,
                          now_ns = steps * 0.05 * SECOND }
        local some
        free, some = decide(l, s, n, free)
        preempted = preempted + (some and 1 or 0)
        share = C.engine_sched_share(share, some and 1 or 0) - (some and 0.6 or 0)
        local all, kept = C.engine_sched_rows(l, cost(), s, n), {}
        assert.is_true(all > 0 and all <= 32)
        for i = 1, n do
          local one, seq = s[i - 1], seqs[i]
          local more = one.rows > 0 and math.max(0, need(one.known) - one.held) or 0
          free = free - more
          seq.running, seq.held = one.running, one.held + more
          seq.computed = one.computed + one.rows
          local done = seq.computed == seq.known and seq.rest == 0
          if seq.computed == seq.known and not done then
            seq.known, seq.rest = seq.known + 1, seq.rest - 1
          end
          if done then
            free = free + seq.held
          else
            kept[#kept + 1] = seq
          end
        end
        seqs, steps = kept, steps + 1
        assert.is_true(free >= 0 and free <= 20 and steps < 20000)
      end
      assert.equal(20, free)
    end
    assert.is_true(preempted > 50)
  end)
end)


describe("the cost of a step", function()
  local function guess(costs, n, keys)
    return C.engine_cost_guess(costs, 8, ffi.new("struct engine_load", n, keys))
  end

  it("is nothing while nothing is known", function()
    assert.equal(0, guess(cost(), 10, 0))
  end)

  it("is learned, apart for small and large steps", function()
    local costs = cost(0.1, 0.01, 0.00001)
    for _, row in ipairs{ { 4, 0 }, { 20, 500 }, { 40, 0 } } do
      local want = 0.1 + 0.01 * row[1] + 0.00001 * row[2]
      assert.is_true(math.abs(guess(costs, row[1], row[2]) - want) < 0.02 * want)
    end
    local two = ffi.new("struct engine_cost")
    for i = 1, 60 do
      local n = i % 16 + 1
      C.engine_cost_learn(two, 8, ffi.new("struct engine_load", n, 0),
                          n <= 8 and 0.1 or 0.01 * n)
    end
    assert.is_true(math.abs(guess(two, 2, 0) - 0.1) < 0.002)
    assert.is_true(math.abs(guess(two, 16, 0) - 0.16) < 0.003)
  end)

  it("never falls with more rows, and follows a machine that slows down", function()
    local costs = cost(0.1, -0.001)
    assert.is_true(guess(costs, 40, 0) >= guess(costs, 20, 0))
    costs = cost(0.01, 0.001)
    local before = guess(costs, 20, 0)
    C.engine_cost_learn(costs, 8, ffi.new("struct engine_load", 20, 0), 1000)
    assert.is_true(guess(costs, 20, 0) < 4 * before)
    for _ = 1, 100 do
      C.engine_cost_learn(costs, 8, ffi.new("struct engine_load", 20, 0), 0.3)
    end
    assert.is_true(math.abs(guess(costs, 20, 0) - 0.3) < 0.02)
  end)
end)
