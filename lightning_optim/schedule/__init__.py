"""Learning-rate schedules: the factory, our own curves, and curves that differ by param group."""
