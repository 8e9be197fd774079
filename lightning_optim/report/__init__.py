"""One page about a run, from the curves that its logger has: what it looks like by group, and what is suspicious."""
