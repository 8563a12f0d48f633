"""Make docs/conformance.md from documents of `hybridc conformance --json`."""

import json
from pathlib import Path

import click

from hybridc.compiler.conformance.page import Document, page


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...], output: Path) -> None:
    """Write the page of these results, in their order."""
    documents = [Document.from_json(json.loads(file.read_text())) for file in files]
    output.write_text(page(documents))


if __name__ == "__main__":
    main()
