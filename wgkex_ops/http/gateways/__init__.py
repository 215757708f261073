"""The gateways as a broker sees them: who is there, which one is best, and what they confirm."""
