"""`hybridc verify`: check that an artifact keeps its contract, here and now."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hybridc.cli._options import BACKEND_PLUGIN, JSON, MODEL_PATH, VERBOSE
from hybridc.cli._output import emit_json, progress, results_alone
from hybridc.compiler.errors import ContractError

if TYPE_CHECKING:
    from hybridc.compiler.artifacts.artifact import Artifact
    from hybridc.compiler.assurance.clause import Clause
    from hybridc.compiler.assurance.recheck import Recheck


@click.command()
@click.argument("artifact", type=MODEL_PATH)
@click.option(
    "--model",
    type=MODEL_PATH,
    help="The model that it was compiled from, to compare answers with.",
)
@click.option(
    "--data",
    type=MODEL_PATH,
    help="Inputs, one or many samples: an .npz file, or a folder of .npy files, named like the"
    " inputs; default: random.",
)
@click.option(
    "--validate",
    metavar="PKG.MOD:FN",
    help="The function that its contract limits.  It is executed, so use only code that you trust.",
)
@BACKEND_PLUGIN
@JSON
@VERBOSE
def command(
    artifact: Path,
    model: Path | None,
    data: Path | None,
    validate: str | None,
    plugin: tuple[Path, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Measure an artifact again, and check its contract.

    Exits with 0 if every limit that could be checked holds, and with 3 if one does not.

    An artifact is native code: verify only artifacts that you trust.
    """
    from hybridc.compiler.artifacts.artifact import Artifact
    from hybridc.compiler.assurance import validation
    from hybridc.compiler.assurance.recheck import recheck

    with results_alone(), progress(verbose) as tell:
        own = validation.load(validate) if validate else None
        loaded = Artifact.load(artifact, plugin)
        found = recheck(loaded, model, data, own, tell)
    if as_json:
        emit_json(_data(found, loaded))
    else:
        click.echo(_text(found, loaded))
    if not found.holds:
        raise ContractError("; ".join(found.examined.broken))


def _data(found: "Recheck", artifact: "Artifact") -> dict[str, Any]:
    return {
        "holds": found.holds,
        "broken": list(found.examined.broken),
        "unchecked": list(found.unchecked),
        "machine": list(found.machine),
        "now": found.examined.certificate,
        "then": dict(artifact.certificate),
    }


def _verdict(clause: "Clause") -> str:
    """A limit in doubt is not confirmed, but nothing says that it is broken either."""
    if clause.kept:
        return "holds"
    return "in doubt" if clause.doubtful else "does not hold"


def _text(found: "Recheck", artifact: "Artifact") -> str:
    from hybridc.compiler import dims
    from hybridc.compiler.text.tables import table

    if found.empty:
        nothing = "nothing was measured: there is no limit to check (--model compares the answers)"
        return "\n".join([nothing, *(f"not checked: {sentence}" for sentence in found.unchecked)])
    then = artifact.certificate.get("data", "nothing")
    lines = [f"measured on {found.examined.certificate['data']}; then on {then}"]
    lines += filter(None, [dims.certified(found.examined.certificate)])
    before = {clause.name: clause.value for clause in found.before}
    rows = [
        (
            clause.name,
            clause.wanted,
            before.get(clause.name, "-"),
            clause.value,
            _verdict(clause),
        )
        for clause in found.clauses
    ]
    headers = ("limit", "wanted", "then", "now", "")
    lines.append(table(headers, rows) if rows else "no limit was checked")
    lines += [
        f"output {each.output}: max-abs {each.max_abs:.3g}, cosine {each.cosine:.9f} against the"
        " reference"
        for each in found.examined.agreement
    ]
    lines += [f"machine: {sentence}" for sentence in found.machine]
    lines += [f"not checked: {sentence}" for sentence in found.unchecked]
    return "\n".join(lines)
