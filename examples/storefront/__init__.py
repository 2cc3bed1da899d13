"""A shop whose pages are made for whoever is signed in: `create_app` in `app.py` puts it together."""
