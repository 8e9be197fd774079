"""The Hydra config groups of lightning-optim. A package, as Hydra 1.4 reads `pkg://` URLs from packages only."""
