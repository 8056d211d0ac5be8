"""The DNS server of an engine: a process of its own, so that names outlive the engine."""
