"""The public listener: from a router's POST to an HTTP response."""
