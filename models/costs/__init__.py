"""Money: prices, forecasts and budgets, in US dollars."""
