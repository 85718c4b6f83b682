"""The teachers: frozen models whose outputs a student is taught to match."""
