"""A cluster inside a test, in milliseconds."""
