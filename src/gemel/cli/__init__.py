"""The command line. Commands are short: what they allocate is not worth collecting half-way."""

import gc

# before anything is imported: the collector alone takes a sixth of the start of a command
gc.set_threshold(50_000, 20, 50)
