"""The native optimizers of the catalog: one file per update rule."""
