"""Lua scripts for atomic operations on the server (Valkey 7.2 and later, Redis 7).

The keys of one script share a hash slot, so the scripts run on a cluster: all keys of the backplane have the hash tag
`{prefix}`, those of one profile the hash tag `{name}`. An epoch ends with the time of its beginning, so that its age is
known.
"""

from __future__ import annotations

__all__ = ["FENCE", "HEARTBEAT", "LEASE", "PUBLISH", "RENEW", "RESERVE", "ROTATE", "STATE", "STORE"]

_NOW = """
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
"""
"""The server's time in milliseconds, as text: Lua would write a number of that size with an exponent."""

RESERVE = (
    _NOW
    + """
-- KEYS: sequence, epoch, tags, cleared. ARGV: new epoch, 'keys' | 'tags' | 'clear', names of tags ...
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. now, 'NX')
local sequence = redis.call('INCR', KEYS[1])
if ARGV[2] == 'clear' or redis.call('HLEN', KEYS[3]) > 10000 then
  redis.call('SET', KEYS[4], sequence)
  redis.call('DEL', KEYS[3])
end
for i = 3, #ARGV do redis.call('HSET', KEYS[3], ARGV[i], sequence) end
return {sequence, redis.call('GET', KEYS[2])}
"""
)
"""Take the next sequence number, and store its tags or clear event."""

FENCE = """
-- KEYS: entry, fence, overlay. ARGV: sequence, milliseconds of the fence, overlay, milliseconds of the overlay
if tonumber(redis.call('GET', KEYS[2]) or -1) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
if ARGV[3] ~= '' then redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4]) return 0 end
return redis.call('DEL', KEYS[1], KEYS[3])
"""
"""Delete an entry and reject results of earlier loads; or set an overlay."""

PUBLISH = (
    _NOW
    + """
-- KEYS: members, epoch. ARGV: channel, message, milliseconds after which a lost member is forgotten, epoch
if redis.call('GET', KEYS[2]) ~= ARGV[4] then return nil end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {now - string.match(ARGV[4], '%d+$'), redis.call('ZRANGE', KEYS[1], 0, -1)}
"""
)
"""Publish a message, unless another epoch began; return the age of the epoch in milliseconds, and who has to answer."""

HEARTBEAT = (
    _NOW
    + """
-- KEYS: sequence, epoch, members. ARGV: new epoch, member, milliseconds of the lease
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. now, 'NX')
redis.call('ZADD', KEYS[3], now + ARGV[3], ARGV[2])
return {tonumber(redis.call('GET', KEYS[1]) or 0), redis.call('GET', KEYS[2])}
"""
)
"""Renew the membership of a process, and read the current sequence number and epoch."""

ROTATE = (
    _NOW
    + """
-- KEYS: epoch, sequence, tags, cleared. ARGV: the epoch that lost something, a new one, a sequence number seen before
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2] .. ':' .. now)
  redis.call('SET', KEYS[2], ARGV[3])
  redis.call('DEL', KEYS[3], KEYS[4])
end
return redis.call('GET', KEYS[1])
"""
)
"""Start a new epoch, which invalidates all entries of the old one."""

STATE = """
-- KEYS: tags, cleared
return {redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2])}
"""
"""Read the sequence numbers of invalidated tags, with their names, and of the last clear event."""

STORE = """
-- KEYS: entry, fence, lease, writer. ARGV: value, milliseconds to live, sequence, token and number of the lease,
-- milliseconds that the number is remembered
if tonumber(redis.call('GET', KEYS[2]) or -1) > tonumber(ARGV[3]) then return 0 end
if tonumber(redis.call('GET', KEYS[4]) or -1) > tonumber(ARGV[5]) then return 0 end
if ARGV[1] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[6])
if redis.call('GET', KEYS[3]) == ARGV[4] then redis.call('DEL', KEYS[3]) end
return 1
"""
"""Store an entry, unless its key was invalidated or a later load finished meanwhile; end the lease."""

RENEW = """
-- KEYS: lease. ARGV: token, milliseconds
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
"""Extend a lease while its load runs; with 1 millisecond, release it."""

LEASE = """
-- KEYS: lease, number. ARGV: token, milliseconds, milliseconds that the number is remembered
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
local number = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return number
"""
"""Take the lease of a key and return an increasing fencing number; 0 if it is held."""
