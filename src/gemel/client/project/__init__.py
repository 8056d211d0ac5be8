"""Carries out what a Compose project needs, through the engine's API."""
