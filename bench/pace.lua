-- wrk: each connection waits 0 to 7 ms between an answer and its next request, which makes about 1,000 requests/s of
-- four connections. Latency in microseconds, as one line of JSON.
function delay()
  return math.random(0, 7)
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"us":%d,"errors":%d,"p50":%d,"p99":%d,"p999":%d}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
