"""What a user of Hydra, of lightning-hydra-template or of LightningCLI installs, types and gets."""
