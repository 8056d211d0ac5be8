"""A client of the engine's API (the Docker Engine API over a unix socket). Light to import."""
