"""`tls-tunnel check`: every fault of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunnel.cli.options import Config, Form, FormOption
from tunnel.errors import Fault, StoreError

if TYPE_CHECKING:
    from tunnel.config.report import Report


def check(config: Config, form: FormOption = Form.TEXT) -> None:
    """Say every fault of a configuration; exit with 1 if there is one."""
    import json

    from tunnel.cli import loading

    report = loading.check(config) if form is Form.TEXT else _report(config)
    print(
        report.as_text(str(config)) if form is Form.TEXT else json.dumps(report.as_json(), indent=2)
    )
    if not report.valid:
        raise typer.Exit(1)


def _report(config: Path) -> Report:
    """The report for a program: that the file cannot be read is its one fault then."""
    from tunnel.cli import loading
    from tunnel.config.report import Report

    try:
        return loading.check(config)
    except StoreError as error:
        return Report(None, (Fault(None, None, str(error)),), ())
