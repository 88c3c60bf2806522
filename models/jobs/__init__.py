"""Jobs as callers see them: objects, errors, and wait reasons."""
