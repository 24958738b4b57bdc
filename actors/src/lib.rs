//! rhumb-actors
