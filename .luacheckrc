-- Lua as LuaJIT runs it. Only lua/drover/resty says ngx; a test of whether
-- it is there goes through rawget.
std = "luajit"
max_line_length = 100
unused_args = true

files["spec"] = { std = "luajit+busted" }
files["lua/drover/resty"] = { std = "ngx_lua" }
files["bench/pick"] = { std = "ngx_lua" }       -- loaded by nginx's workers
exclude_files = { "build/**" }
