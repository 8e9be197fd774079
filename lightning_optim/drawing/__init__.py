"""Each group's lr over a run, from its config alone: simulated, then drawn."""
