"""Jobs as callers see them: objects, errors, and the reasons why they wait."""
