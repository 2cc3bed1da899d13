"""Server processes: sockets, workers and the supervisor."""
