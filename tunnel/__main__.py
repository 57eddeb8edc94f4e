"""`python -m tunnel` is `tls-tunnel`."""

from tunnel.cli import main

if __name__ == "__main__":
    main()
