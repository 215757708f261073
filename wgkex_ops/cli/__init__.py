"""Commands for operators: arguments, output, exit status."""
