-- Texts to tokens, against other tokenizers' answers: each vocabulary of the
-- oracle, special tokens parsed and not, and GPT-2's vocabulary under each
-- pre-tokenizer. Where the references disagree (see the oracle's README) either
-- answer is right.
local ffi = require "ffi"
local oracle = require "spec.support.oracle"
local vocab = require "spec.support.vocab"

-- What is refused by name: WordPiece, and cuts of several passes.
local refused = {
  ["bert-bge"] = "tokenizer.ggml.model bert", falcon = "pre falcon",
  ["deepseek-coder"] = "pre deepseek%-coder",
  ["deepseek-llm"] = "pre deepseek%-llm",
}


local function same(a, b)
  if #a ~= #b then
    return false
  end
  for i = 1, #a do
    if a[i] ~= b[i] then
      return false
    end
  end
  return true
end


-- One of the answers; the row says which there are.
local function check(got, row, field, text)
  local want = row[field] or row.ids
  local other = row.other and (row.other[field] or row.other.ids)
  if not same(want, got) and not (other and same(other, got)) then
    error(("text %d, %s: %s\nis %s\nnot %s"):format(row.i, field,
      ("%q"):format(text:sub(1, 80)), table.concat(got, " "):sub(1, 300),
      table.concat(want, " "):sub(1, 300)))
  end
end


describe("#oracle tokenizers", function()
  local texts = {}
  for _, row in ipairs(oracle.rows("tokenizers/strings.jsonl")) do
    texts[row.i] = row.text
  end

  for _, path in ipairs(oracle.files("tokenizers/vocab", "%.gguf%.gz$")) do
    local name = path:match("([^/]+)%.gguf")
    if refused[name] then
      it("refuse " .. name .. " by name", function()
        local v, why = vocab.open_packed(oracle.path(path))
        assert.is_nil(v)
        assert.truthy(why:find(refused[name]), why)
      end)
    else
      it("give the ids of " .. name, function()
        local v = assert(vocab.open_packed(oracle.path(path)))
        for _, row in ipairs(oracle.rows("tokenizers/ids/" .. name .. ".jsonl")) do
          local text = texts[row.i]
          check(v:encode(text, false), row, "ids", text)
          check(v:encode(text, true), row, "special", text)
        end
      end)
    end
  end

  it("give the ids of each pre-tokenizer over GPT-2's vocabulary", function()
    local path = oracle.path("tokenizers/vocab/gpt-2.gguf.gz")
    local rows = oracle.rows("tokenizers/ids/pre.jsonl")
    local names, known = {}, 0
    for _, group in ipairs(oracle.json("tokenizers/ids/pre.groups.json")) do
      names[#names + 1] = { group.pre, group.pre }
      for _, same_here in ipairs(group.same_here) do
        names[#names + 1] = { same_here, group.pre }
      end
    end
    for _, pair in ipairs(names) do
      local v = vocab.open_packed(path, pair[1])
      known = known + (v and 1 or 0)
      for _, row in ipairs(v and rows or {}) do
        local ids = row.ids[pair[2]] or row.ids["gpt-2"]
        local other = row.other and (row.other[pair[1]] or row.other[pair[2]])
        local text = texts[row.i]
        local ok, why = pcall(check, v:encode(text, false),
          { i = row.i, ids = ids, other = other and { ids = other } }, "ids", text)
        assert(ok, pair[1] .. ": " .. tostring(why))
      end
    end
    assert.is_true(known >= 20, known .. " are known")
  end)

  it("give a text back byte for byte", function()
    local v = assert(vocab.open_packed(oracle.path("tokenizers/vocab/qwen3.gguf.gz")))
    for _, text in pairs(texts) do
      assert.equal(text, v:join(v:encode(text, false)))
    end
  end)

  it("are ready for a text of a million letters", function()
    for _, name in ipairs { "gpt-2", "llama-spm" } do
      local v = assert(vocab.open_packed(
        oracle.path("tokenizers/vocab/" .. name .. ".gguf.gz"), nil,
        ffi.load("build/libdrover_dev.so")))
      assert.is_true(#v:encode(("a"):rep(1000000), false) < 1000000)
    end
  end)
end)
