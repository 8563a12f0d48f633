"""Make docs/conformance.md from documents of `hybridc conformance --json`."""

import json
from pathlib import Path

import click
import command_line

from hybridc.compiler.conformance.page import Document, page
from hybridc.compiler.errors import InputError, first_line


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...], output: Path) -> None:
    """Write the page of these results, in their order."""
    output.write_text(page(list(map(_document, files))))


def _document(file: Path) -> Document:
    try:
        return Document.from_json(json.loads(file.read_text()))
    except ValueError as error:  # of JSON and of UTF-8
        raise InputError(f"{file}: {first_line(error)}") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


if __name__ == "__main__":
    command_line.run(main)
