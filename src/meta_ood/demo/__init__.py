"""The demo world: procedural datasets in the layouts of the real ones."""
