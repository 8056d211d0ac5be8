"""A runtime without processes, for tests of what stands above runtimes; see ``runtime``."""
