"""What the tests serve from processes of their own, and the means to start and end these."""
