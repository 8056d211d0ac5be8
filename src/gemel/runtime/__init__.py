"""The runtimes: each turns an InstanceSpec into something that runs."""
