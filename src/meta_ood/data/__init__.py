"""Labels, frames, predictions and their files: what every other room builds on."""
