"""What each kind of logger has for tables and pictures; curves are `telemetry/loggers.py`'s."""
