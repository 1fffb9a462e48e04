"""The stages that DVC runs, one module each, and the paths that they read and write."""
