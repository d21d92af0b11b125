"""The libraries that Headway is measured beside, each behind the same small contract.

Nothing is imported here: a worker of one of them loads no other one.
"""
