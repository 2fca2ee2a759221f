"""What is planned: from forecasts and obligations to a timetable, and what came of it."""
