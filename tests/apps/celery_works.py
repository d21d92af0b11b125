"""What `celery --app celery_works worker` loads: the app of works.py makes the engine."""

from importlib import import_module

headway = import_module("works").headway
app = import_module("brokers").celery_app
