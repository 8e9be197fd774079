"""The Hydra integration: generated configs, and `path` and `conf_package`, which the build moves elsewhere."""
