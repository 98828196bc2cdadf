-- Generates wrk's requests, and prints the results as a JSON object on the last line.
local body = os.getenv("LOAD_BODY")
local pause = tonumber(os.getenv("LOAD_PAUSE_MS") or "0")
local sessions = os.getenv("LOAD_SESSIONS")

wrk.method = os.getenv("LOAD_METHOD") or "GET"
if body then
  wrk.body = string.rep("x", tonumber(body))
  wrk.headers["Content-Type"] = "application/octet-stream"
end

-- wrk calls `delay` and `request` before each request if they exist. The calls take time, so they are defined only if needed.
if pause > 0 then
  function delay()
    -- Random around the mean, so that the connections do not send at the same time.
    return math.floor(pause * 2 * math.random())
  end
end

if sessions then
  -- Requests and random draws are prepared before the first request.
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
      -- Binary search for the first session whose cumulative weight reaches the random number.
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
