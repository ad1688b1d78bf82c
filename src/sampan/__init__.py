"""sampan: a complete Kubernetes in Python. This file stays empty of imports: runtime helpers start in milliseconds."""

__version__ = "0.1.0"
