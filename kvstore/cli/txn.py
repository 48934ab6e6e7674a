"""txn: a transaction in small words, from options or from a file.

Each statement is split as a shell would, and read by a little click command of its own, so that its options
are those of put, get and del. It knows the blocking client and how results are written.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any, cast

import click

from kvstore.cli import output
from kvstore.cli.exits import BadKey
from kvstore.cli.invocation import Invocation
from kvstore.cli.kv import item_json, key_bytes
from kvstore.cli.numbers import NOT_NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from kvstore.client import Compare, KeyValue, Operation, TxnResult
    from kvstore.client.transactions import OperationResult, Sign

NUMBERS = ("version", "create", "mod", "lease")
SIGNS = ("=", "!=", ">", "<")
BRANCHES = ("when", "then", "else")


@click.command("txn")
@click.option("--when", multiple=True, metavar="COMPARE", help="What must be so; all of them.")
@click.option("--then", multiple=True, metavar="OPERATION", help="What is done if it is.")
@click.option("--else", "otherwise", multiple=True, metavar="OPERATION", help="What is done if not.")
@click.option(
    "--file", type=click.File("rb"), help="Lines that begin with when, then or else; - is standard input."
)
@click.pass_obj
def txn(
    invocation: Invocation,
    when: tuple[str, ...],
    then: tuple[str, ...],
    otherwise: tuple[str, ...],
    file: Any,
) -> None:
    """Compare, and do one thing or the other, all of it at one revision or nothing at all.

    \b
    COMPARE is one of
      version|create|mod|lease KEY =|!=|>|< NUMBER     value KEY =|!=|>|< VALUE
      exists KEY                                       absent KEY
    each but the last two with --prefix for every key that begins with KEY.

    \b
    OPERATION is one of
      put KEY VALUE [--previous] [--lease ID] [--ignore-value] [--ignore-lease]
      get KEY [--prefix] [--keys-only] [--limit N]
      del KEY [--prefix] [--previous]

    Each is one word for the shell, and quotes in it are as in the shell:
    assent txn --when 'absent /lock' --then "put /lock 'my own'" --else 'get /lock'
    """
    statements = {"when": list(when), "then": list(then), "else": list(otherwise)}
    for line in file or ():
        _sort_in(statements, os.fsdecode(line).strip())
    if not any(statements.values()):
        raise click.UsageError("nothing to do: give --when, --then, --else or --file")
    compares = [cast("Compare", _parsed(_COMPARES, words)) for words in statements["when"]]
    operations = [cast("Operation", _parsed(_OPERATIONS, words)) for words in statements["then"]]
    alternatives = [cast("Operation", _parsed(_OPERATIONS, words)) for words in statements["else"]]
    with invocation.client() as client:
        result = client.txn().when(*compares).then(*operations).otherwise(*alternatives).commit()
    if invocation.write_out == "json":
        output.write_json(_json(result))
        return
    output.write_line(b"then" if result.succeeded else b"else", b"revision %d" % result.revision)
    for each in result.results:
        _write(each)


def _sort_in(statements: dict[str, list[str]], line: str) -> None:
    if not line or line.startswith("#"):
        return
    branch, _, words = line.partition(" ")
    if branch not in BRANCHES:
        raise click.UsageError(f"in {line!r}: a line begins with when, then or else")
    statements[branch].append(words)


def _parsed(commands: dict[str, click.Command], statement: str) -> object:
    """What the statement says. Raises UsageError, which names it."""
    try:
        words = shlex.split(statement)
        if not words or words[0] not in commands:
            raise click.UsageError(f"it begins with one of {', '.join(commands)}")
        return commands[words[0]].main(words[1:], prog_name=words[0], standalone_mode=False)
    except click.UsageError as error:
        raise click.UsageError(f"in {statement!r}: {error.format_message()}") from None
    except ValueError as error:
        raise click.UsageError(f"in {statement!r}: {error}") from None


# ---------------------------------------------------------------- compares


def _number_command(name: str) -> click.Command:
    @click.command(name, add_help_option=False)
    @click.argument("key")
    @click.argument("sign", type=click.Choice(SIGNS))
    @click.argument("number", type=NOT_NEGATIVE)
    @click.option("--prefix", is_flag=True)
    def command(key: str, sign: str, number: int, prefix: bool) -> Compare:
        from kvstore.client import Compare

        compare = {
            "version": Compare.version,
            "create": Compare.create_revision,
            "mod": Compare.mod_revision,
            "lease": Compare.lease,
        }[name]
        return compare(key_bytes(key), cast("Sign", sign), number, prefix=prefix)

    return command


@click.command("value", add_help_option=False)
@click.argument("key")
@click.argument("sign", type=click.Choice(SIGNS))
@click.argument("value")
@click.option("--prefix", is_flag=True)
def _value(key: str, sign: str, value: str, prefix: bool) -> Compare:
    from kvstore.client import Compare

    return Compare.value(key_bytes(key), cast("Sign", sign), os.fsencode(value), prefix=prefix)


@click.command("exists", add_help_option=False)
@click.argument("key")
def _exists(key: str) -> Compare:
    from kvstore.client import Compare

    return Compare.exists(key_bytes(key))


@click.command("absent", add_help_option=False)
@click.argument("key")
def _absent(key: str) -> Compare:
    from kvstore.client import Compare

    return Compare.is_absent(key_bytes(key))


# ---------------------------------------------------------------- operations


@click.command("put", add_help_option=False)
@click.argument("key")
@click.argument("value", required=False)
@click.option("--previous", is_flag=True)
@click.option("--lease", type=NOT_NEGATIVE, default=0)
@click.option("--ignore-value", is_flag=True)
@click.option("--ignore-lease", is_flag=True)
def _put(key: str, value: str | None, **options: Any) -> Operation:
    from kvstore.client import Operation

    if (value is None) is not options["ignore_value"]:
        raise click.UsageError("put has a value, or --ignore-value")
    return Operation.put(key_bytes(key), os.fsencode(value or ""), **options)


@click.command("get", add_help_option=False)
@click.argument("key")
@click.option("--prefix", is_flag=True)
@click.option("--keys-only", is_flag=True)
@click.option("--limit", type=POSITIVE)
def _get(key: str, prefix: bool, keys_only: bool, limit: int | None) -> Operation:
    from kvstore.client import Operation

    if prefix:
        return Operation.prefix(key_bytes(key), keys_only=keys_only, limit=limit or 0)
    if keys_only or limit is not None:
        raise click.UsageError("--keys-only and --limit need --prefix")
    return Operation.get(key_bytes(key))


@click.command("del", add_help_option=False)
@click.argument("key")
@click.option("--prefix", is_flag=True)
@click.option("--previous", is_flag=True)
def _delete(key: str, prefix: bool, previous: bool) -> Operation:
    from kvstore.client import Operation

    if prefix and not key:
        # It is what an unset variable of a script would mean: the whole store.
        raise BadKey("bad key: an empty prefix would delete everything; name at least one byte")
    remove = Operation.delete_prefix if prefix else Operation.delete
    return remove(key_bytes(key), previous=previous)


_COMPARES = {
    **{name: _number_command(name) for name in NUMBERS},
    "value": _value,
    "exists": _exists,
    "absent": _absent,
}
_OPERATIONS: dict[str, click.Command] = {"put": _put, "get": _get, "del": _delete}


# ---------------------------------------------------------------- results


def _write(result: OperationResult) -> None:
    """As put, get and del write it; of a key that is not there, nothing."""
    from kvstore.client import DeleteResult, KeyValue, PutResult, RangeResult

    if isinstance(result, PutResult):
        if result.previous is not None:
            _write_items([result.previous])
    elif isinstance(result, DeleteResult):
        output.write_line(f"deleted {result.deleted}".encode())
        _write_items(result.previous)
    elif isinstance(result, KeyValue):
        _write_items([result])
    elif isinstance(result, RangeResult):
        _write_items(result.items)


def _write_items(items: list[KeyValue]) -> None:
    for item in items:
        output.write_line(item.key, item.value)


def _json(result: TxnResult) -> dict[str, object]:
    shown = [_result_json(each) for each in result.results]
    return {"revision": result.revision, "succeeded": result.succeeded, "results": shown}


def _result_json(result: OperationResult) -> object:
    from kvstore.client import DeleteResult, KeyValue, PutResult, RangeResult

    if isinstance(result, PutResult):
        return {"previous": None if result.previous is None else item_json(result.previous)}
    if isinstance(result, DeleteResult):
        return {"deleted": result.deleted, "previous": [item_json(item) for item in result.previous]}
    if isinstance(result, RangeResult):
        items = [item_json(item) for item in result.items]
        return {"count": result.count, "more": result.more, "items": items}
    assert result is None or isinstance(result, KeyValue), f"no command makes {result!r}"
    return None if result is None else item_json(result)
