//! rhumb
