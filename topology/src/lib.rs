//! rhumb-topology
