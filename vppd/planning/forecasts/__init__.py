"""What is foreseen: history, feeds, and the forecasts made of them."""
