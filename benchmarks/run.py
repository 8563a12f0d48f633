"""Run benchmarks and write what they measured into RESULTS.md.

Usage: `python benchmarks/run.py [NAME]...`.

Each file beside this one that has a function `run` is a benchmark and makes one section; a
benchmark that is not named keeps the section that it has.
"""

import datetime
import importlib
import re
import sys
from pathlib import Path

from hybridc.compiler import host, measure

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
NAMES = ("peers", "kernels", "overheads")
_HEAD = """# Results

Made by `make bench`; every number here was measured by the file that its section names, on the
day and the machine that stand there.  What falls short of its goal is marked **missed**.
"""


def main(names: list[str]) -> None:
    """Run the benchmarks named, or all."""
    unknown = set(names) - set(NAMES)
    if unknown:
        sys.exit(f"no benchmark is named {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    sections = _sections()
    for name in names or NAMES:
        busy = measure.busy_cores()
        module = importlib.import_module(name)
        title = (module.__doc__ or name).split("\n", 1)[0].rstrip(".")
        quiet = "" if busy <= measure.QUIET_LOAD else f" **Not quiet: {busy:.1f} cores busy.**"
        machine = f"{host.cores()} cores of an {host.cpu_model()}"
        stamp = f"`benchmarks/{name}.py`, {datetime.date.today()}, {machine}.{quiet}"
        sections[name] = f"## {title}\n\n{stamp}\n\n{module.run().strip()}\n"
        _write(sections)


def _sections() -> dict[str, str]:
    text = RESULTS.read_text() if RESULTS.exists() else ""
    parts = re.split(r"^<!-- (\w+) -->\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() + "\n" for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _write(sections: dict[str, str]) -> None:
    known = [name for name in NAMES if name in sections]
    RESULTS.write_text("\n".join([_HEAD, *(f"<!-- {n} -->\n{sections[n]}" for n in known)]))


if __name__ == "__main__":
    main(sys.argv[1:])
