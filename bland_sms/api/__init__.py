"""Door for other programs (DRF)."""
