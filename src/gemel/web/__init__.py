"""The dashboard: a page, and a process of its own that serves it (``gemel dashboard``).

It knows the engine by its API alone, so the engine has no more to do for a hundred
pages than for one: what many look at is read once and handed out here.
"""
