"""Engines with workers of their own: one file for each library, which has to be installed.

Not imported by `headway` itself, and none of them by another.
"""
