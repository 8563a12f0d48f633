"""`hybridc doctor`: what is wrong with this installation or machine, and what to do."""

import click

from hybridc.cli._output import clear_progress, emit_json, progress


@click.command()
@click.option(
    "--probe",
    is_flag=True,
    help="Also measure this machine, and keep what was found.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(probe: bool, as_json: bool) -> int:
    """Check the installation and the machine, and say what to do.

    Leaves with 2 when something is broken.
    """
    from hybridc.compiler import doctor

    checks = doctor.examine()
    if probe and doctor.healthy(checks):
        progress()("measuring this machine")
        try:
            checks.extend(doctor.probe())
        finally:
            clear_progress()
    if as_json:
        emit_json(doctor.to_json(checks))
    else:
        click.echo(doctor.text(checks))
    return 0 if doctor.healthy(checks) else 2
