//! rhumb-storage
