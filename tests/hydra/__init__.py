"""Adoption: what a user of Hydra, of lightning-hydra-template and of LightningCLI installs, types and gets."""
