-- The acts on a job, each atomic and each in one slot. Store.py cuts this file at the lines
-- "---- act NAME": what stands before the first one is the preamble of every act.
--
-- Data model. {p} is the partition, two hex digits, in braces: the hash tag of a cluster.
--   PREFIX:{p}:job:ID    hash    the record, see below. Live: no expiry, the reaper owns it.
--                                Ended: expires one grace after `expires`; sweep removes it before.
--   PREFIX:{p}:log:ID    list    the newest lines of the job's log. Expires with the record.
--   PREFIX:{p}:tries:ID  list    the attempts that are over, as JSON; for operators. As the log.
--   PREFIX:{p}:leases    zset    live job → when its lease ends (ms). finish, cancel, reap remove.
--   PREFIX:{p}:ends      zset    ended job → when it is forgotten (ms). sweep removes.
--   PREFIX:{p}:key:F     string  single-flight key → its live job. Whoever ends the job removes it.
--   PREFIX:{p}:kids:ID   set     the live jobs that a live job has started, all in its partition:
--                                a job leaves it as it ends, and the end of ID removes the set.
--   PREFIX:owner:O       zset    job → created (ms). In a slot of its own, so not written here.
--   PREFIX:active:O      set     live jobs that requests of O have started. Whoever ends one takes it
--                                out; expires 30 days after the last start.
--   PREFIX:pace:W        string  when W's allowance of starts is whole again. Expires then.
--   PREFIX:once:R        hash    what an Idempotency-Key stands for. Expires with the job's time.
--
-- Record. Fixed: id task title owner key parent args options on_lost created
--   context (JSON: which request and trace wanted it).
--   Changing (all of TOLD below): see each act. All times are ms of the store's clock.
--   max_attempts  as the task says, and one more for each attempt that was handed over
--   attempt  fence: a writer that brings another attempt, or another worker, changes nothing
--   rev      rises with every change a watcher can see
--   lines    how many lines this attempt has added to the log
--   began    when this attempt began
--   handed   how many attempts were handed over
--   worker   the process that runs the job, or holds it while it is queued; '' = nobody
--
-- Announcements (SPUBLISH). Channel = key of the record: all of TOLD as a JSON object, rev with it.
--   Channel = key of the leases: a JSON object for workers, {"cancel": ID} or {"orphan": ID};
--   on the first of them also {"revoke": OWNER}, for all who stream.

local TOLD = {
  'rev', 'state', 'attempt', 'max_attempts', 'progress', 'cancel', 'error', 'result',
  'started', 'updated', 'finished', 'expires', 'retry_at',
}
local GRACE_MS = 3600000 -- a record outlives its time by this much if no process is there to sweep
local TRIES = 100
local SILENCE_MS = 1000 -- a job that reports is heard of more often, and a failover takes longer
local LEAST_MS = 50 -- between two changes of one job, on average

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function ms(number) return string.format('%.0f', number) end

-- A record as one string: much cheaper for who reads it than a reply of some forty.
local function whole(record) return cjson.encode(redis.call('HGETALL', record)) end

local function log_key(record) return (string.gsub(record, ':job:', ':log:', 1)) end

local function tries_key(record) return (string.gsub(record, ':job:', ':tries:', 1)) end

local function kids_key(record) return (string.gsub(record, ':job:', ':kids:', 1)) end

