"""Every benchmark at its short setting, in about half an hour on 2 quiet cores.

    python -m benchmarks.all [FOLDER]

Prints the tables and writes gemm.json, loader.json, compile.json, corruption.json, recurrence.json,
families.json and step.json into FOLDER (default: benchmarks/results).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks import compile as compiling
from benchmarks import corruption, families, gemm, loader, recurrence, step


def main(argv: list[str] | None = None) -> None:
    """Run them one after the other."""
    given = sys.argv[1:] if argv is None else argv
    folder = Path(given[0]) if given else Path(__file__).parent / "results"
    jobs = {
        "gemm": (gemm.main, []),
        "loader": (loader.main, []),
        "compile": (compiling.main, []),
        "corruption": (corruption.main, ["--shapes", "mini"]),
        "recurrence": (recurrence.main, ["--rounds", "5"]),
        "families": (families.main, ["--rounds", "5"]),
        "step": (step.main, ["--rounds", "5"]),
    }
    for name, (run, arguments) in jobs.items():
        begun = time.monotonic()
        print(f"== {name}", flush=True)
        run([*arguments, "--json", str(folder / f"{name}.json")])
        print(f"   ({time.monotonic() - begun:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
