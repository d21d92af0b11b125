"""`make bench`: Headway beside what a user would pick instead, in one run on one machine.

An absolute figure of a shared machine means little, a ratio within one run means something: so
whatever is compared takes turns, on one store, and the page shows ratios.

Each file but the shared ones (`measure`, `store`, `plots`, `page`) is a topic: its `measure()`
returns what it has found. Each topic runs in a process of its own.
"""
