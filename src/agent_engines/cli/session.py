"""What every command shares: --json, --url, --debug, the client, and how data is printed."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from agent_engines.client.client import Client
from agent_engines.client.http_transport import HttpTransport
from agent_engines.client.options import ClientOptions
from agent_engines.config import Config, load_config
from agent_engines.config.client_url import client_url
from agent_engines.domain.errors import InvalidRequest

JsonOption = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="HTTP address of the system (ENGINES_URL).", show_default=False),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Folder of `engines up` (ENGINES_DATA_DIR).", show_default=False),
]

_SHARED = {"json_output": (JsonOption, False), "url": (UrlOption, None), "debug": (DebugOption, False)}


@dataclass
class Session:
    """One run of one command."""

    json: bool = False
    url: str | None = None
    data_dir: Path | None = None
    retry_seconds: float = 0.0
    """A person at a terminal would rather know at once."""

    @cached_property
    def config(self) -> Config:
        """Raises ConfigurationError."""
        return load_config(
            flags={"ENGINES_URL": self.url, "ENGINES_DATA_DIR": str(self.data_dir) if self.data_dir else None}
        )

    @property
    def http_url(self) -> str:
        """Where the HTTP API is. Raises InvalidRequest for another kind of URL."""
        url = client_url(self.config, http_only=True)
        if not url.startswith(("http://", "https://")):
            raise InvalidRequest("the command line speaks HTTP: give --url an http:// or https:// address", field="url")
        return url

    def client(self) -> Client:
        return Client(transport=self.transport(), options=self._options())

    def transport(self) -> HttpTransport:
        return HttpTransport(self.http_url, self._options())

    def print(self, data: Any, show: Callable[[], None]) -> None:
        """JSON when it was asked for, else what `show` writes for people."""
        if self.json:
            print_json(data)
        else:
            show()

    def _options(self) -> ClientOptions:
        return ClientOptions(api_key=self.config.engines_api_key, retry_seconds=self.retry_seconds)


def command(
    app: typer.Typer, name: str | None = None, *, epilog: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `work(session, ...)` as a command with the shared options; a coroutine is run to its end."""

    def register(work: Callable[..., Any]) -> Callable[..., Any]:
        app.command(name, epilog=epilog)(_with_shared_options(work))
        return work

    return register


def without_subcommand(app: typer.Typer) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `work(session, ...)` as what the group itself does when none of its commands is named."""

    def register(work: Callable[..., Any]) -> Callable[..., Any]:
        run = _with_shared_options(work)

        def unless_named(context: typer.Context, **given: Any) -> Any:
            return run(**given) if context.invoked_subcommand is None else None

        described: Any = unless_named
        own = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        signature = inspect.signature(run)
        described.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])
        described.__annotations__ = {"context": typer.Context, **run.__annotations__}
        described.__doc__ = work.__doc__
        app.callback(invoke_without_command=True)(unless_named)
        return work

    return register


def _with_shared_options(work: Callable[..., Any]) -> Callable[..., Any]:
    def run(**given: Any) -> Any:
        session = Session(json=given.pop("json_output"), url=given.pop("url"), data_dir=given.get("data_dir"))
        given.pop("debug")
        try:
            outcome = work(session, **given)
            result = _finished(outcome) if asyncio.iscoroutine(outcome) else outcome
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # Whoever read our output has left (`engines tasks list | head`): nothing is wrong, and nobody listens.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None

    own = list(inspect.signature(work, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for key, (kind, default) in _SHARED.items()
    ]
    # Typer reads parameters from the signature; these are the command's own and then the shared ones.
    described: Any = run
    described.__signature__ = inspect.Signature([*own, *shared])
    described.__annotations__ = {one.name: one.annotation for one in [*own, *shared]}
    described.__doc__ = work.__doc__
    described.__name__ = work.__name__
    return run


def group(help_text: str, *, show_help: bool = True) -> typer.Typer:
    """An empty group of commands; without arguments it shows its help, unless it does something by itself."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=show_help,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def print_json(data: Any) -> None:
    """One JSON document, indented, on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")


def parsed_json(text: str, what: str) -> Any:
    """Raises InvalidRequest saying where the text stops being JSON."""
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidRequest(f"{what} is not JSON: {error}", field=what) from None


def _finished(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def query(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Those filters that were given."""
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}
