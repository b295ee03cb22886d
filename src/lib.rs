//! Kinone
