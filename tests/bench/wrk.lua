-- wrk's part of `make bench`: the request from the environment, the figures as one line of JSON.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_AUTH_KEY")
wrk.headers["Host"] = os.getenv("BENCH_HOST")
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.body = file:read("*a")
file:close()

-- Each request has a number of its own, which goes up with it, so that the provider knows its attempts.
if os.getenv("BENCH_NUMBERED") == "1" then
  local number = 0
  request = function()
    number = number + 1
    wrk.headers["X-Bench-Request"] = tostring(number)
    return wrk.format()
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "errors": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
