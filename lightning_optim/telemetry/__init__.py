"""Telemetry of optimizer steps: settings, norms of tensors, tags, and writing to loggers."""
