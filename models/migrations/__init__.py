"""The history of the schema. `models.store` applies it; a revision never changes once it is released."""
