"""Metrics, curves and pictures of predictions and of score maps, from counts over frames."""
