"""Run benchmarks and write what they measured into RESULTS.md.

Usage: `python benchmarks/run.py [NAME]...`.

Each benchmark is a script beside this one, which prints its section; a benchmark that is not named
keeps the section that it has.
"""

import ast
import datetime
import re
import subprocess
import sys
from pathlib import Path

from hybridc.compiler import host, load

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
        busy = load.busy_cores()
        quiet = "" if busy <= load.QUIET else f" **Not quiet: {busy:.1f} cores busy.**"
        machine = f"{host.cores()} cores of an {host.cpu_model()}"
        stamp = f"`benchmarks/{name}.py`, {datetime.date.today()}, {machine}.{quiet}"
        script = HERE / f"{name}.py"
        title = (ast.get_docstring(ast.parse(script.read_text())) or name).split("\n", 1)[0]
        # A process of its own: the threads of one benchmark shall not spin beside the next.
        done = subprocess.run(
            [sys.executable, str(script)], check=True, stdout=subprocess.PIPE, text=True
        )
        sections[name] = f"## {title.rstrip('.')}\n\n{stamp}\n\n{done.stdout.strip()}\n"
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
