"""Metrics: pixels, segments, components and closed-set classes; pure functions on counts."""
