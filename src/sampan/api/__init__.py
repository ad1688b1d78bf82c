"""The vocabulary of Kubernetes as pure functions on plain JSON values."""
