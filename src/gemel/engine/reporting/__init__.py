"""What is kept of an instance that failed, and what it is compared with."""
