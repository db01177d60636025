-- engine/choose: what a request does to the logits, and its other wishes of
-- tokens: choices, log-probabilities, stop ids, echo.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local gguf = require "spec.support.gguf"
local json = require "cjson"

c.cdef[[
struct engine_vocab; struct engine_trie; struct engine_candidate;
struct engine_choose { char room[512]; };
struct engine_ids { int32_t *at; size_t count, room; };
struct engine_row { const float *logits; uint32_t count; float *work;
  void *scratch; const struct engine_ids *ids; uint32_t prompt; };
struct engine_few { uint32_t kind; void *pre; uint32_t size; };
int engine_choose_init(struct engine_choose *c, const struct engine_few *v,
  const struct engine_trie *trie, const drover_generate *g, drover_err *err);
int engine_choose_next(struct engine_choose *c, const struct engine_row *row,
  int32_t *id, drover_err *err);
void engine_choose_deinit(struct engine_choose *c);
long mem_live(void);
]]

local C = c.lib
local STOP, LENGTH = C.DROVER_FINISH_STOP, C.DROVER_FINISH_LENGTH
local NAN = 0 / 0


-- What is chosen of hand-made logits behind ids (`prompt` of them the
-- prompt's), by a request of these fields; and the logits that it made.
local function choose(logits, ids, prompt, fields)
  local n = #logits
  local vocab = ffi.new("struct engine_few", 0, nil, n)   -- what it reads of one
  local choice, err = ffi.new("struct engine_choose"), ffi.new("drover_err")
  local g = engine.request(fields)
  assert.equal(0, C.engine_choose_init(choice, vocab, nil, g, err))
  local raw, work = ffi.new("float[?]", n, logits), ffi.new("float[?]", n)
  local list = ffi.new("int32_t[?]", #ids + 1, ids)
  local all = ffi.new("struct engine_ids", list, #ids, #ids)
  local row = ffi.new("struct engine_row", raw, n, work,
                      ffi.new("char[?]", 16 * n), all, prompt)
  local id = ffi.new("int32_t[1]")
  local rc = C.engine_choose_next(choice, row, id, err)
  C.engine_choose_deinit(choice)
  if rc ~= 0 then
    return nil, ffi.string(err.text), rc
  end
  local made = {}
  for i = 1, n do
    made[i] = work[i - 1]
  end
  return id[0], made
end


local function near(want, got)
  for i, x in ipairs(want) do
    assert.is_true(math.abs(x - got[i]) < 1e-5,
                   ("%d: %g for %g"):format(i, got[i], x))
  end
end


describe("a request's wishes", function()
  it("bias single tokens", function()
    local id, made = choose({ 1, 2, 3 }, {}, 0, { bias = { [0] = 2.5, [2] = -100 } })
    assert.equal(0, id)
    near({ 3.5, 2, -97 }, made)
  end)

  it("divide and multiply what stood in prompt or reply by repetition", function()
    local id, made = choose({ 4, -4, 3, -3 }, { 0, 1, 0, 0 }, 2, { repetition = 2 })
    near({ 2, -8, 3, -3 }, made)
    assert.equal(2, id)
  end)

  it("take presence once and frequency each time, of the reply alone", function()
    local _, made = choose({ 1, 1, 1, 1 }, { 3, 0, 1, 1, 1 }, 1,
                           { presence = 0.5, frequency = 0.25 })
    near({ 0.25, -0.25, 1, 1 }, made)
    _, made = choose({ 1, 1 }, { 0, 0 }, 0, { presence = -1, frequency = -0.5 })
    near({ 3, 1 }, made)
  end)

  it("apply the bias first, then repetition, then the others", function()
    local _, made = choose({ 1, 0 }, { 0 }, 0, { bias = { [0] = -3 },
                           repetition = 2, presence = 1, frequency = 1 })
    near({ -6, 0 }, made)
  end)

  it("know thousands of tokens", function()
    local ids, logits = {}, {}
    for i = 1, 3000 do
      ids[i], logits[i] = i - 1, 1
    end
    logits[3001] = 0.5
    local id = choose(logits, ids, 0, { frequency = 1 })
    assert.equal(3000, id)
  end)

  it("do not hide logits that are no numbers", function()
    for _, fields in ipairs{ {}, { bias = { [0] = -100 } }, { repetition = 2 },
                             { temperature = 1, top_k = 1 } } do
      local id, text, code = choose({ NAN, 1 }, { 0 }, 0, fields)
      assert.is_nil(id)
      assert.equal(C.DROVER_EINTERNAL, code)
      assert.is_truthy(text:find("^nan_logits"))
    end
  end)
end)


describe("an engine's request", function()
  local path

  setup(function() path = gguf.write(gguf.build(gguf.llama("bpe"))) end)
  teardown(function() os.remove(path) end)
  after_each(engine.close_all)

  local function open(config)
    return assert(engine.open(path, config))
  end

  it("names the field that is out of range", function()
    local e = open()
    local vocab = e.vocab
    local rows = {
      { { min_p = 1.5 }, "min_p: 1.5" }, { { min_p = NAN }, "min_p" },
      { { repetition = -1 }, "repetition_penalty" },
      { { repetition = 1000 }, "repetition_penalty" },
      { { presence = 2.5 }, "presence_penalty: 2.5" },
      { { frequency = NAN }, "frequency_penalty" },
      { { bias = { [0] = 101 } }, "logit_bias: 101" },
      { { bias = { [vocab] = 1 } }, "logit_bias%[0%]: token " .. vocab },
      { { bias = { [-1] = 1 } }, "logit_bias%[0%]: token %-1" },
      { { bias_count = 1025 }, "logit_bias: 1025" },
      { { stop_id = { 0, vocab } }, "stop_token_ids%[1%]: token " .. vocab },
      { { stop_id_count = 65 }, "stop_token_ids: 65" },
      { { stop_id_count = 1 }, "stop_token_ids: missing" },
      { { bias_count = 1 }, "logit_bias: missing" },
      { { logprobs = 1, top_logprobs = 21 }, "top_logprobs: 21" },
      { { logprobs = 2 }, "logprobs: 2" },
      { { top_logprobs = 1 }, "top_logprobs: without" },
      { { n = 129 }, "n: 129" }, { { echo = 1, logprobs = 1 }, "echo:" },
      { { format = 9 }, "response_format" },
      { { format = C.DROVER_FORMAT_SCHEMA }, "response_format" },
      { { format = C.DROVER_FORMAT_SCHEMA, schema = '{"type":"x"}' },
        "response_format: schema.type" },
    }
    for _, row in ipairs(rows) do
      row[1].prompt = "a"
      local id, text = e:queue(row[1])
      assert.is_nil(id)
      assert.is_truthy(text:find("^" .. row[2]), text)
    end
    assert.equal(0, e:turn())
  end)

  it("ends at a stop id, which gives no text", function()
    local e = open()
    local free = e:ask{ prompt = "abc", max_tokens = 8 }
    local ids = e:encode("abc", true, true)
    local all, id = e:logits(ids), 0
    local last = (#ids - 1) * e.vocab
    for i = 1, e.vocab - 1 do
      id = all[last + i] > all[last + id] and i or id
    end
    local r = e:ask{ prompt = "abc", max_tokens = 8, stop_id = { 0, id } }
    assert.equal(LENGTH, free.finish)
    assert.same({ STOP, 1, "" }, { r.finish, r.completion_tokens, r.text })
  end)

  it("gives a choice for each of n, the first as alone", function()
    local e = open()
    local fields = { prompt = "abc", max_tokens = 12, temperature = 2, seed = 7 }
    local alone = e:ask(fields)
    fields.n = 3
    local r = e:ask(fields)
    assert.equal(alone.text, r.texts[0])
    assert.not_equal(r.texts[0], r.texts[1])
    assert.not_equal(r.texts[1], r.texts[2])
    local ended = 0
    for _ in pairs(r.choices) do
      ended = ended + 1
    end
    assert.equal(2, ended)                     -- the third by END
    assert.equal(alone.prompt_tokens, r.prompt_tokens)
    assert.is_true(r.completion_tokens > alone.completion_tokens)
  end)

  it("takes n places of the queue, or none", function()
    local e = open{ batch = 2, queue = 2 }
    local id, _, code = e:queue{ prompt = "a", n = 5 }
    assert.is_nil(id)
    assert.equal(C.DROVER_EOVERLOADED, code)
    assert(e:queue{ prompt = "a", n = 3, max_tokens = 2 })
    assert.is_nil(e:queue{ prompt = "a", n = 2, max_tokens = 2, call = 2 })
    assert(e:queue{ prompt = "a", max_tokens = 2, call = 2 })
    e:drain()
    assert.is_true(e.replies[1].ended and e.replies[2].ended)
    assert.equal(0, e:busy().running + e:busy().kv_tokens_used)
  end)

  it("ends all its choices when it is cancelled", function()
    local e = open()
    local id = assert(e:queue{ prompt = "abc", n = 4, max_tokens = 30 })
    e:turn()
    C.engine_cancel(e.at, id)
    assert.equal(0, e:turn())
    assert.equal(0, e:busy().kv_tokens_used)
  end)

  it("fails once, for all its choices", function()
    local e = open()
    assert(e:queue{ prompt = "abc", n = 4, max_tokens = 30, total = 5 })
    e:turn()
    e:turn(9e18)
    assert.equal(C.DROVER_ETIMEOUT, e.replies[1].code)
    assert.equal(0, e:turn())
    assert.equal(0, e:busy().kv_tokens_used)
    e.replies[1] = nil
    local before = C.mem_live()
    e:ask{ prompt = "a", n = 2, max_tokens = 2 }
    assert.equal(before, C.mem_live())
  end)

  it("has its first token when one of its choices has", function()
    local e = open{ batch = 1 }
    assert(e:queue{ prompt = "abc", n = 2, max_tokens = 4, first_token = 5,
                    temperature = 1 })
    e:turn()
    e:turn(9e18)                               -- the second still waits
    e:drain()
    assert.is_nil(e.replies[1].code)
    assert.is_truthy(e.replies[1].finish)
  end)

  it("echoes its prompt before the reply", function()
    local e = open()
    local plain = e:ask{ prompt = "abc\255", max_tokens = 5, stop = { "c" } }
    local r = e:ask{ prompt = "abc\255", max_tokens = 5, stop = { "c" }, echo = 1,
                     n = 2 }
    assert.equal("abc\239\191\189" .. plain.text, r.texts[0])
    assert.equal("abc\239\191\189", r.texts[1]:sub(1, 6))
  end)

  it("tells log-probabilities that a plain log-softmax gives", function()
    local e = open()
    for _, fields in ipairs{ { temperature = 0 }, { temperature = 1.5, seed = 4 },
                             { temperature = 1, bias = { [5] = 50 }, top_k = 3 } } do
      fields.prompt, fields.max_tokens = "abc", 6
      fields.logprobs, fields.top_logprobs = 1, 4
      local r = e:ask(fields)
      local list = json.decode("[" .. r.logprobs .. "]")
      assert.equal(r.completion_tokens, #list)
      local ids = e:encode("abc", true, true)
      for _, entry in ipairs(list) do
        local all, sum, chosen = e:logits(ids), 0, nil
        local row = all + (#ids - 1) * e.vocab
        for i = 0, e.vocab - 1 do
          sum = sum + math.exp(row[i])
        end
        for i = 0, e.vocab - 1 do
          if math.abs(row[i] - math.log(sum) - entry.logprob) < 1e-6 then
            chosen = i
          end
        end
        ids[#ids + 1] = assert(chosen)
        assert.equal(4, #entry.top_logprobs)
        for i = 2, 4 do
          assert.is_true(entry.top_logprobs[i - 1].logprob
                         >= entry.top_logprobs[i].logprob)
        end
        if fields.temperature == 0 then
          assert.equal(entry.logprob, entry.top_logprobs[1].logprob)
        end
      end
    end
  end)

  it("draws the same whoever runs beside it", function()
    local e = open()
    local fields = { call = 1, prompt = "abc", max_tokens = 20, seed = 11,
                     temperature = 1.3, min_p = 0.01, repetition = 1.2,
                     presence = 0.5, frequency = 0.3, bias = { [3] = 4 },
                     logprobs = 1, top_logprobs = 2 }
    local alone = e:ask(fields)
    for i = 2, 9 do
      assert(e:queue{ call = i, prompt = ("ab"):rep(i), max_tokens = 3 * i,
                      seed = i, temperature = 1, n = i % 3 + 1 })
      e:turn()
    end
    local beside = e:ask(fields)
    assert.equal(alone.text, beside.text)
    assert.equal(alone.logprobs, beside.logprobs)
  end)
end)
