"""What is expected, with the error that such forecasts have made."""
