"""Fuzzing of checkpoints by structure: a changed file is resumed exactly, as it says, or refused with a `ConfigError`.

    python -m tests.reliability.fuzz_checkpoints [--count N] [--seed S]
    python -m tests.reliability.fuzz_checkpoints --case SEED

Each case changes a valid checkpoint in one to three places, inspects it, resumes it for two steps and loads its module.
Prints how often each run ended how. A case that ends otherwise is printed with its seed, and the exit status is 1.
`--case` runs one case again, with the traceback of what it raises.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.support.checkpointed_runs import RUNS
from tests.support.fuzzed_checkpoints import ALLOWED, checkpoint_fuzzer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2_000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--case", type=int, help="run one case, by the seed that was printed")
    given = parser.parse_args()
    with checkpoint_fuzzer() as fuzzer:
        if given.case is not None:
            print(fuzzer.run_case(given.case, reraise=True))
            return 0
        start = time.perf_counter()
        counts: Counter[tuple[str, str]] = Counter()
        num_wrong = 0
        for outcome in fuzzer.run_cases(given.seed, given.count):
            counts[outcome.run, outcome.verdict] += 1
            if outcome.is_wrong:
                num_wrong += 1
                text = f"--case {outcome.seed}: {outcome.run}: {outcome.verdict}: {outcome.detail!r}"
                print(text[:600], flush=True)
    for run in RUNS:
        print(f"{run}: " + ", ".join(f"{counts[run, verdict]} {verdict}" for verdict in ALLOWED))
    seconds = time.perf_counter() - start
    print(f"{given.count - num_wrong} of {given.count} right, seed {given.seed}, {seconds:.0f} s")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
