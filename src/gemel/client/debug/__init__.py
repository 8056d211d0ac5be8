"""Debug sessions from the client's side: the toolbox, programs of it, ports, debuggers."""
