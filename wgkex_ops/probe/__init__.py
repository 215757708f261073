"""The canary: a router in software, which shows whether nodes get a tunnel."""
