"""The element and the pages in a real Chromium, served by real processes."""
