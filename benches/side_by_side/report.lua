-- What `wrk` did, as one JSON object on the last line, and the requests themselves.
local body = os.getenv("LOAD_BODY")
local pause = tonumber(os.getenv("LOAD_PAUSE_MS") or "0")
local sessions = os.getenv("LOAD_SESSIONS")

wrk.method = os.getenv("LOAD_METHOD") or "GET"
if body then
  wrk.body = string.rep("x", tonumber(body))
  wrk.headers["Content-Type"] = "application/octet-stream"
end

-- wrk asks for a pause, or for a request, before each one only if there is such a function, and asking costs time.
if pause > 0 then
  function delay()
    -- Spread around the mean, so that the connections do not march in step.
    return math.floor(pause * 2 * math.random())
  end
end

if sessions then
  -- Requests and draws are made before the first one is sent.
  local requests, draws, next_draw = {}, {}, 0
  local DRAWS = 65536

  function init()
    math.randomseed(tonumber(os.getenv("LOAD_SEED") or "1"))
    local exponent, sum, sums = tonumber(os.getenv("LOAD_ZIPF") or "1"), 0, {}
    for id in io.lines(sessions) do
      wrk.headers["Cookie"] = "session_id=" .. id .. "/1"
      requests[#requests + 1] = wrk.format()
      sum = sum + 1 / (#requests) ^ exponent
      sums[#requests] = sum
    end
    for draw = 1, DRAWS do
      -- The first session whose share of the sum is reached.
      local wanted, low, high = math.random() * sum, 1, #sums
      while low < high do
        local middle = math.floor((low + high) / 2)
        if sums[middle] < wanted then low = middle + 1 else high = middle end
      end
      draws[draw] = low
    end
  end

  function request()
    next_draw = next_draw % DRAWS + 1
    return requests[draws[next_draw]]
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"bytes":%d,"micros":%d,"bad":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.bytes, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
