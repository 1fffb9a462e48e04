"""One Detector: network, score, threshold and meta classifier applied to images."""
