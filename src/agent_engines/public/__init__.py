"""Floor 8: engines and clients as users import them, able to connect by themselves from the environment."""
