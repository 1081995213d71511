-- MLflow's database is made by POSTGRES_DB; Prefect keeps its own.
CREATE DATABASE prefect OWNER segmed;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
