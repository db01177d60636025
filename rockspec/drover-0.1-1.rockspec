-- luarocks make --deps-mode=none rockspec/drover-0.1-1.rockspec
-- (offline; what it needs is LuaJIT, libcurl and lua-cjson, see `make deps`)
rockspec_format = "3.0"
package = "drover"
version = "0.1-1"
source = { url = "git+file://." }
description = {
  summary = "An embeddable LLM inference router: a C core, scripts in Lua",
  license = "MIT",
}
dependencies = { "lua == 5.1", "lua-cjson" }
build = {
  type = "make",
  build_target = "all",
  install_pass = true,
  install_variables = {
    BINDIR = "$(BINDIR)",
    LIBDIR = "$(LIBDIR)",
    LUADIR = "$(LUADIR)",
    MODELDIR = "$(LUADIR)/drover/model",
  },
}
deploy = { wrap_bin_scripts = false }         -- bin/drover is a shell script
