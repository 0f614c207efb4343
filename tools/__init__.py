"""Scripts behind the gates; nothing here is shipped."""
