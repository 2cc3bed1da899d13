"""The operator's console: look a customer up, see what the role may see, and who looked before."""
