-- Rows 10 to 24 and 44 to 48 of the fault matrix: what goes wrong on the wire,
-- for a plain chat and a stream, with one node and with three.
local C = require "drover.core"
local matrix = require "spec.support.matrix"

local fault_server = require "spec.support.fault_server"

local hex = fault_server.hex
local SOON = { connect = 5, first_token = 0.15, idle = 0.15, total = 20 }
local LATE = { connect = 5, first_token = 5, idle = 5, total = 0.2 }


local MIB = 2^20
local BUFFERS = 12 * MIB            -- what two sockets may hold


-- The server could not send more than the caller may get.
local function bounded(most)
  return function(result)
    for _, request in ipairs(result.log.requests) do
      assert.is_true(request.sent < most + BUFFERS, request.sent)
    end
  end
end


local function quirk(result)
  assert.matches("\ndrover_stream_quirks_total 1\n", result.metrics)
end


describe("on the wire,", function()
  teardown(matrix.stop)

  matrix.specs(it, {
    -- 10, 16: the connection breaks
    { row = 10, fault = "reset=0", class = "ambiguous", kind = "reset",
      phase = "first_token", billed = true },
    { row = 10, fault = "close=0", class = "ambiguous", kind = "reset",
      phase = "first_token", billed = true },
    { row = 11, fault = "stall", way = "stream", class = "ambiguous",
      kind = "timeout", phase = "first_token", billed = true, timeout = SOON },
    { row = 11, fault = "stall", way = "chat", class = "final",
      kind = "timeout", phase = "first_token", billed = true, timeout = LATE },
    { row = 12, fault = "ok;delay=40", class = "good",
      check = function(result, _, way)
        local first = result.nodes[1].first_token_ms
        assert.is_true(way == "chat" or first >= 39, first)
      end },
    { row = 14, fault = "ok;after=1;hold", way = "stream", class = "final",
      kind = "timeout", phase = "stream", billed = true, timeout = SOON,
      seen = 1 },
    { row = 14, fault = "ok;after=0;hold", way = "stream", class = "ambiguous",
      kind = "timeout", billed = true, timeout = SOON },
    { row = 14, fault = "ok;after=1;ping=5", way = "stream", class = "final",
      kind = "timeout", phase = "stream", billed = true, timeout = SOON,
      seen = 1 },
    { row = 16, fault = "reset=200", class = "ambiguous", kind = "reset",
      billed = true },
    { row = 16, fault = "ok;after=2;rst", way = "stream", class = "final",
      kind = "reset", billed = true, seen = 2 },
    { row = 17, fault = "ok;nozero", way = "stream", class = "good" },
    { row = 17, fault = "ok;after=2;cut", way = "stream", class = "final",
      kind = "truncated", seen = 2 },
    { row = 17, fault = "ok;after=0;cut", way = "stream", class = "ambiguous",
      kind = "truncated" },
    { row = 18, fault = "length=9", way = "chat", class = "ambiguous",
      kind = "truncated" },
    { row = 18, fault = "length=9", way = "stream", class = "good",
      text = "w" },
    { row = 18, fault = "length=-9", way = "chat", class = "ambiguous",
      kind = "malformed" },
    { row = 19, fault = "badchunk", class = "ambiguous", kind = "malformed" },
    { row = 19, fault = "badchunk=zz", class = "ambiguous",
      kind = "malformed" },
    { row = 19, fault = "badchunk=max", class = "ambiguous",
      kind = "malformed" },
    { row = 19, fault = "badchunk=ext", class = "ambiguous",
      kind = "malformed" },
    { row = 19, fault = "badchunk;after=1", way = "stream", class = "final",
      kind = "malformed", seen = 1 },
    { row = 20, fault = "ok;nodone;nofinish", way = "stream", class = "final",
      kind = "truncated", seen = 3 },
    { row = 21, fault = "ok;nodone", way = "stream", class = "good",
      check = quirk },
    { row = 22, fault = "json=broken;after=0", way = "stream",
      class = "ambiguous", kind = "malformed" },
    { row = 22, fault = "json=broken;after=1", way = "stream", class = "final",
      kind = "malformed", seen = 1 },
    { row = 23, fault = "endless", way = "stream", class = "ambiguous",
      kind = "malformed", check = bounded(MIB) },
    { row = 23, fault = "ok;after=1;flood", way = "stream", class = "final",
      kind = "malformed", seen = 1, check = bounded(MIB) },
    { row = 24, fault = "html", class = "ambiguous", kind = "malformed" },
    { row = 24, fault = "whole", way = "stream", class = "good",
      whole = true },
    { row = 44, fault = "interim=8", class = "good" },
    { row = 44, fault = "raw=" .. hex "HTTP/1.1 200\r\n\r\n",
      class = "ambiguous", kind = "malformed" },
    { row = 44, fault = "status=666", class = "ambiguous", kind = "malformed" },
    { row = 44, fault = "junk", class = "ambiguous", kind = "malformed" },
    { row = 46, fault = "lines=40;size=8000", class = "ambiguous",
      kind = "malformed" },
    { row = 46, fault = "lines=5001", class = "ambiguous",
      kind = "malformed" },
    { row = 46, fault = "raw=" .. hex("HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\n"
        .. "Content-Length: 2\r\n\r\n{}"),
      class = "ambiguous", kind = "malformed" },
    { row = 46, fault = "raw=" .. hex("HTTP/1.1 200 OK\r\nX-A: a\0b\r\n\r\n"),
      class = "ambiguous", kind = "malformed" },
    { row = 47, fault = "huge=40000000", way = "chat", class = "final",
      kind = "too_large", billed = true, check = bounded(32 * MIB) },
    { row = 47, fault = "ok;n=200000;size=9000", way = "stream",
      class = "final", kind = "too_large", phase = "stream", billed = true,
      shapes = { true }, check = bounded(64 * MIB) },
    { row = 48, fault = "gzip", class = "ambiguous", kind = "malformed" },
    { row = 48, fault = "gzip;five", class = "ambiguous",
      kind = "malformed" },
  })

  -- A redirect's target hears nothing, and no key is sent twice.
  for _, status in ipairs{ 301, 302, 307, 308 } do
    for _, way in ipairs{ "chat", "stream" } do
      it("row 45: a " .. status .. " is not followed, " .. way, function()
        local decoy = fault_server.start{ "--quiet" }
        local fault = "redirect=" .. decoy.port .. ";status=" .. status
        local row = { row = 45, class = "final", kind = "malformed",
                      billed = false, fault = fault }
        matrix.prove(row, 1, way)
        matrix.prove(row, 2, way)
        assert.equal(0, decoy:totals().connections)
        decoy:stop()
      end)
    end
  end

  for _, way in ipairs{ "chat", "stream" } do
    it("row 15: bytes that drip make the same answer, " .. way, function()
      matrix.prove({ row = 15, fault = "drip=0", class = "good" }, 1, way)
    end)

    it("row 15: the total deadline ends a drip, " .. way, function()
      matrix.prove({ row = 15, fault = "drip=40", class = "final",
                     kind = "timeout", billed = true,
                     timeout = { total = 0.3 } }, 2, way)
    end)
  end

  -- One node whose every answer is cut one byte further than the last; its
  -- breaker is told to forget it each time.
  for _, fault in ipairs{ "reset", "close" } do
    for _, way in ipairs{ "chat", "stream" } do
      it("row 16: " .. fault .. " at every byte, " .. way, function()
        local row = { fault = fault .. "=turn", retry = { attempts = 1 } }
        matrix.with(row, 1, function(router)
          local sends, cut = 0
          repeat
            cut = matrix.ask(router, row, way)
            sends = sends + 1
            assert.equal(1, #cut.ledger)
            assert.is_true(cut.ledger[1].maybe_billed)
            assert.truthy(not cut.err or ("reset truncated malformed")
                                         :find(cut.err.kind))
            C.drover_node_clear(router.handle, "n1", C.drover_clock())
          until not cut.err             -- all that matters had come
          assert.is_true(sends > 300)
          assert.equal(sends, matrix.server():log().bodies)
        end)
      end)
    end
  end
end)
