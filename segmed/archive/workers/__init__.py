"""Processes that segment: one that dies stops nothing."""
