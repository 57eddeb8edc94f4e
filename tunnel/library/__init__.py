"""The tunnel inside another program: context managers around what runs."""
