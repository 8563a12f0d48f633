"""Which distributions are installed."""

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed(package: str) -> bool:
    """Whether a distribution is installed."""
    return version_of(package) is not None
