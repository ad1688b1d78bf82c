"""What makes a run repeatable: clock, ids, keys and certificates, logging, errors; and what all planks share, as tasks."""
