"""What everything stands on: errors and what a config value may be; imports neither torch nor anything of ours."""
