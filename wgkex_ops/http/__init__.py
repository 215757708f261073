"""The HTTP side: the broker's listener for nodes, and the listeners for operators of both processes."""
