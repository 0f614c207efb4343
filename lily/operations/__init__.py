"""What a person or a program may do. Each is one transaction on the store; then the doorbell rings."""
