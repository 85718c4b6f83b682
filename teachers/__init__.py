"""The teachers: frozen models whose outputs a student learns to match."""
