"""What will happen: pure; time, figures and randomness are passed in."""
