"""Training: the loop on Lightning Fabric, losses, optimisation, validation."""
