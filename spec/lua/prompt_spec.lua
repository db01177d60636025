-- Messages into prompts by a file's own template; and the commands that show
-- what a file makes of a text.
local ffi = require "ffi"
local C = require "drover.core"
local gguf = require "spec.support.gguf"
local json = require "drover.json"
local prompts = require "drover.prompt"

local STR = gguf.STR


local function model(template)
  local file = gguf.llama()
  local key = "tokenizer.chat_template"
  local path, remove = gguf.write(gguf.build(gguf.set(file, key,
    template and STR, template)))
  local out, err = ffi.new("drover_model *[1]"), ffi.new("drover_err")
  assert(C.drover_model_open(out, path, err) == 0, ffi.string(err.text))
  remove()
  return ffi.gc(out[0], C.drover_model_close)
end


local function said(...)
  local list = {}
  for i, pair in ipairs { ... } do
    list[i] = { role = pair[1], content = pair[2] }
  end
  return list
end


describe("a model's prompts", function()
  it("are what its template makes of messages", function()
    local p = assert(prompts.new(model(
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
      .. "{% if add_generation_prompt %}>{% endif %}")))
    assert.equal("[user]hi>", p:render(said { "user", "hi" }))
    assert.equal("[user]hi", p:render(said { "user", "hi" }, { generate = false }))
  end)

  it("mark control tokens that users wrote, wherever they end up", function()
    local p = assert(prompts.new(model(
      "<|im_start|>{% for m in messages %}{{ m.content | trim }}{% endfor %}")))
    assert.equal("<|im_start|>a<\254|im_end|>",
                 p:render(said { "user", "  a<|im_end|> " }))
    assert.equal("<|im_start|>a<|im_end|>", prompts.plain(
                 p:render(said { "user", "a<|im_end|>" })))
  end)

  it("fold a system message that the template refuses or drops", function()
    for _, template in ipairs {
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}"
        .. "{% endif %}{{ m.content }};{% endfor %}",
      "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }};{% endif %}"
        .. "{% endfor %}",
    } do
      local p = assert(prompts.new(model(template)))
      assert.equal("be\n\nhi;ho;", p:render(said({ "system", "be" }, { "user", "hi" },
                                                 { "user", "ho" })))
    end
  end)

  it("say what a template says", function()
    local p = assert(prompts.new(model("{{ raise_exception('roles must alternate') }}")))
    local text, why, kind = p:render(said { "user", "x" })
    assert.same({ nil, "roles must alternate", "raise" }, { text, why, kind })
  end)

  it("are refused where there is no template, or none that is known", function()
    local p, why = prompts.new(model(nil))
    assert.is_nil(p)
    assert.truthy(why:find("no chat template", 1, true))
    p, why = prompts.new(model("{% include 'x' %}"))
    assert.is_nil(p)
    assert.truthy(why:find("include", 1, true))
    p = assert(prompts.new(model("{% include 'x' %}"), "chatml"))
    assert.equal("<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n",
                 p:render(said { "user", "x" }))
    p, why = prompts.new(model(nil), "llama7")
    assert.is_nil(p)
    assert.truthy(why:find("chatml", 1, true))
  end)
end)


-- A command with its standard input: what it printed, what it said.
local function run(words, input)
  local from, to, bad = os.tmpname(), os.tmpname(), os.tmpname()
  local file = assert(io.open(from, "wb"))
  file:write(input or "")
  file:close()
  local ok = os.execute(("env -u LD_PRELOAD DROVER_LIB= build/bin/drover %s < %s > %s 2> %s")
                        :format(words, from, to, bad))
  local out = {}
  for i, path in ipairs { to, bad, from } do
    file = io.open(path, "rb")
    out[i] = file:read("*a")
    file:close()
    os.remove(path)
  end
  return out[1], out[2], ok == 0
end


describe("drover", function()
  it("tokenize prints ids", function()
    local text = "Once upon <|im_end|>"
    local plain = json.decode((run("tokenize", text)))
    local special = json.decode((run("tokenize --special", text)))
    assert.is_true(#special < #plain)
    -- this model wants no BOS
    assert.equal(#special, #json.decode((run("tokenize --special --bos", text))))
  end)

  it("render prints a prompt", function()
    local out = run("render", '[{"role":"user","content":"hi"}]')
    assert.truthy(out:find("hi", 1, true))
    assert.truthy(out:find("assistant", 1, true))
    local same = run("render", '{"messages":[{"role":"user","content":"hi"}]}')
    assert.equal(out, same)
  end)

  it("inspect prints keys and tensors", function()
    local out = run "inspect model/lambkin-q8_0.gguf"
    assert.truthy(out:find("general.architecture = llama", 1, true))
    assert.truthy(out:find("token_embd.weight Q8_0 ", 1, true))
  end)

  it("says what is wrong", function()
    for words, why in pairs {
      ["inspect"] = "FILE.gguf", ["inspect /dev/null"] = "regular file",
      ["inspect a b"] = "unexpected word", ["render --template x"] = "chatml",
      ["tokenize --model /none"] = "/none", ["render"] = "JSON",
      ["tokenize --no"] = "unknown flag",
    } do
      local out, said_why, ok = run(words, "{")
      assert.same({ "", false }, { out, ok })
      assert.truthy(said_why:find(why, 1, true), words .. ": " .. said_why)
    end
  end)
end)
