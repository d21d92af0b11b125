"""`make bench`: Headway beside what a user would pick instead, in one run on one machine.

An absolute figure of a shared machine means little, a ratio within one run means something: so
whatever is compared takes turns, on one store, and the page shows ratios.

Each of `bench.__main__.TOPICS` is a file whose `measure()` returns what it has found, and runs in a
process of its own. The other files are what they share; `peers` are the libraries beside Headway.
"""
