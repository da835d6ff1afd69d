//! What is replicated, the overlay over it, and how effects are applied.
