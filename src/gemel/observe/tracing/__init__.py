"""Traces: observed calls and OpenTelemetry's data, joined in a process of its own.

``join`` is pure; ``server`` is the process, ``owner`` the engine's side of it.
"""
