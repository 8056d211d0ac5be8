"""Programs that run in the toolbox, beside a service: with the standard library alone."""
