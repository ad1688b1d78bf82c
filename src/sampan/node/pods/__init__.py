"""A pod's life on a node: a pure state machine (`worker`), the shell that acts for it (`driver`), and the manager."""
