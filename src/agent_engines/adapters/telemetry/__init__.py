"""Logs, metrics and spans: msgspec, prometheus-client and OpenTelemetry behind ports/telemetry.py."""
