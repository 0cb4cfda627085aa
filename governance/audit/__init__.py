"""What auditors ask: readings as of any entry, why a decision was made, what remains, exports, statements."""
