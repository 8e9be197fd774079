"""Programs that tests run in processes of their own: several ranks, killed runs, other tools."""
