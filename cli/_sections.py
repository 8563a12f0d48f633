"""A command whose help is in sections, and which refuses a limit that is given twice."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

Sections = Mapping[str, Sequence[str]]

# The sections of `hybridc compile`, with the names of their options.
COMPILE: Sections = {
    "Output": ("output", "report", "as_json", "verbose"),
    "Model and target": ("shape", "untrusted", "target", "threads", "backends", "fallback"),
    "Contract": (
        *("max_latency", "min_throughput", "max_memory", "max_size"),
        *("min_accuracy", "max_drop", "validate", "keep_best"),
    ),
    "Data": ("calibration", "validation", "seed"),
    "Precision and passes": ("dtype", "exact", "level", "pipeline", "plugin"),
    "Verification": ("verify", "rtol", "atol", "dump_ir"),
    "Strategy and budget": (
        *("strategy", "mode", "tier", "budget", "components", "weights", "order", "threshold"),
        *("adaptive", "predict", "depth", "workers", "levels", "level_weights", "resume", "strict"),
    ),
    "Tuning": ("trials", "log", "near", "frozen", "lock"),
    "Monitoring": ("monitor", "monitor_interval", "trace", "profile"),
    "Other": ("config",),
}


class Sectioned(click.Command):
    """A command whose help lists its options in `sections`; the rest join the last one.

    As usual, the last value of a repeated option counts. But a contract with a silently dropped
    limit would promise less than was asked for, so the options in `once` may not be repeated.
    """

    def __init__(
        self, *args: Any, sections: Sections, once: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections
        self.once = frozenset(once)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse repeated options that are in `once`, and parse the rest."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for each, count in Counter(order).items():
            if count > 1 and each.name in self.once and _single(each):
                raise click.UsageError(f"{each.opts[0]} is given twice, and sets one limit", ctx)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section under its title."""
        params = self.get_params(ctx)
        left = {each.name: each for each in params if isinstance(each, click.Option)}
        sections = {
            title: [left.pop(name) for name in names if name in left]
            for title, names in self.sections.items()
        }
        last = list(sections)[-1]
        sections[last] += left.values()  # --help among them, which click names itself
        for title, options in sections.items():
            rows = [row for each in options if (row := each.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _single(option: click.Parameter) -> bool:
    """Whether an option holds one value, which a second one would replace."""
    return isinstance(option, click.Option) and not (option.multiple or option.is_flag)
