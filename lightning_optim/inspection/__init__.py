"""What a checkpoint's optimizers hold, read without building them: `lightning-optim inspect`."""
