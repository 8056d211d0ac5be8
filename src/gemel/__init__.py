"""gemel: the microservices of one Compose file, each as a container or as a micro VM."""

__version__ = "0.1.0"
