-- What wrk sends in `door_load.rs`: one unsigned click a request, none twice. At the end it prints its counts
-- as one line of JSON.

local threads = 0

function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

wrk.method = "POST"
wrk.path = "/v1/clicks"
wrk.headers["Content-Type"] = "application/json"

local made = 0

function request()
    made = made + 1
    local body = string.format('{"event_id":"%08x%024x","ad_id":"spring-sale","country":"DE"}', number + 1, made)
    return wrk.format(nil, nil, nil, body)
end

function done(summary, latency, requests)
    local errors = summary.errors
    print(string.format(
        '{"completed":%d,"refused":%d,"unconnected":%d,"unread":%d,"unwritten":%d,"timeouts":%d,"p99_us":%d}',
        summary.requests, errors.status, errors.connect, errors.read, errors.write, errors.timeout,
        latency:percentile(99)
    ))
end
