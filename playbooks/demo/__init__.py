"""The demo's database: a honeypot's session store as it stands before ADR-007, made up row by row from a seed."""
