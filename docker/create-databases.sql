-- MLflow's database is made by POSTGRES_DB; its logins and Prefect have their own.
CREATE DATABASE mlflow_auth OWNER segmed;
CREATE DATABASE prefect OWNER segmed;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
