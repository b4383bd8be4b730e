"""What people see: text, tables, progress and figures."""
