"""``gemel compare``: a service run both ways under the same load, and what follows from it."""
