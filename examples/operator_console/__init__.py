"""The operator's console: find a customer, see the fields of one's role and the earlier views."""
