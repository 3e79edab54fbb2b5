"""The REST API, for other programs (Django REST framework)."""
