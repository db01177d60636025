-- A chat template's text into tokens: text between tags, and what tags hold.
-- White space is cut as the transformers library asks for: the newline behind a
-- block tag goes (trim_blocks), blanks before one at the start of its line too
-- (lstrip_blocks), and what `-` says.
--
-- A token: { kind, value, at }: "text"; "begin"/"end" of a "block" or "print";
-- "name", "string", "number", "op". `at` is a byte of the source.
--
-- SPDX-License-Identifier: MIT
local byte, find, match, sub = string.byte, string.find, string.match,
                               string.sub

local _M = {}

local OPS = { "==", "!=", "<=", ">=", "//", "**" }
local SINGLE = "^[%+%-%*/%%~<>=%(%)%[%]{},%.:|]"
local ESCAPES = { n = "\n", t = "\t", r = "\r", b = "\b", f = "\f", v = "\v",
                  a = "\a", ["0"] = "\0", ["\\"] = "\\", ["'"] = "'",
                  ['"'] = '"', ["\n"] = "" }


function _M.fail(at, why)
  error({ jinja = "syntax", message = ("byte %d: %s"):format(at, why) }, 0)
end


-- A code point as UTF-8.
function _M.utf8(code)
  if code < 0x80 then
    return string.char(code)
  elseif code < 0x800 then
    return string.char(0xc0 + math.floor(code / 64), 0x80 + code % 64)
  elseif code < 0x10000 then
    return string.char(0xe0 + math.floor(code / 4096),
                       0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return string.char(0xf0 + math.floor(code / 262144),
                     0x80 + math.floor(code / 4096) % 64,
                     0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end


-- The string that begins at `at`; its value and what is behind it. An escape
-- that Python does not know stands as it is written.
local function read_string(text, at)
  local quote, out, from = sub(text, at, at), {}, at + 1
  while true do
    local i = find(text, "[\\" .. quote .. "]", from)
    if not i then
      _M.fail(at, "a string without its end")
    end
    out[#out + 1] = sub(text, from, i - 1)
    if sub(text, i, i) == quote then
      return table.concat(out), i + 1
    end
    local c = sub(text, i + 1, i + 1)
    local hex = c == "u" and match(text, "^%x%x%x%x", i + 2)
                or c == "x" and match(text, "^%x%x", i + 2)
    if hex then
      out[#out + 1] = _M.utf8(tonumber(hex, 16))
      from = i + 2 + #hex
    else
      out[#out + 1] = ESCAPES[c] or "\\" .. c
      from = i + 2
    end
  end
end


local function add(tokens, kind, value, at)
  tokens[#tokens + 1] = { kind = kind, value = value, at = at }
end


-- One token of a tag's inside; returns where the next begins.
local function read_token(text, at, tokens)
  local name = match(text, "^[%a_][%w_]*", at)
  if name then
    add(tokens, "name", name, at)
    return at + #name
  end
  local number = match(text, "^%d+%.%d+", at) or match(text, "^%d+", at)
  if number then
    add(tokens, "number", tonumber(number), at)
    return at + #number
  end
  local c = sub(text, at, at)
  if c == "'" or c == '"' then
    local value, after = read_string(text, at)
    add(tokens, "string", value, at)
    return after
  end
  for _, op in ipairs(OPS) do
    if sub(text, at, at + 1) == op then
      add(tokens, "op", op, at)
      return at + 2
    end
  end
  if find(c, SINGLE) then
    add(tokens, "op", c, at)
    return at + 1
  end
  _M.fail(at, ("%q is nothing that a tag holds"):format(c))
end


-- The inside of a tag from `at` to its `close` ("%}" or "}}"). Returns where
-- the text goes on, and whether a `-` or `+` stood before the end. A brace of a
-- dict may touch the end of a print tag, so depth is counted.
local function read_tag(text, at, close, tokens)
  local depth = 0
  while true do
    at = find(text, "[^%s]", at)
    if not at then
      _M.fail(#text, "a tag without its end")
    end
    local sign = sub(text, at, at)
    if depth == 0 and sub(text, at, at + 1) == close then
      return at + 2, nil
    elseif depth == 0 and (sign == "-" or sign == "+")
           and sub(text, at + 1, at + 2) == close then
      return at + 3, sign
    end
    depth = depth + ((sign == "{" or sign == "(" or sign == "[") and 1
                     or (sign == "}" or sign == ")" or sign == "]") and -1 or 0)
    at = read_token(text, at, tokens)
  end
end


-- White space at the end of `piece`, for a tag that opens with `sign`;
-- `starts`: the piece begins a line.
local function cut_before(piece, sign, is_print, starts)
  if sign == "-" then
    return (piece:gsub("%s+$", ""))
  elseif is_print or sign == "+" then
    return piece
  end
  local blanks = match(piece, "()[ \t]*$")
  if blanks == 1 and starts or byte(piece, blanks - 1) == 10 then
    return sub(piece, 1, blanks - 1)
  end
  return piece
end


-- Where text goes on behind a tag that closed with `sign`.
local function skip_after(text, at, sign, is_print)
  if sign == "-" then
    return find(text, "[^%s]", at) or #text + 1
  elseif not is_print and sign ~= "+" and byte(text, at) == 10 then
    return at + 1
  end
  return at
end


local function read_comment(text, open)
  local stop = find(text, "#}", open + 2, true)
  if not stop then
    _M.fail(open, "a comment without its end")
  end
  local sign = sub(text, stop - 1, stop - 1)
  return skip_after(text, stop + 2, (sign == "-" or sign == "+") and sign)
end


-- {% raw %} … {% endraw %}: text, whatever it holds. nil when it is none.
local function read_raw(text, at, tokens)
  local inside, sign = match(text, "^{%%[%-%+]?%s*raw%s*([%-%+]?)%%}()", at)
  if not inside then
    return nil
  end
  local body = sign
  local stop, after = find(text, "{%%[%-%+]?%s*endraw%s*[%-%+]?%%}", body)
  if not stop then
    _M.fail(at, "raw without endraw")
  end
  add(tokens, "text", sub(text, body, stop - 1), body)
  return skip_after(text, after + 1, nil)
end


-- All tokens of a template.
function _M.read(text)
  local tokens, at = {}, 1
  text = text:gsub("\r\n", "\n"):gsub("\n$", "")
  while true do
    local open = find(text, "{[%%{#]", at)
    if not open then
      add(tokens, "text", sub(text, at), at)
      return tokens
    end
    local kind = sub(text, open + 1, open + 1)
    local sign = match(text, "^[%-%+]", open + 2)
    local piece = cut_before(sub(text, at, open - 1), sign, kind == "{",
                             at == 1 or byte(text, at - 1) == 10)
    if piece ~= "" then
      add(tokens, "text", piece, at)
    end
    local raw = kind == "%" and read_raw(text, open, tokens)
    if raw then
      at = raw
    elseif kind == "#" then
      at = read_comment(text, open)
    else
      local what = kind == "%" and "block" or "print"
      add(tokens, "begin", what, open)
      local after, closing = read_tag(text, open + 2 + (sign and 1 or 0),
                                      kind == "%" and "%}" or "}}", tokens)
      add(tokens, "end", what, after)
      at = skip_after(text, after, closing, what == "print")
    end
  end
end


return _M
