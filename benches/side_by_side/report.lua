-- What `wrk` did, as one JSON object on the last line, and the requests themselves.
local method = os.getenv("LOAD_METHOD") or "GET"
local body = os.getenv("LOAD_BODY")
local pause = tonumber(os.getenv("LOAD_PAUSE_MS") or "0")

wrk.method = method
if body then
  wrk.body = string.rep("x", tonumber(body))
  wrk.headers["Content-Type"] = "application/octet-stream"
end

-- wrk asks for a pause before each request only if there is such a function, and asking costs time.
if pause > 0 then
  function delay()
    -- Spread around the mean, so that the connections do not march in step.
    return math.floor(pause * 2 * math.random())
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
