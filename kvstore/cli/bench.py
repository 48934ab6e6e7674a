"""bench: the load generator of kvstore.client.load, from the command line."""

from __future__ import annotations

import click

from kvstore.cli import exits, output
from kvstore.cli.invocation import Invocation
from kvstore.cli.numbers import Seconds


@click.command("bench")
@click.argument("kind", type=click.Choice(["put", "get", "local-get"]))
@click.option("--connections", default=1, show_default=True, help="Sockets to the cluster.")
@click.option("--in-flight", default=1, show_default=True, help="Requests of one connection that wait.")
@click.option("--value-size", default=256, show_default=True, help="Bytes of a value.")
@click.option("--total", default=10_000, show_default=True, help="Requests in all.")
@click.option("--keys", default=1_000, show_default=True, help="Keys to choose from.")
@click.option("--seed", default=1, show_default=True, help="Of the choice of keys.")
@click.option(
    "--deadline", type=Seconds(0), default=60.0, show_default=True, help="Seconds for the whole run."
)
@click.pass_context
def bench(
    ctx: click.Context,
    kind: str,
    connections: int,
    in_flight: int,
    value_size: int,
    total: int,
    keys: int,
    seed: int,
    deadline: float,
) -> None:
    """Measure puts or gets, each of them acknowledged on its own. Keys are written below /bench/."""
    from kvstore.client.load import LoadSettings, run_load

    invocation: Invocation = ctx.obj
    settings = LoadSettings(
        kind=kind,  # type: ignore[arg-type]
        endpoints=list(invocation.endpoints),
        connections=connections,
        in_flight=in_flight,
        value_bytes=value_size,
        total=total,
        keys=keys,
        seed=seed,
        timeout_seconds=deadline,
    )
    result = run_load(settings).as_dict()
    if invocation.write_out == "json":
        output.write_json(result)
    else:
        shown = ("ops_per_second", "p50_ms", "p99_ms", "p999_ms", "max_ms", "completed", "errors", "retries")
        pairs = [(name, _figure(result[name])) for name in shown]
        if invocation.write_out == "table":
            output.write_table([name for name, _figure in pairs], [[figure for _name, figure in pairs]])
        else:
            for name, figure in pairs:
                output.write_line(name.encode(), figure.encode())
    if result["errors"]:
        ctx.exit(exits.GENERAL)


def _figure(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
