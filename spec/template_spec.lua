-- Templates: what a placeholder finds, and what stays as it is.
local template = require "drover.template"


local function render(text, values, kept)
  return template.compile(text)(values, kept)
end


describe("template", function()
  local values = {
    name = "Ada", empty = "", n = 3, half = 0.5, big = 2 ^ 53 - 1, yes = true,
    doc = { title = "T", parts = { "one", { body = "two" } } },
    ["1"] = "by text", list = { "first" }, fn = print,
  }
  local found = {
    { "{{name}}", "Ada" },
    { "a {{ name }} b", "a Ada b" },
    { "{{name}}{{name}}", "AdaAda" },
    { "{{empty}}", "" },
    { "{{n}}/{{half}}/{{big}}", "3/0.5/9007199254740991" },
    { "{{yes}}", "true" },
    { "{{doc.title}}", "T" },
    { "{{doc.parts.1}} {{doc.parts.2.body}}", "one two" },
    { "{{list.1}}{{1}}", "firstby text" },
  }
  for _, row in ipairs(found) do
    it("renders " .. row[1], function()
      assert.equal(row[2], render(row[1], values))
    end)
  end

  for _, text in ipairs{ "", "plain", "{ one } brace", "a }} b", "}}{",
                         "{\"a\":{\"b\":1}}", "line\nline" } do
    it("leaves text without placeholders as it is: " .. text, function()
      assert.equal(text, render(text, {}))
    end)
  end

  it("writes a literal {{ for {{{{", function()
    assert.equal("{{name}} is Ada",
                 render("{{{{name}} is {{name}}", values))
  end)

  it("never scans a value again", function()
    assert.equal("{{secret}} {{{{ %1 \\",
                 render("{{a}}", { a = "{{secret}} {{{{ %1 \\", secret = "x" }))
  end)

  it("takes the value itself for {{.}}", function()
    assert.equal("say hi", render("say {{.}}", "hi"))
    assert.equal("say 7", render("say {{.}}", 7))
  end)

  it("looks a first name up among the kept values last", function()
    assert.equal("x from here, q from there", render(
      "x from {{x}}, q from {{q.0}}", { x = "here" },
      { x = "nowhere", q = { ["0"] = "there" } }))
    assert.equal("hi there", render("{{.}} {{q}}", "hi", { q = "there" }))
  end)

  local missing = {
    { "{{nobody}}", "no value for {{nobody}}" },
    { "{{doc.nothing.deep}}", "no value for {{doc.nothing.deep}}" },
    { "{{name.x}}", "no value for {{name.x}}" },
    { "{{doc}}", "the value for {{doc}} is a table, not a text" },
    { "{{fn}}", "the value for {{fn}} is a function, not a text" },
    { "{{.}}", "the value for {{.}} is a table, not a text" },
  }
  for _, row in ipairs(missing) do
    it("names the path of " .. row[1], function()
      local text, why = render(row[1], values)
      assert.is_nil(text)
      assert.equal(row[2], why)
    end)
  end

  for _, text in ipairs{ "{{name", "{{}}", "{{a b}}", "{{a..b}}", "{{.a}}",
                         "{{a.}}", "{{{name}}}", "{{f()}}", "{{a|upper}}" } do
    it("refuses to compile " .. text, function()
      assert.error_matches(function() template.compile(text) end,
                           "template, byte 1")
    end)
  end

  it("says where the template was given", function()
    local ok, message = pcall(template.compile, nil)
    assert.is_false(ok)
    assert.matches("text expected, got nil", message)
  end)
end)
