"""The edge of segmed: the command line, Prefect flows, MLflow tracking, registry and serving."""
