"""The scoreboard: fault x mechanism x strategy, each cell exact, refused or silently wrong.

    python -m tests.reliability.scoreboard [--full] [--only F1,F6] [--seed S] [--json FILE]

`outcome.py` says what a cell is and judges it; `registry.py` has the families with their rules; `fits.py` the runs of
Lightning that are interrupted; the other files have the cells, by kind of fault. `planted.py` has one fault per family
that the cells must notice.
"""
