"""How Hydra finds the config groups; what is below `path` and `conf_package` is laid elsewhere by the build."""
