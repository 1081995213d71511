"""The model registry: versions, the gate, aliases, cards, and models carried elsewhere."""
