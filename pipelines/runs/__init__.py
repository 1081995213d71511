"""Archive runs as flows request them: record, page, notifications and automations."""
