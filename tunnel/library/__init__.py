"""The tunnel inside of another program: context managers over what `api` runs."""
