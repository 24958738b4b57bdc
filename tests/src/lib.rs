//! rhumb-tests
