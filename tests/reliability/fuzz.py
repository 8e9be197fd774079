"""Fuzzing of configs, rules and module trees: whatever is configured is built or refused with a `ConfigError`.

    python -m tests.reliability.fuzz [--count N] [--seed S]
    python -m tests.reliability.fuzz --case SEED

Prints how many cases of each kind were built and refused. A case that ends otherwise is printed with its seed, and the
exit status is 1: another exception, a hang, a warning of Python, or a message that is empty, too long or holds
control characters. `--case` runs one case again, with the traceback of what it raises.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.support.fuzzed_cases import run_case, run_cases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--case", type=int, help="run one case, by the seed that was printed")
    given = parser.parse_args()
    if given.case is not None:
        print(run_case(given.case, reraise=True))
        return 0
    start = time.perf_counter()
    counts, wrong = run_cases(given.seed, given.count)
    kinds = sorted({kind for kind, _ in counts})
    for kind in kinds:
        print(f"{kind}: {counts[kind, 'built']} built, {counts[kind, 'refused']} refused")
    for outcome in wrong:
        print(f"--case {outcome.seed}: {outcome.kind}: {outcome.verdict}: {outcome.detail!r}"[:600])
    right = given.count - len(wrong)
    seconds = time.perf_counter() - start
    print(f"{right} of {given.count} built or refused with a ConfigError, seed {given.seed}, {seconds:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
