"""The node side: caps and telemetry of one machine's GPUs and CPU packages, over MQTT, by lease."""
