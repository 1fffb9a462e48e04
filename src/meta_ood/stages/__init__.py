"""One module a stage: file I/O around pure functions."""
