"""What a person configures: the settings, the secrets and addresses in them, and their documentation."""
