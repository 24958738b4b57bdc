//! rhumb-transport
