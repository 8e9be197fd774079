"""An app with the structure of lightning-hydra-template: the same files, keys and names; the code is our own."""
