"""NATS: JetStream for what must not be lost, core NATS for signals, a key-value bucket for settings."""
