"""Whether this machine is ready: versions, devices, memory, disk, one compiled step."""

from __future__ import annotations

import dataclasses

from bert_variants import doctor


@dataclasses.dataclass(frozen=True)
class Options:
    """Nothing to choose."""


def main(options: Options) -> int:
    """Print a line a check; 1 if one failed."""
    del options
    checks = doctor.doctor()
    print(doctor.render(checks))
    return 0 if all(check.good for check in checks) else 1
