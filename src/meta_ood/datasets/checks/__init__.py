"""Checks of raw datasets, to be run before GPU hours are spent on them."""
