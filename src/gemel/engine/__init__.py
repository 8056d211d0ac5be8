"""Desired and actual state of instances, networks, volumes and images; it supervises them."""
