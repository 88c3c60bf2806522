"""Jobs one by one: looked up, listed, cancelled, asked again."""
