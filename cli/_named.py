"""A group of commands that says which name is nearest."""

import click

from hybridc.compiler.errors import hint


class NamedGroup(click.Group):
    """A group that names the nearest of its commands, and without one prints its help."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one is nearest."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            outer = ctx.command_path.split()[1:]  # of `hybridc log ls`, that is `log`
            name = " ".join([*outer, args[0]])
            raise click.UsageError(f"no verb is named {name!r}; {hint(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)


def help_alone(ctx: click.Context) -> None:
    """Print the help of a group that was called without a command."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
