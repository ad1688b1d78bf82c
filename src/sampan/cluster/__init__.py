"""Composition root: wires planks, keys and processes into one cluster."""
