local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

c.cdef[[
struct limit_cells { uint64_t *at; size_t stride; const uint32_t *top; };
struct limit_row { uint32_t row, max; };
struct limit_ask { uint32_t member, tokens, count; struct limit_row of[8]; };
struct limit_rate { uint32_t rate, unit, burst; };
struct limit_step { int64_t was, to; };
struct limit_spend { uint64_t hours[26], days[32], spare[6]; };
struct limit_name {
  int64_t tat[2];
  uint64_t asked, share;
  uint32_t has_cells, has_dollars, under, spare[5];
};
struct limit_keys {
  uint64_t *tags;
  struct limit_name *names;
  struct limit_spend *spend;
  uint64_t *locks;
  struct limit_cells cells;
  const uint64_t *base;
  uint32_t first_row, mask;
};
struct limit_hold {
  uint64_t tag;
  uint32_t place, kinds, rpm, tpm, tokens, spare;
};
struct limit_holds {
  struct limit_hold of[5];
  int64_t micro, input_micro;
  uint32_t hour, input_tokens, count, spare;
};
struct limit_want {
  const drover_limit *limit;
  uint32_t requests, dollars;
  struct limit_rate rate[2];
  int64_t cost[2], max[2];
  struct limit_step step[2];
};
struct limit_claim {
  const struct limit_keys *keys;
  struct limit_holds *holds;
  struct limit_want want[5];
  uint64_t self;
  uint32_t tokens, global, asks, dollars;
  double now;
  int64_t now_ns;
};
struct limit_refusal { uint32_t scope, kind; double max, wait; };
struct limit_bill { uint64_t self; uint32_t tokens, lost, sent;
                    double dollars, now; };
size_t limit_keys_places(uint32_t names);
uint64_t limit_keys_tag(uint32_t scope, uint64_t name);
void limit_hold_look(struct limit_claim *c, struct limit_refusal *out);
void limit_hold_rows(const struct limit_claim *c, struct limit_ask *ask);
void limit_hold_full(const struct limit_claim *c, uint32_t i,
                     struct limit_refusal *out);
int limit_hold_take(struct limit_claim *c, struct limit_refusal *out);
void limit_hold_settle(const struct limit_keys *k, struct limit_holds *h,
                       const struct limit_bill *bill);
void limit_spend_add(struct limit_spend *s, unsigned rings, uint32_t hour,
                     int64_t micro);
double limit_spend_wait(const struct limit_spend *s, int ring, int64_t max,
                        int64_t micro, double now);
uint64_t member_self(void);
]]

local NOW, NOW_NS = 100, 100000000000LL
local REQUESTS, TOKENS = 0, 1
local no = ffi.new("struct limit_refusal")
local alive


local function new_keys()
  local places = tonumber(C.limit_keys_places(64))
  alive = {
    tags = ffi.new("uint64_t[?]", places),
    names = ffi.new("struct limit_name[?]", places),
    spend = ffi.new("struct limit_spend[?]", places),
    locks = ffi.new("uint64_t[?]", places / 4),
    cells = ffi.new("uint64_t[?]", (places + 1) * 8),
    top = ffi.new("uint32_t[1]", 1), base = ffi.new("uint64_t[1]"),
  }
  return ffi.new("struct limit_keys", {
    tags = alive.tags, names = alive.names, spend = alive.spend,
    locks = alive.locks, base = alive.base, first_row = 1,
    mask = places / 8 - 2,
    cells = { at = alive.cells, stride = 8, top = alive.top },
  })
end


-- An attempt under five names, all of `limit`, that was looked at.
local function looked(k, limit)
  local holds = ffi.new("struct limit_holds", { count = 5, micro = 600,
                                                input_micro = 100,
                                                input_tokens = 10 })
  local claim = ffi.new("struct limit_claim", {
    keys = k, holds = holds, self = C.member_self(), tokens = 60, global = 3,
    dollars = 1, now = NOW, now_ns = NOW_NS,
  })
  alive.holds, alive.limit = holds, limit
  for i = 0, 4 do
    holds.of[i].tag = C.limit_keys_tag(i, 7)
    claim.want[i].limit, claim.want[i].requests = limit, 1
    claim.want[i].dollars = limit.dollars_per_day > 0 and 1 or 0
  end
  C.limit_hold_look(claim, no)
  assert.equal(0, no.kind)
  return claim, holds
end


-- All that is booked, as a text.
local function books(k, holds)
  local out = {}
  for i = 0, 4 do
    local place = holds.of[i].place
    out[#out + 1] = ("%s %s %g %g"):format(
      tostring(k.names[place].tat[REQUESTS]),
      tostring(k.names[place].tat[TOKENS]),
      C.limit_spend_wait(k.spend[place], 0, 10000, 10000, NOW),
      C.limit_spend_wait(k.spend[place], 1, 10000, 10000, NOW))
  end
  return table.concat(out, "; ")
end


