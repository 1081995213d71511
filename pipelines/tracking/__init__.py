"""MLflow runs: the only place that logs."""
