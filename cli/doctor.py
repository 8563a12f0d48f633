"""`hybridc doctor`: check the installation and the machine."""

import click

from hybridc.cli._options import JSON
from hybridc.cli._output import emit_json, progress


@click.command()
@click.option(
    "--probe",
    is_flag=True,
    help="Also measure this machine, and remember the results.",
)
@JSON
def command(probe: bool, as_json: bool) -> int:
    """Check the installation and the machine, and say what to do.

    Exits with 2 if something is broken.
    """
    from hybridc.compiler.installation import doctor

    checks = doctor.examine()
    if probe and doctor.healthy(checks):
        with progress() as tell:
            tell("measuring this machine")
            checks.extend(doctor.probe())
    if as_json:
        emit_json(doctor.to_json(checks))
    else:
        click.echo(doctor.text(checks))
    return 0 if doctor.healthy(checks) else 2
