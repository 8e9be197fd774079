"""Hydra config groups of lightning-optim; a package, since Hydra 1.4 reads `pkg://` from packages only."""