-- The record of another job, which lives in the same partition.
local function beside(record, id, other) return string.sub(record, 1, -#id - 1) .. other end

-- Remember how an attempt ended. error is JSON, trace is text that only operators may see.
local function remember(record, now, outcome, error, trace)
  local r = redis.call('HMGET', record, 'attempt', 'worker', 'began')
  local try = { attempt = r[1], worker = r[2], began = r[3], ended = ms(now), outcome = outcome }
  if error ~= '' then try.error = error end
  if trace ~= '' then try.trace = trace end
  redis.call('RPUSH', tries_key(record), cjson.encode(try))
  redis.call('LTRIM', tries_key(record), -TRIES, -1)
end

-- Add lines to the job's log: argv[at] is how many are kept, then comes the number of the first one
-- within this attempt, then the lines. Lines that were written before are left out, so that a
-- repeated call, and two calls that overtake each other, write each line once.
local function append_log(record, argv, at)
  local lines = #argv - at - 1
  if lines < 1 then return end
  local number = tonumber(argv[at + 1])
  local known = math.max(tonumber(redis.call('HGET', record, 'lines') or '0') - number, 0)
  if known >= lines then return end
  redis.call('RPUSH', log_key(record), unpack(argv, at + 2 + known))
  redis.call('LTRIM', log_key(record), -argv[at], -1)
  redis.call('HSET', record, 'lines', ms(number + lines))
end

-- Tell of a change. rev rises by one; after a silence, by more than can have been written in that
-- time: a replica that takes over may lack the last changes, and their numbers, which watchers know,
-- must not come again.
local function announce(record, now)
  local r = redis.call('HMGET', record, 'rev', 'updated')
  local silence = now - r[2]
  local missing = silence >= SILENCE_MS and silence / LEAST_MS or 0
  redis.call('HSET', record, 'rev', ms(r[1] + 1 + math.ceil(missing)), 'updated', ms(now))
  local values = redis.call('HMGET', record, unpack(TOLD))
  local told = {}
  for i, name in ipairs(TOLD) do
    if values[i] then told[name] = values[i] end
  end
  redis.call('SPUBLISH', record, cjson.encode(told))
end

local function lease(leases, id, deadline) redis.call('ZADD', leases, ms(deadline), id) end

local function terminal(state)
  return state == 'succeeded' or state == 'failed' or state == 'cancelled'
end

-- Take a job out of all that lists live ones.
local function unlist(record, leases, id)
  redis.call('ZREM', leases, id)
  local r = redis.call('HMGET', record, 'key', 'parent')
  if r[1] and r[1] ~= '' and redis.call('GET', r[1]) == id then redis.call('DEL', r[1]) end
  if r[2] then redis.call('SREM', kids_key(beside(record, id, r[2])), id) end
end

local cancel -- see below: it may close, and to close is to cancel

-- The end of a job, or of its record, is the end of what it has started: nobody waits for it now.
local function cancel_kids(record, leases, ends, id, now, keep_ms)
  local kids = redis.call('SMEMBERS', kids_key(record))
  redis.call('DEL', kids_key(record))
  for _, kid in ipairs(kids) do
    cancel(beside(record, id, kid), leases, ends, kid, now, keep_ms)
  end
end

-- End a job: state, times, expiry, indexes, announcement; then its children.
local function close(record, leases, ends, id, state, now, keep_ms)
  local expires = now + keep_ms
  redis.call('HSET', record, 'state', state, 'worker', '',
    'finished', ms(now), 'expires', ms(expires))
  redis.call('HDEL', record, 'checkpoint', 'retry_at')
  redis.call('PEXPIREAT', record, ms(expires + GRACE_MS))
  redis.call('PEXPIREAT', log_key(record), ms(expires + GRACE_MS))
  redis.call('PEXPIREAT', tries_key(record), ms(expires + GRACE_MS))
  redis.call('ZADD', ends, ms(expires), id)
  unlist(record, leases, id)
  announce(record, now)
  cancel_kids(record, leases, ends, id, now, keep_ms)
end

-- Ask a job to stop. Queued: it is cancelled at once. Running: it is told, and is cancelled when
-- its code has stopped. Returns its state before, or false if it is gone.
function cancel(record, leases, ends, id, now, keep_ms)
  local r = redis.call('HMGET', record, 'state', 'cancel')
  if r[1] == 'queued' then
    redis.call('HSET', record, 'cancel', '1')
    close(record, leases, ends, id, 'cancelled', now, keep_ms)
  elseif r[1] == 'running' then
    if r[2] ~= '1' then
      redis.call('HSET', record, 'cancel', '1')
      announce(record, now)
    end
    redis.call('SPUBLISH', leases, cjson.encode({ cancel = id }))
  end
  return r[1]
end

-- Put a job back into the queue, held by `worker` ('' = whoever looks first).
local function requeue(record, leases, id, worker, now, deadline)
  redis.call('HSET', record, 'state', 'queued', 'worker', worker)
  lease(leases, id, deadline)
  announce(record, now)
  if worker == '' then redis.call('SPUBLISH', leases, cjson.encode({ orphan = id })) end
end

-- Begin an attempt: queued → running.
local function begin(record, worker)
  local now = now_ms()
  redis.call('HSET', record, 'state', 'running', 'worker', worker, 'began', ms(now))
  redis.call('HSETNX', record, 'started', ms(now))
  redis.call('HINCRBY', record, 'attempt', 1)
  -- What an earlier attempt had shown is no progress of this one.
  redis.call('HDEL', record, 'retry_at', 'lines', 'progress')
  announce(record, now)
end

-- True if this attempt of this worker owns the job. If a replica took over that lacks its claim,
-- the record waits for the very attempt that runs: then it is claimed once more.
local function owns(record, worker, attempt)
  local r = redis.call('HMGET', record, 'state', 'worker', 'attempt')
  if r[1] == 'queued' and r[3] + 1 == tonumber(attempt) then
    begin(record, worker)
    return true
  end
  return r[1] == 'running' and r[2] == worker and r[3] == attempt
end

-- For the acts that look at many jobs, see `overview`.

-- Whether *one* comes after *other* in a list: it is older, or of the same moment and its id is higher.
local function behind(one, other)
  return one[1] < other[1] or (one[1] == other[1] and one[2] > other[2])
end

-- Whether state, task and owner are those asked for, which stand in argv from *at* on; '' = any.
local function fits(r, argv, at)
  for n = 1, 3 do
    if argv[at + n - 1] ~= '' and r[n] ~= argv[at + n - 1] then return false end
  end
  return true
end

-- The latest ended jobs of the partitions keys[from], …, that ended no later than *highest*: each as
-- { score, id, stem of its record }, in order; and up to which score more may be missing, or -1.
local function latest(keys, from, chunk, highest)
  local found, horizon = {}, -1
  for i = from, #keys do
    local stem = string.gsub(keys[i], ':ends$', ':job:')
    local some = redis.call('ZREVRANGEBYSCORE', keys[i], highest, '-inf', 'WITHSCORES',
      'LIMIT', 0, chunk)
    for n = 1, #some, 2 do found[#found + 1] = { tonumber(some[n + 1]), some[n], stem } end
    if #some == 2 * chunk then horizon = math.max(horizon, tonumber(some[#some])) end
  end
  local sure = {}
  for _, one in ipairs(found) do
    if one[1] > horizon then sure[#sure + 1] = one end
  end
  table.sort(sure, function(one, other) return behind(other, one) end)
  return sure, horizon
end

local function flat(found)
  local told = {}
  for _, one in ipairs(found) do
    told[#told + 1] = one[2]
    told[#told + 1] = ms(one[1])
  end
  return told
end

---- act create
-- KEYS  record, leases, [single-flight key]
-- ARGV  id, worker, lease_ms, parent or '', its attempt, '1' (this worker runs it already) or '', then
--       field, value, … of the record
-- Returns {'created'|'reused', record}, or {'late'}; of a new record only what is not among ARGV.
-- Repeated with the same id: the same again.
-- Only the attempt that runs may start children. Once its job has ended nobody would end them; if
-- another attempt runs, that one decides. Refused, not created as cancelled: a record that says so
-- would be found by the attempt that runs, under the id of the child that it wants to start.
local record, leases, key, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
if redis.call('EXISTS', record) == 1 then
  return { 'created', whole(record) }
end
local parent = ARGV[4] ~= '' and beside(record, id, ARGV[4])
if parent and not owns(parent, ARGV[2], ARGV[5]) then return { 'late' } end
if key then
  local other = redis.call('GET', key)
  local others = other and beside(record, id, other)
  local state = others and redis.call('HGET', others, 'state')
  if state and not terminal(state) then return { 'reused', whole(others) } end
  redis.call('SET', key, id)
end
local now = now_ms()
local fresh = { 'id', id, 'state', 'queued', 'attempt', '0', 'rev', '1', 'key', key or '',
  'created', ms(now), 'updated', ms(now) }
if parent then
  fresh[#fresh + 1], fresh[#fresh + 2] = 'parent', ARGV[4]
  redis.call('SADD', kids_key(parent), id)
end
redis.call('HSET', record, unpack(ARGV, 7))
redis.call('HSET', record, 'worker', ARGV[2], unpack(fresh))
if ARGV[6] == '1' then begin(record, ARGV[2]) end
lease(leases, id, now + ARGV[3])
return { 'created', ARGV[6] == '1' and whole(record) or cjson.encode(fresh) }

---- act claim
-- KEYS  record, leases
-- ARGV  id, worker, lease_ms
-- Returns {'claimed', record} to the one worker that may run it now, {state, record} if it has
-- ended, else {why}. The same worker asking again (its answer was lost) is told again, without a
-- new attempt.
local record, leases, id, worker = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local r = redis.call('HMGET', record, 'state', 'worker', 'retry_at')
if not r[1] then return { 'gone' } end
if r[1] == 'running' and r[2] == worker then
  return { 'claimed', whole(record) }
end
if terminal(r[1]) then return { r[1], whole(record) } end
if r[1] ~= 'queued' then return { r[1] } end
local now = now_ms()
if r[3] and tonumber(r[3]) > now then return { 'early' } end
begin(record, worker)
lease(leases, id, now + ARGV[3])
return { 'claimed', whole(record) }

---- act beat
-- KEYS  record, leases
-- ARGV  id, worker, attempt, lease_ms, progress or '', checkpoint or '', kept, number, log line, …
-- Renews the lease; writes and announces what it brings. Returns 'ok', 'cancel' (asked to stop)
-- or 'lost' (this attempt is no longer the one: nothing was written).
local record, leases, id = KEYS[1], KEYS[2], ARGV[1]
if not owns(record, ARGV[2], ARGV[3]) then return 'lost' end
local now = now_ms()
lease(leases, id, now + ARGV[4])
if ARGV[6] ~= '' then redis.call('HSET', record, 'checkpoint', ARGV[6]) end
append_log(record, ARGV, 7)
if ARGV[5] ~= '' then
  redis.call('HSET', record, 'progress', ARGV[5])
  announce(record, now)
end
return redis.call('HGET', record, 'cancel') == '1' and 'cancel' or 'ok'

---- act hold
-- KEYS  leases
-- ARGV  lease_ms, id, …
-- Renews the leases of jobs that wait in this process's queue. Ended ones are not revived.
local deadline = ms(now_ms() + ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', deadline, ARGV[i]) end
return 'ok'

---- act sent
-- KEYS  record, leases
-- ARGV  id, worker, resend_ms
-- A message about a queued job that this worker held is out: nobody holds it now. If it is still
-- queued after resend_ms, or when it has waited for four times as long as until now, the message may
-- be lost, and whoever looks first sends another. Returns 'ok', or 'late' if it is not held here.
local record, leases, id = KEYS[1], KEYS[2], ARGV[1]
local r = redis.call('HMGET', record, 'state', 'worker', 'retry_at', 'updated')
local now = now_ms()
local waits = r[3] and tonumber(r[3]) > now -- it was run in no time, and has another attempt here
if r[1] ~= 'queued' or r[2] ~= ARGV[2] or waits then return 'late' end
redis.call('HSET', record, 'worker', '')
lease(leases, id, now + math.max(tonumber(ARGV[3]), 3 * (now - r[4])))
return 'ok'

---- act finish
-- KEYS  record, leases, ends
-- ARGV  id, worker, attempt, state, keep_ms, progress, result or '', error or '',
--       trace or '', kept, number, log line, …
-- Returns 'ok' or 'lost'. Repeated with the same attempt and state: 'ok' again, nothing twice.
local record, leases, ends, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
if not owns(record, ARGV[2], ARGV[3]) then
  local r = redis.call('HMGET', record, 'state', 'attempt', 'ender')
  local mine = r[1] == ARGV[4] and r[2] == ARGV[3] and r[3] == ARGV[2]
  return mine and 'ok' or 'lost'
end
redis.call('HSET', record, 'progress', ARGV[6], 'ender', ARGV[2])
if ARGV[7] ~= '' then redis.call('HSET', record, 'result', ARGV[7]) end
if ARGV[8] ~= '' then
  redis.call('HSET', record, 'error', ARGV[8])
else
  redis.call('HDEL', record, 'error')
end
append_log(record, ARGV, 10)
local now = now_ms()
remember(record, now, ARGV[4], ARGV[8], ARGV[9])
close(record, leases, ends, id, ARGV[4], now, ARGV[5])
return 'ok'

---- act release
-- KEYS  record, leases, ends
-- ARGV  id, worker, attempt, delay_ms, lease_ms, keep_ms, progress or '', error or '',
--       checkpoint or '', trace or '', kept, number, log line, …
-- Gives a job back: running or held → queued. With a delay the same worker holds it and may claim
-- it when the delay is over; without, whoever looks first. Asked to cancel meanwhile: cancelled.
-- Returns 'ok', 'cancelled' or 'lost'.
local record, leases, ends, id, worker = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
owns(record, worker, ARGV[3])
local r = redis.call('HMGET', record, 'state', 'worker', 'attempt', 'cancel')
local live = r[1] == 'running' or r[1] == 'queued'
if not live or r[2] ~= worker or r[3] ~= ARGV[3] then return 'lost' end
local now, delay = now_ms(), tonumber(ARGV[4])
if ARGV[7] ~= '' then redis.call('HSET', record, 'progress', ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HSET', record, 'error', ARGV[8]) end
if ARGV[9] ~= '' then redis.call('HSET', record, 'checkpoint', ARGV[9]) end
append_log(record, ARGV, 11)
if r[1] == 'running' then remember(record, now, 'released', ARGV[8], ARGV[10]) end
if r[1] == 'running' and r[4] == '1' then
  close(record, leases, ends, id, 'cancelled', now, ARGV[6])
  return 'cancelled'
end
if delay > 0 then
  redis.call('HSET', record, 'retry_at', ms(now + delay))
  requeue(record, leases, id, worker, now, now + delay + ARGV[5])
else
  -- Handed over, as at a deploy: nothing went wrong, so the attempt counts for nothing.
  if r[1] == 'running' and ARGV[8] == '' then
    redis.call('HINCRBY', record, 'max_attempts', 1)
    redis.call('HINCRBY', record, 'handed', 1)
  end
  requeue(record, leases, id, '', now, now)
end
return 'ok'

---- act cancel
-- KEYS  record, leases, ends
-- ARGV  id, keep_ms
-- Queued: cancelled at once. Running: asked; it is cancelled when its code has stopped.
-- Returns {'ok', record} in every state (asking twice changes nothing), or {'gone'}.
local record, leases, ends, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
if not cancel(record, leases, ends, id, now_ms(), ARGV[2]) then return { 'gone' } end
return { 'ok', whole(record) }

---- act reap
-- KEYS  record, leases, ends
-- ARGV  id, worker, lease_ms, keep_ms, error (JSON, for a job that may not be run again), adopt '1'|''
-- A job whose lease is over: queued → held by this worker; running → what on_lost says.
-- Returns {'adopted'} (this worker must run it), {'queued'} (somebody else must), {'ended'} or
-- {'early'}; with the record in second place if it was running, so that an attempt is lost.
local record, leases, ends, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local deadline, now = redis.call('ZSCORE', leases, id), now_ms()
if not deadline or tonumber(deadline) > now then return { 'early' } end
local r = redis.call('HMGET', record, 'state', 'cancel', 'on_lost', 'attempt', 'max_attempts')
if not r[1] or terminal(r[1]) then
  redis.call('ZREM', leases, id)
  cancel_kids(record, leases, ends, id, now, ARGV[4])
  return { 'ended' }
end
local adopt = ARGV[6] == '1'
if r[1] == 'queued' then
  if not adopt then return { 'queued' } end
  redis.call('HSET', record, 'worker', ARGV[2])
  lease(leases, id, now + ARGV[3])
  return { 'adopted' }
end
remember(record, now, 'lost', ARGV[5], '')
if r[2] == '1' then
  close(record, leases, ends, id, 'cancelled', now, ARGV[4])
  return { 'ended', whole(record) }
end
if r[3] ~= 'retry' or tonumber(r[4]) >= tonumber(r[5]) then
  redis.call('HSET', record, 'error', ARGV[5])
  close(record, leases, ends, id, 'failed', now, ARGV[4])
  return { 'ended', whole(record) }
end
requeue(record, leases, id, adopt and ARGV[2] or '', now, adopt and now + ARGV[3] or now)
return { adopt and 'adopted' or 'queued', whole(record) }

---- act due
-- KEYS  leases, …
-- ARGV  limit, 'orphans' (only what was given back) or 'all', task, … (those this process can run)
-- Returns now_ms, then id, task, id, task, … of jobs whose lease is over and that this process can
-- do something about: running ones, and queued ones of its tasks. Writes nothing.
local now = ms(now_ms())
local known, found, orphans = {}, { now }, ARGV[2] == 'orphans'
for i = 3, #ARGV do known[ARGV[i]] = true end
for _, leases in ipairs(KEYS) do
  local stem = string.gsub(leases, ':leases$', ':job:')
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 1000)) do
    local r = redis.call('HMGET', stem .. id, 'state', 'task', 'worker')
    local mine = r[1] ~= 'queued' or known[r[2]]
    if mine and (r[3] == '' or not orphans) then
      found[#found + 1] = id
      found[#found + 1] = r[2] or ''
    end
    if #found > 2 * ARGV[1] then return found end
  end
end
return found

---- act sweep
-- KEYS  ends, …
-- ARGV  limit (per partition)
-- Removes ended jobs whose time is over. Returns id, owner, id, owner, … for the owner indexes.
local gone, now = {}, ms(now_ms())
for _, ends in ipairs(KEYS) do
  local stem = string.gsub(ends, ':ends$', ':job:')
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, ARGV[1])) do
    gone[#gone + 1] = id
    gone[#gone + 1] = redis.call('HGET', stem .. id, 'owner') or ''
    redis.call('DEL', stem .. id, log_key(stem .. id), tries_key(stem .. id))
    redis.call('ZREM', ends, id)
  end
end
return gone

---- act living
-- KEYS  leases, …
-- ARGV  most (looked at), limit, place: created and id (-1 and '' = the top), state, task, owner
--       ('' = any)
-- Returns id, created, id, created, … of live jobs behind the place that fit, the newest first, those
-- of one moment by their ids. Writes nothing.
local left, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local place = { tonumber(ARGV[3]), ARGV[4] }
local first = {}
for _, leases in ipairs(KEYS) do
  local stem = string.gsub(leases, ':leases$', ':job:')
  local ids = left > 0 and redis.call('ZRANGE', leases, 0, left - 1) or {}
  left = left - #ids
  for _, id in ipairs(ids) do
    local one = { tonumber(redis.call('HGET', stem .. id, 'created')), id }
    local ahead = #first < limit or behind(first[limit], one)
    if one[1] and ahead and (place[1] < 0 or behind(one, place)) then
      local r = redis.call('HMGET', stem .. id, 'state', 'task', 'owner')
      if fits(r, ARGV, 5) then
        local at = #first + 1
        while at > 1 and behind(first[at - 1], one) do at = at - 1 end
        table.insert(first, at, one)
        first[limit + 1] = nil
      end
    end
  end
end
return flat(first)

---- act ended
-- KEYS  ends, …
-- ARGV  chunk (asked of each partition), limit, place: score and id ('+inf' and '' = the top),
--       state, task, owner ('' = any)
-- Looks at ended jobs in order, the latest first, those of one moment by their ids, as far as it is
-- sure of the order: what ended no later than the last one of a partition that has more to give waits
-- for the next time. Returns '1' if there may be more or '', then the place it came to (or nothing),
-- then id, score, id, score, … of those that fit. Writes nothing.
local chunk, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local place = { tonumber(ARGV[3]) or math.huge, ARGV[4] }
local sure, horizon
repeat
  sure, horizon = latest(KEYS, 1, chunk, ARGV[3])
  local kept = {}
  for _, one in ipairs(sure) do
    if behind(one, place) then kept[#kept + 1] = one end
  end
  sure = kept
  chunk = chunk * 8 -- so many ended within one millisecond
until #sure > 0 or horizon < 0
local found, seen = {}, 0
while seen < #sure and #found < limit do
  seen = seen + 1
  local one = sure[seen]
  local r = redis.call('HMGET', one[3] .. one[2], 'state', 'task', 'owner')
  if fits(r, ARGV, 5) then found[#found + 1] = one end
end
local more = (seen < #sure or horizon >= 0) and '1' or ''
local last = sure[seen]
return { more, last and ms(last[1]) or '', last and last[2] or '', unpack(flat(found)) }

---- act figures
-- KEYS  leases, …, ends, … (so many of each)
-- ARGV  most (live, looked at), chunk (asked of each partition), most (ended)
-- Returns now_ms, queued, running, '1' if some of the ended were left out or '', then for each of the
-- newest ended jobs, the latest first: state, created, started or '', finished. Writes nothing.
local half, left = #KEYS / 2, tonumber(ARGV[1])
local count = { queued = 0, running = 0 }
for i = 1, half do
  local stem = string.gsub(KEYS[i], ':leases$', ':job:')
  local ids = left > 0 and redis.call('ZRANGE', KEYS[i], 0, left - 1) or {}
  left = left - #ids
  for _, id in ipairs(ids) do
    local state = redis.call('HGET', stem .. id, 'state')
    if count[state] then count[state] = count[state] + 1 end
  end
end
local sure, horizon = latest(KEYS, half + 1, tonumber(ARGV[2]), '+inf')
local cut = horizon >= 0 or #sure > tonumber(ARGV[3])
local told = { ms(now_ms()), count.queued, count.running, cut and '1' or '' }
for i = 1, math.min(#sure, tonumber(ARGV[3])) do
  local r = redis.call('HMGET', sure[i][3] .. sure[i][2], 'state', 'created', 'started', 'finished')
  if r[4] then
    for n = 1, 4 do told[#told + 1] = r[n] or '' end
  end
end
return told

---- act forget
-- KEYS  record, leases, ends
-- ARGV  id, worker ('' = only a job that has ended; else also one that waits here and never began)
-- Removes a job with all that belongs to it. Watchers are told to look again: {}.
-- Returns 'ok', 'going' (it has not ended) or 'gone'.
local record, leases, ends, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local r = redis.call('HMGET', record, 'state', 'worker', 'attempt')
if not r[1] then return 'gone' end
if not terminal(r[1]) then
  local unbegun = r[1] == 'queued' and r[3] == '0' and ARGV[2] ~= '' and r[2] == ARGV[2]
  if not unbegun then return 'going' end
  unlist(record, leases, id)
end
redis.call('DEL', record, log_key(record), tries_key(record))
redis.call('ZREM', leases, id)
redis.call('ZREM', ends, id)
redis.call('SPUBLISH', record, '{}')
return 'ok'

---- act admit
-- KEYS  the owner's active jobs
-- ARGV  id, most, seconds that the set lives without a start
-- Takes a place for the job. Returns {'ok'}, or the ids that hold all places.
local active = KEYS[1]
if redis.call('SCARD', active) >= tonumber(ARGV[2]) and redis.call('SISMEMBER', active, ARGV[1]) == 0 then
  return redis.call('SMEMBERS', active)
end
redis.call('SADD', active, ARGV[1])
redis.call('EXPIRE', active, ARGV[3])
return { 'ok' }

---- act pace
-- KEYS  when the allowance is whole again, in ms times the starts a minute: so nothing is rounded
-- ARGV  starts a minute
-- Spends one start. Returns 0, or the ms to wait until there is one.
-- Source: the generic cell rate algorithm (ITU-T I.371); one number is all its state.
local rate = tonumber(ARGV[1])
local now = now_ms() * rate
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + 60000
local wait = whole - now - 60000 * rate
if wait > 0 then return math.ceil(wait / rate) end
redis.call('SET', KEYS[1], ms(whole), 'PX', ms(math.ceil((whole - now) / rate)))
return 0

---- act reserve
-- KEYS  what is known of an Idempotency-Key: a hash of print, token, job
-- ARGV  print (what the request is about), token (who asks), busy_ms
-- Returns {'new'}, {'busy'}, {'other'} (it was about something else) or {'done', job}.
local r = redis.call('HMGET', KEYS[1], 'print', 'token', 'job')
if r[1] then
  if r[1] ~= ARGV[1] then return { 'other' } end
  if r[3] then return { 'done', r[3] } end
  return { r[2] == ARGV[2] and 'new' or 'busy' }
end
redis.call('HSET', KEYS[1], 'print', ARGV[1], 'token', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { 'new' }

---- act settle
-- KEYS  what is known of an Idempotency-Key
-- ARGV  token, job ('' = none: the key is free again), keep_ms
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'job', ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
