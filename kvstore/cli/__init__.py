"""The command `assent`: its global options and the list of its subcommands.

Start-up time is felt at every call, so nothing is imported before it is needed, ZeroMQ least of all.
What a failure means to the shell is decided in one place, `exits`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from kvstore.cli.invocation import DEFAULT_ENDPOINTS, ClusterClients, Invocation, parse_endpoints
from kvstore.cli.numbers import Seconds

# name -> (module, attribute, its line in `--help`, which thereby imports nothing)
COMMANDS = {
    "snapshot": ("kvstore.cli.disk", "snapshot", "Save all keys to a file, and begin a cluster with it."),
    "node": ("kvstore.cli.admin", "node", "Run one node of a cluster."),
    "status": ("kvstore.cli.admin", "status", "Show every node: role, term, indexes, revision."),
    "cluster": ("kvstore.cli.members", "cluster", "Begin a cluster."),
    "member": ("kvstore.cli.members", "member", "Show and change who takes part."),
    "change-membership": (
        "kvstore.cli.members",
        "change_membership",
        "Have exactly these voters, in one step.",
    ),
    "move-leader": ("kvstore.cli.members", "move_leader", "Have another node lead."),
    "put": ("kvstore.cli.kv", "put", "Store a value under a key."),
    "get": ("kvstore.cli.kv", "get", "Show a value, or all below a prefix."),
    "del": ("kvstore.cli.kv", "delete", "Delete a key, or all below a prefix."),
    "txn": ("kvstore.cli.txn", "txn", "Compare, and do one thing or the other, all at once."),
    "watch": ("kvstore.cli.kv", "watch", "Follow the changes of a key, or of all below a prefix."),
    "compact": ("kvstore.cli.compact", "compact", "Forget the past of keys, or of the log."),
    "lease": ("kvstore.cli.leases", "lease", "Grant, renew and revoke leases."),
    "ls": ("kvstore.cli.paths", "ls", "Show the names right below a path."),
    "tree": ("kvstore.cli.paths", "tree", "Show all that is below a path."),
    "import": ("kvstore.cli.tree", "import_file", "Store a JSON or TOML tree, one key for each leaf."),
    "export": ("kvstore.cli.tree", "export_prefix", "Write all below a prefix as a JSON or TOML tree."),
    "wal": ("kvstore.cli.wal", "wal", "Look at the log of a node that does not run."),
    "bench": ("kvstore.cli.bench", "bench", "Measure puts and gets, each acknowledged on its own."),
}


class CommandGroup(click.Group):
    """The top of the command line; imports a subcommand when it is asked for. One per process."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _line = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), f"{module}.{attribute} is no command"
        if isinstance(command, click.Group):
            for subcommand in command.commands.values():
                _accept_global_options(subcommand)
        elif cmd_name != "node":
            _accept_global_options(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_module, _attribute, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except BrokenPipeError:
            _give_up_stdout()
            ctx.exit(141)
        except KeyboardInterrupt:
            ctx.exit(130)
        except Exception as error:
            from kvstore.cli import exits

            code = exits.code_of(error)
            if code is None:
                raise
            click.echo(f"assent: {exits.message_of(error)}", err=True)
            ctx.exit(code)


def _accept_global_options(command: click.Command) -> None:
    """Let the global options stand behind the command, too, where a hand looks for them; those go before."""
    taken = {opt for parameter in command.params for opt in parameter.opts}
    for option in cli.params:
        name = option.name
        if name not in ("endpoints", "timeout_seconds", "write_out") or taken & set(option.opts):
            continue
        parse = parse_endpoints if name == "endpoints" else None
        command.params.append(
            click.Option(
                option.opts,
                type=option.type,
                default=None,
                expose_value=False,
                help="The same as before the command.",
                callback=_override(name, parse),
            )
        )


def _override(
    name: str, parse: Callable[[click.Context, click.Parameter, str], Any] | None
) -> Callable[..., None]:
    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(ctx.obj, name, value if parse is None else parse(ctx, parameter, value))

    return callback


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"assent {version('assent')}")
    except PackageNotFoundError:
        click.echo("assent, run from a tree that is not installed")
    ctx.exit()


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--endpoints",
    envvar="ASSENT_ENDPOINTS",
    default=DEFAULT_ENDPOINTS,
    show_default=True,
    show_envvar=True,
    callback=parse_endpoints,
    help="Client endpoints of the nodes, separated by commas.",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=Seconds(0.01, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="The deadline of every call.",
)
@click.option(
    "-w",
    "--write-out",
    type=click.Choice(["simple", "table", "json"]),
    default=None,
    help="How results are written.  [default: simple; table for status]",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version)
@click.pass_context
def cli(
    ctx: click.Context, endpoints: tuple[str, ...], timeout_seconds: float, write_out: str | None
) -> None:
    """Talk to an Assent cluster, or run a node of one."""
    ctx.obj = Invocation(endpoints, timeout_seconds, write_out, ctx.obj or ClusterClients())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is the result. Nothing but a defect of Assent shows a traceback."""
    try:
        # An exit code, by way of Context.exit; otherwise what the command returned, which is nothing.
        code = cli.main(args=arguments, prog_name="assent", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        _give_up_stdout()
        return 141


def _give_up_stdout() -> None:
    """The reader went away, as `| head` does. What is still buffered must not be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """The console script."""
    sys.exit(run())
