"""`expunge --help` in plain text: rich, which draws the help of each command, takes as long to load as all else together."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

__all__ = ["PlainHelp"]


class PlainHelp(TyperGroup):
    """A group of commands that names each with its whole first sentence."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without rich."""
        self.rich_markup_mode = None
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands; the default cuts what does not fit a line."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(1000)) for n, c in found if c is not None and not c.hidden])
