"""Records and descriptions for tests of the tuning log."""

from typing import Any

from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.log.store import TuningLog

TARGET = Described.of("target", {"kind": "cpu", "threads": 2, "features": ["avx2"], "l2": 2**20})
TOOLS = Described.of("toolchain", {"tvm": "1.0", "llvm": 22})


def kernel(size: int = 8, kind: str = "add") -> Described:
    """A workload in the canonical form: so many floats."""
    argument = ["buffer", "v0", "float32", [size], [], "global"]
    return Described.of("workload", ["kernel", 1, [argument], [kind, "v0", size]])


def record(**given: Any) -> Record:
    """A record that is fit to be kept."""
    usual: dict[str, Any] = {
        "workload": kernel().key,
        "target": TARGET.key,
        "toolchain": TOOLS.key,
        "rule": "dense",
        "point": {"rows": 4},
        "verdict": Verdict.OK,
        "seconds": (1e-3, 1.1e-3, 1.05e-3),
        "when": 1.7e9,
        "who": "tester",
        "seed": 0,
    }
    if given.get("verdict", Verdict.OK) is not Verdict.OK and "seconds" not in given:
        given["seconds"] = ()
    return Record(**{**usual, **given})


def sweep(count: int, **given: Any) -> list[Record]:
    """Records of so many points, each a fifth slower than the one before."""
    return [
        record(point={"rows": row}, seconds=(1e-3 * 1.2**row,) * 3, **given) for row in range(count)
    ]


def keys(log: TuningLog) -> set[str]:
    """The keys of all records."""
    return {each.key for each in log.records()}
