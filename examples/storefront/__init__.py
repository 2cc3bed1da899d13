"""A shop with personalized pages. `create_app` in `app.py` makes the application."""
