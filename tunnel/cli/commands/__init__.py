"""One module for each command: its signature, which is its help, and its body.

To ask for help, or to complete a word in the shell, imports all of these modules. So they import at
their top only what costs nothing; Trio, Rich, configurations and keys are imported by the bodies.
"""
