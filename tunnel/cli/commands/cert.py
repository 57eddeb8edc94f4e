"""`tls-tunnel cert`: a self-signed certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunnel.cli.options import Force


def cert(
    cert_out: Annotated[Path, typer.Option(help="The certificate (PEM).")] = Path("cert.pem"),
    key_out: Annotated[Path, typer.Option(help="Its key (PEM, mode 0600).")] = Path("key.pem"),
    common_name: Annotated[str, typer.Option(help="The server's name or address.")] = "localhost",
    alt_names: Annotated[
        str, typer.Option(metavar="A,B", help="More names and addresses.", show_default=False)
    ] = "",
    force: Force = False,
) -> None:
    """Make a self-signed certificate; print its fingerprint and its pin."""
    from tunnel import store
    from tunnel.certificates import first_der
    from tunnel.cli.templates import refuse_overwriting

    refuse_overwriting([cert_out, key_out], force=force)
    others = [name for each in alt_names.split(",") if (name := each.strip())]
    made = store.make_certificate(common_name, others)
    store.write_atomic(store.File(key_out, made.key), store.File(cert_out, made.cert, mode=0o644))
    der = first_der(made.cert)
    print(f"certificate          {cert_out}")
    print(f"key                  {key_out}")
    print(f"SHA-256 fingerprint  {store.fingerprint(der)}")
    print(f"pin                  {store.spki_pin(der)}")
