"""The options of a command in a file, so that a run can be repeated: TOML, one line an option, by its name."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from bayesmeta.errors import DataError

Value = str | int | float | bool | list[str]
UNWRITTEN = ("config", "force", "checkpoint", "every", "resume")  # what is said of one run alone


def given_by(context: typer.Context, config: Path | None) -> Path | None:
    """Let a file say what the command line does not.

    Args:
        context: of the command.
        config: the file; None for none.

    Raises:
        DataError: no such file, one that is no TOML, an option that the command does not have, or a value of a kind
            that it does not take.
    """
    if config is None:
        return None
    try:
        read = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"expected a file of options, got {config}: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, no TOML
        raise DataError(f"expected options as TOML in {config}, got something else: {error}") from error
    known = {each.name: each for each in context.command.params if each.name not in UNWRITTEN}
    for name, value in read.items():
        if name not in known:
            options = ", ".join(str(each) for each in known)
            raise DataError(f"expected options of {context.info_name} in {config} ({options}), got {name!r}")
        read[name] = _value(name, value, known[name], config)
    context.default_map = {**(context.default_map or {}), **read}
    return config


Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of options; those of the command line win. A model folder holds one: MODEL/options.toml.",
        callback=given_by,
        is_eager=True,
    ),
]


def options_of(context: typer.Context, **settled: object) -> str:
    """The options of a run as TOML, for `--config`; those that have no value are left out.

    Args:
        context: of the command.
        settled: options that the command itself has chosen, by name.
    """
    lines = [f"# bayesmeta {context.info_name} --config options.toml; paths are as they were given"]
    for name in (each.name for each in context.command.params):
        value = settled.get(str(name), context.params.get(str(name)))
        if name not in UNWRITTEN and value not in (None, [], ()):
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _value(name: str, value: object, option: Any, config: Path) -> Value:
    several = getattr(option, "multiple", False)
    is_flag = getattr(option, "is_flag", False)
    parts = value if isinstance(value, list) else [value]
    kinds = (bool,) if is_flag else (str,) if several else (str, int, float)
    fits = all(isinstance(part, kinds) and isinstance(part, bool) == is_flag for part in parts)
    if not fits or (isinstance(value, list) and not several):
        wanted = "true or false" if is_flag else "a text, or a list of texts" if several else "a text or a number"
        raise DataError(f"expected {wanted} for {name} in {config}, got {value!r}")
    return parts if several else value  # type: ignore[return-value]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's basic strings are JSON's
