"""The command line, after kubectl's habits: one file per command group.

In: arguments. Out: text, tables or JSON. Heavy imports happen inside the commands, so that ``--help`` is instant.
Never: logic that another program could want.
"""
