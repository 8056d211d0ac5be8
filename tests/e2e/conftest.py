"""The same engines as tests/system has."""

from tests.system.conftest import engine, fresh_engine

__all__ = ["engine", "fresh_engine"]
