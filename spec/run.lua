-- Runs the specs named on the command line, or all under spec/, in this
-- process: so LD_PRELOAD of a sanitizer covers them (busted's own command
-- starts a second interpreter).
require "busted.runner"{ standalone = false }
