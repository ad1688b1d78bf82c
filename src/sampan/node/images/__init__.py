"""The machine's images: references, registries, archives, unpacking, and the built-in localhost/host."""
