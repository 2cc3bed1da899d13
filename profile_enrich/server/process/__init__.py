"""Running the server: sockets, workers and the supervisor."""
