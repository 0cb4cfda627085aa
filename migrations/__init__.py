"""Alembic migrations of the service's database. ``migrations.run`` applies them; ``versions/`` holds them."""
