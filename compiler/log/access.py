"""Find and open a tuning log; SQLAlchemy is imported when one is opened, not before."""

from pathlib import Path
from typing import TYPE_CHECKING

from hybridc.compiler import plugin, settings
from hybridc.compiler.interfaces import ScheduleRule
from hybridc.compiler.log.urls import is_path

if TYPE_CHECKING:
    from hybridc.compiler.log.store import TuningLog

# The rule of records that hold a trace of TVM's own search instead of knobs.
GENERIC = "metaschedule"


def open_log(
    url: str | None = None, *, readonly: bool = False, plugins: tuple[Path, ...] = ()
) -> "TuningLog":
    """Open a log by its path or URL, or the default one; it is created where there is none.

    `plugins` are files whose rules records may name, besides those that are installed.  Raises
    LogError, in one line, where it cannot be opened; what stands there is left as it is.
    """
    from hybridc.compiler.log import connect
    from hybridc.compiler.log.store import TuningLog

    where = connect.parse(url or settings.log_url())
    engine, readonly = connect.connect(where, readonly)
    return TuningLog(connect.name_of(where), engine, readonly, rule_names(plugins))


def rule_names(plugins: tuple[Path, ...] = ()) -> frozenset[str]:
    """The rules that records may name."""
    names = plugin.catalogue("hybridc.schedules", ScheduleRule, plugins).names()
    return frozenset({*names, GENERIC})


def default_exists() -> bool:
    """Whether there is a default log to look into; what is no path counts as one."""
    url = settings.log_url()
    return not is_path(url) or Path(url).exists()
