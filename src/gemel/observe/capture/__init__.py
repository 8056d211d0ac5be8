"""What services say to each other, read off the wire by a process of its own.

packets (gemel.host) → flows (TCP put together) → one dialogue per connection
(HTTP/1, HTTP/2, PostgreSQL, Redis) → exchanges → a bounded store → who asks.
"""
