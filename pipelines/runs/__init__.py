"""Archive runs as flows ask for them: their record, their page, who is told, and who goes on."""
