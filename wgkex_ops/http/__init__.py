"""The broker's face towards nodes, and the operator pages of both processes."""
