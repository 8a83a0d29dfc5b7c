"""`deadweight completion`: a script that makes a shell complete deadweight's words."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands and options.

    \b
    Examples:
      deadweight completion bash > ~/.local/share/bash-completion/completions/deadweight
      deadweight completion zsh > "${fpath[1]}/_deadweight"
      deadweight completion fish > ~/.config/fish/completions/deadweight.fish
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "deadweight", "_DEADWEIGHT_COMPLETE").source())
