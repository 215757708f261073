"""The gateways as a broker sees them: which are online, which one is best, and which keys they have confirmed."""