local L = ffi.new("drover_limit", {
  rpm = 60, burst_requests = 3, tpm = 600, burst_tokens = 100,
  concurrent = 2, dollars_per_day = 0.01, dollars_per_month = 0.01,
})

-- What another process may have taken between the look and the taking.
local RIVALS = {
  rpm = function(k, place) k.names[place].tat[REQUESTS] = NOW_NS * 2 end,
  tpm = function(k, place) k.names[place].tat[TOKENS] = NOW_NS * 2 end,
  day = function(k, place) C.limit_spend_add(k.spend[place], 1, 0, 9999) end,
  month = function(k, place) C.limit_spend_add(k.spend[place], 2, 0, 9999) end,
}
local KIND = { rpm = 2, tpm = 3, day = 4, month = 5 }


describe("taking", function()
  it("books every limit of every name", function()
    local k = new_keys()
    local claim, holds = looked(k, L)
    assert.equal(1, C.limit_hold_take(claim, no))
    for i = 0, 4 do
      local name = k.names[holds.of[i].place]
      assert.equal(NOW_NS + 1000000000LL, name.tat[REQUESTS])
      assert.equal(NOW_NS + 6000000000LL, name.tat[TOKENS])
      assert.is_true(C.limit_spend_wait(k.spend[holds.of[i].place], 0, 10000,
                                        9401, NOW) > 0)
      assert.equal(0, C.limit_spend_wait(k.spend[holds.of[i].place], 1, 10000,
                                         9400, NOW))
    end
  end)

  for i = 0, 4 do
    for kind, rival in pairs(RIVALS) do
      it("leaves nothing when a rival was first: name " .. i .. ", " .. kind,
      function()
        local k = new_keys()
        local claim, holds = looked(k, L)
        rival(k, holds.of[i].place)
        local before = books(k, holds)
        assert.equal(0, C.limit_hold_take(claim, no))
        assert.equal(i, no.scope)
        assert.equal(KIND[kind], no.kind)
        assert.is_true(no.wait > 0)
        assert.equal(before, books(k, holds))
        for j = 0, 4 do
          assert.equal(1, holds.of[j].kinds)        -- the slot, the caller's
        end
      end)
    end

    for name, fields in pairs{ slots = { concurrent = 2 }, rpm = { rpm = 60 },
                               tpm = { tpm = 600, burst_tokens = 100 },
                               dollars = { dollars_per_day = 0.01 }, all = L } do
      it("leaves nothing, and refuses nothing, when name " .. i .. " moved: "
         .. name, function()
        local k = new_keys()
        local claim, holds = looked(k, ffi.new("drover_limit", fields))
        local before = books(k, holds)
        k.tags[holds.of[i].place] = C.limit_keys_tag(1, 12345)
        assert.equal(0, C.limit_hold_take(claim, no))
        assert.equal(0, no.kind)
        assert.equal(before, books(k, holds))
      end)
    end
  end

  it("wants the cells of each name with a limit on them", function()
    local k = new_keys()
    local claim, holds = looked(k, L)
    local ask = ffi.new("struct limit_ask", { count = 2 })
    C.limit_hold_rows(claim, ask)
    assert.equal(7, ask.count)
    for i = 0, 4 do
      assert.equal(1 + holds.of[i].place, ask.of[2 + i].row)
      assert.equal(2, ask.of[2 + i].max)
      C.limit_hold_full(claim, i, no)
      assert.same({ i, 1, 2 }, { no.scope, no.kind, no.max })
    end
  end)
end)


describe("a record", function()
  local function bill(fields)
    fields.now = NOW
    return ffi.new("struct limit_bill", fields)
  end

  for name, fields in pairs{
    ["never sent"] = {}, ["lost"] = { sent = 1, lost = 1 },
    ["with less"] = { sent = 1, tokens = 20, dollars = 1e-4 },
    ["with more"] = { sent = 1, tokens = 500, dollars = 0.5 },
  } do
    it("is settled once: " .. name, function()
      local k = new_keys()
      local claim, holds = looked(k, L)
      C.limit_hold_take(claim, no)
      C.limit_hold_settle(k, holds, bill(fields))
      local after = books(k, holds)
      for _ = 1, 3 do
        C.limit_hold_settle(k, holds, bill(fields))
        C.limit_hold_settle(k, holds, bill{})
      end
      assert.equal(after, books(k, holds))
      assert.equal(1, holds.of[0].kinds)
    end)
  end

  it("of an attempt that was never sent leaves nothing", function()
    local k = new_keys()
    local claim, holds = looked(k, L)
    C.limit_hold_take(claim, no)
    C.limit_hold_settle(k, holds, bill{})
    for i = 0, 4 do
      local place = holds.of[i].place
      assert.is_true(k.names[place].tat[REQUESTS] <= NOW_NS)
      assert.is_true(k.names[place].tat[TOKENS] <= NOW_NS)
      assert.equal(0, C.limit_spend_wait(k.spend[place], 0, 10000, 10000, NOW))
    end
  end)
end)
