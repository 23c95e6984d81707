"""The two stages, the switch between them, and the interaction with the environment."""
