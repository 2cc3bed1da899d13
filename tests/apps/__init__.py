"""Small applications that tests wrap, serve and fork."""
