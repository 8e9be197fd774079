"""Learning-rate schedules: the factory, the curves of our own, and the ledger that late groups follow."""
