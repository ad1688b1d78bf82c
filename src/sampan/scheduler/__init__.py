"""Which node a pod goes to, and why not to the others."""
