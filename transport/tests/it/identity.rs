//! Who is let in, and what both sides learn of it.
