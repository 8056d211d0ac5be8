"""Recorded answers in the place of services: a small server at the bridges' addresses."""
