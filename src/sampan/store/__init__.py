"""Revisions: one in-memory multi-version cache over one durable Log."""
