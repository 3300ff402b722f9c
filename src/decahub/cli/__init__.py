"""The command line: `decahub <command>`, one module per command."""
