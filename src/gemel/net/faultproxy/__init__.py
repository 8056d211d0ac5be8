"""Faults that need more than a rule of the kernel: delays, and HTTP's own failures.

A process of its own stands in the edge for as long as such a fault lasts. It is led there by
``gemel.net.divert``; who is connected sees the address that it asked for.
"""
