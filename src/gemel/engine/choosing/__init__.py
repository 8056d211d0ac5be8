"""``runtime: auto``: the facts of a service and this machine, and the rules that choose."""
