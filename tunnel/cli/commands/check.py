"""`tls-tunnel check`: every fault of a configuration."""

from __future__ import annotations

import typer

from tunnel.cli.options import Config, Form, FormOption
from tunnel.errors import Fault, StoreError


def check(config: Config, form: FormOption = Form.TEXT) -> None:
    """Say every fault of a configuration; exit with 1 if there is one."""
    import json

    from tunnel.cli import loading
    from tunnel.config.report import Report

    try:
        report = loading.check(config)
    except StoreError as error:
        if form is Form.TEXT:
            raise
        # A program gets a report in any case: that the file cannot be read is its one fault.
        report = Report(None, (Fault(None, None, str(error)),), ())
    print(
        report.as_text(str(config)) if form is Form.TEXT else json.dumps(report.as_json(), indent=2)
    )
    if not report.valid:
        raise typer.Exit(1)
