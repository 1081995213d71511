"""The edge of segmed: the command line, flows, tracking and the registry."""

from pipelines.environment import settle

settle()
