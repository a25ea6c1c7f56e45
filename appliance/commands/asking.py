"""What every command needs: the screen to speak to, and the settings that `--config` names."""

import os
import pwd
import sys
from collections.abc import Callable
from functools import partial

import click
from rich.console import Console

from appliance.settings import Settings

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def settings_of(ctx: click.Context) -> Settings:
    """Read the settings, once a command needs them.

    Raises:
        SettingsError: a file is wrong.
    """
    read: Callable[[], Settings] = ctx.find_object(partial)  # type: ignore[assignment]
    return read()


def login_name() -> str:
    """Who runs this command, by the account of this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return str(os.getuid())
