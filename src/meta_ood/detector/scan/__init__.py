"""A detector applied to many frames: the manifest of what is there, worker processes, Parquet tables of the results."""
