"""What is made of records: the leaderboard, text, data, plots, and samples side by side."""
