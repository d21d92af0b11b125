"""Bars and lines of code that knows nothing of Headway, as reports of the job it runs in.

One door for each library; `headway._captures` opens them for the tasks that name them. What a
door replaces in the library is replaced only while such a job runs in this process.
"""
